"""What the jobs of a sweep share, counted: a product of everything loads what it must and no more."""

import gc
import weakref
from pathlib import Path

import pytest
from command_line import ROOT, settings
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from in_process import run

from patientdx.cli import sweep_order
from patientdx.lm import load

pytestmark = pytest.mark.usefixtures("fresh_session")


@pytest.fixture
def models(monkeypatch) -> list[int]:
    """How many live models there were each time when one more was loaded."""
    alive: list[weakref.ref] = []
    beside: list[int] = []
    original = load.load_model

    def load_model(*args, **kwargs):
        gc.collect()
        beside.append(sum(model() is not None for model in alive))
        model = original(*args, **kwargs)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(load, "load_model", load_model)
    return beside


def jobs(*words: str) -> list[list[str]]:
    """The jobs of a sweep over these overrides, as they run."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        found = sweep_order.parsed(sweep_order.ordered(words))
        return BasicSweeper.split_arguments(found, None)[0]


def test_a_product_of_everything_loads_each_thing_once(tiny_base, tiny_pivot, make_tiny, tmp_path, models, counted):
    other: Path = make_tiny(noise_seed=5)
    words = (
        "task=mortality,mortality_hospital",
        "lambda=0.2,0.4",
        "merge=slerp,linear",
        f"base_model.source={tiny_base},{other}",
        "splits=[test]",
    )
    asked = jobs(*words)
    assert len(asked) == 16
    found = [run(settings(tiny_base, tiny_pivot, tmp_path / "outputs", *job)) for job in asked]
    assert len({outcome.folder for outcome in found}) == 16
    assert models == [0, 0]  # one for each base, whatever the method and the task, and never two at a time
    assert counted["locate"] == 4
    assert counted["tokenise"] == 4  # two tasks by two bases
    # For each base 2 methods x 2 λ, each filled once for both tasks; and in the first job of each task the parents,
    # after which the second task fills the first point anew: 4 + 2 x 2 + 1.
    assert counted["write"] == 2 * 9


def test_the_third_decimal_of_a_range_is_no_new_point(tiny_base, tiny_pivot, tmp_path, counted):
    """range() gives 0.7000000000000001: the same point, fingerprint, folder and row as 0.7."""
    words = [next(iter(job)) for job in jobs("lambda=range(0,0.8,0.1)")]
    assert words[7] == "lambda=0.7000000000000001"
    first, second = (
        run(settings(tiny_base, tiny_pivot, tmp_path / "outputs", "parents=false", word))
        for word in ("lambda=0.7", words[7])
    )
    assert second.reused
    assert second.folder == first.folder
    assert first.folder.name.startswith("mortality_slerp_lambda=0.7_")
    assert {row["lambda"] for row in second.rows} == {0.7}
    assert settings(tiny_base, tiny_pivot, tmp_path, words[7]).composed["lambda"] == 0.7
