"""The Python API: the same numbers and files as the command line, on tiny models."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import ROOT, forked, rows_of, small
from safetensors.torch import load_file

import patientdx
from patientdx import api
from patientdx.cli import run
from patientdx.core.errors import UserError
from patientdx.evaluation.session import Session


@pytest.fixture(autouse=True)
def new_session(monkeypatch):
    """A session of its own for each test."""
    monkeypatch.setattr(run, "SESSION", Session())


@pytest.fixture
def words(tiny_base, tiny_pivot, tmp_path):
    """The overrides of a run that takes a second, without the parents."""
    words = [word for word in small(tiny_base, tiny_pivot) if "_model." not in word and not word.startswith("splits")]
    return [*words, f"output={tmp_path / 'out'}"]


def test_the_import_loads_no_library_and_the_package_of_methods_stays_a_package():
    code = (
        "import sys, patientdx; assert not {'torch', 'hydra', 'pandas'} & sys.modules.keys()\n"
        "import patientdx.merge.slerp as module; from patientdx.merge.slerp import slerp\n"
        "assert callable(patientdx.merge) and patientdx.merge.slerp is module"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(AttributeError, match="has no attribute sleep"):
        _ = patientdx.sleep


def test_a_merge_is_saved_and_loaded_with_the_same_weights(tiny_base, tiny_pivot, tmp_path):
    merge = patientdx.merge(tiny_base, tiny_pivot, method="slerp", weight=0.4)
    folder = merge.save(tmp_path / "merged")
    stored = load_file(folder / "model.safetensors")
    model = merge.model(overrides=["dtype=bfloat16", "device=cpu"])
    held = model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in stored.items())
    assert merge.diagnostics["model.layers.0.mlp.up_proj.weight"]["branch"] == "sphere"
    other = merge.at(0.8).model(overrides=["dtype=bfloat16"])
    assert not torch.equal(other.state_dict()["lm_head.weight"], held["lm_head.weight"])  # the first is not refilled


def test_an_evaluation_gives_the_numbers_of_the_command(tiny_base, tiny_pivot, words, tmp_path):
    merge = patientdx.merge(tiny_base, tiny_pivot, weight=0.4)
    result = patientdx.evaluate(merge, task="mortality", overrides=words)
    parents = [f"base_model={tiny_base}", f"pivot_model={tiny_pivot}"]
    command = [*parents, *words[:-1], "merge=slerp", "lambda=0.4", f"output={tmp_path / 'command'}"]
    (done,) = forked(tmp_path, [command])
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in (tmp_path / "command" / "default").glob("*/metrics.json"))
    assert result.metrics.to_dict("records") == pd.DataFrame(rows_of(folder)).to_dict("records")
    assert result.predictions.equals(pd.read_parquet(folder / "predictions.parquet"))
    assert result.folder.name == folder.name  # it ends in the run's fingerprint
    assert set(result.table().splitlines()) <= {line.rstrip() for line in done.stdout.splitlines()}
    assert result.report().name == "report.html"
    assert (result.weight, result.reused, result.search) == (0.4, False, None)
    assert patientdx.evaluate(merge, task="mortality", overrides=words).reused


def test_a_sweep_chooses_on_pilot_and_a_selection_finds_the_same(tiny_base, tiny_pivot, words, tmp_path):
    merge = patientdx.merge(tiny_base, tiny_pivot)
    sweep = patientdx.sweep(merge, [0.0, 0.5, 1.0], overrides=words)
    assert [result.weight for result in sweep.results] == [0.0, 0.5, 1.0]
    assert set(sweep.metrics["split"]) == {"pilot", "test"}
    assert {"sweep.csv", "sweep"} <= {path.name for path in sweep.folder.iterdir()}
    assert "chosen on pilot" in sweep.table()
    found = patientdx.select(merge, overrides=[*words, "search.points=[0,0.5,1]"])
    assert found.search is not None
    assert sweep.chosen is not None
    assert found.weight == sweep.chosen["lambda"] == found.search["chosen"]["lambda"]


def test_parameters_and_lists_become_words(tiny_base, tiny_pivot):
    merge = patientdx.merge(tiny_base, tiny_pivot, "ties", [0.1, 0.9], density=0.3, overrides=[
        f"base_model@ancestor={tiny_base}"
    ])  # fmt: skip
    assert merge.config.merge_config.spec.call.keywords["density"] == 0.3
    assert merge.config.weight == (0.1, 0.9)
    with pytest.raises(UserError, match=r"merge\.densty"):
        patientdx.merge(tiny_base, tiny_pivot, "ties", overrides=[f"base_model@ancestor={tiny_base}"], densty=0.3)
    with pytest.raises(UserError, match=r"lambda=1\.5 is outside \[0, 1\]"):
        patientdx.merge(tiny_base, tiny_pivot, weight=1.5)


@pytest.mark.usefixtures("session_cache")
def test_the_code_of_the_documentation_runs(tiny_base, tiny_pivot, words, tmp_path, monkeypatch):
    """Its five lines and those below, with tiny models in place of those of conf/models."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    code = code.replace("smollm2_135m_instruct", str(tiny_base)).replace("smollm2_135m_numeric", str(tiny_pivot))
    for name in ("evaluate", "sweep", "select"):
        function = getattr(api, name)
        monkeypatch.setattr(
            api, name, lambda *a, _call=function, overrides=(), **k: _call(*a, overrides=[*words, *overrides], **k)
        )
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/api.md", "exec"), {})
    assert (tmp_path / "merged" / "chosen" / "model.safetensors").is_file()
    assert list((tmp_path / "out").rglob("report.html"))


def test_a_path_with_blanks_and_commas_is_one_word(tiny_base, tiny_pivot, tmp_path):
    folder = tmp_path / "a b, c"
    assert patientdx.merge(tiny_base, tiny_pivot, weight=0.4).save(folder) == folder
    assert (Path(folder) / "model.safetensors").is_file()
