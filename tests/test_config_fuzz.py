"""Random overrides are a run that can begin, or are refused in words: see experiments/benchmarks/config_fuzz.py."""

import json

import pytest
from command_line import small

from experiments.benchmarks import config_fuzz


def test_random_overrides_end_in_no_fault(tiny_base, tiny_pivot):
    refusals: list[str | None] = []
    config_fuzz.search(24, small(tiny_base, tiny_pivot), seen=refusals.append)
    assert len(refusals) >= 24
    assert any(refusals)
    assert config_fuzz.begins(small(tiny_base, tiny_pivot, "lambda=0.4"), config_fuzz.Session()) is None


def test_a_fault_is_found(monkeypatch):
    """The search itself can fail; it does so before Hydra composes anything, since a fault is reduced in many steps."""
    assert config_fuzz.keys()
    monkeypatch.setattr(config_fuzz, "compose", lambda *words, **more: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        config_fuzz.search(3, [])
