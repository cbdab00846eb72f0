"""The package of docs/plugins.md: its files are written as they stand there, installed, and used."""

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import ROOT, launch, settings, small
from in_process import run
from safetensors.torch import load_file

from patientdx.checkpoints.manifest import read_record
from patientdx.cli import verify
from patientdx.cli.compose import configuration
from patientdx.cli.save import save
from patientdx.core import plugins
from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.evaluation.analyses import all_tables
from patientdx.evaluation.session import Session

SEARCH = "hydra.searchpath=[pkg://mylab.conf]"


def _forget() -> None:
    plugins.installed.cache_clear()
    plugins.declared.cache_clear()
    plugins.code.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.fixture
def mylab(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder of the installed example."""
    root = tmp_path / "site"
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL))
    assert len(files) == 6
    for name in ("mylab/__init__.py", "mylab/conf/__init__.py"):
        files[name] = ""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    points = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in names.items())])
        for group, names in project["entry-points"].items()
    ]
    info = root / "mylab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    _forget()
    yield root / "mylab"
    _forget()


@pytest.mark.usefixtures("fresh_session")
def test_method_task_and_analysis_of_the_example_are_run_together(mylab, tiny_base, tiny_pivot, tmp_path):
    words = [word for word in small(tiny_base, tiny_pivot) if not word.startswith("task.")]
    config = configuration([SEARCH, "merge=power", "task=fever", *words, f"output={tmp_path / 'out'}"])
    result = run(config)
    assert {(row["role"], row["split"]) for row in result.rows} >= {("merged", "pilot"), ("base", "test")}
    assert result.analyses["sizes"] == {"pilot": 20, "test": 20}
    assert json.loads((result.folder / "sizes.json").read_text()) == {"pilot": 20, "test": 20}
    assert "sizes" in {item.name for item in all_tables()}
    keys = {row["role"]: row["fingerprint"] for row in result.rows}
    assert run(config).reused
    with (mylab / "power.py").open("a") as file:
        file.write("# another version\n")
    plugins.code.cache_clear()
    again = run(config)
    assert not again.reused
    changed = {row["role"]: row["fingerprint"] for row in again.rows}
    assert changed["merged"] != keys["merged"]  # its responses may be others now
    assert changed["base"] == keys["base"]


def test_a_merge_by_the_example_is_saved_and_verified(mylab, tiny_base, tiny_pivot, tmp_path):
    folder = tmp_path / "merged"
    words = [f"base_model.source={tiny_base}", f"pivot_model.source={tiny_pivot}", "pivot_model.adapter=null"]
    session = Session()
    save(session, configuration([SEARCH, "merge=power", "lambda=0.5", "task=none", *words, f"save={folder}"]))
    assert read_record(folder)["method"] == "mylab.power.power"
    merged, base, pivot = (load_file(path / "model.safetensors") for path in (folder, tiny_base, tiny_pivot))
    for name, tensor in merged.items():
        expected = 0.75 * base[name].double() + 0.25 * pivot[name].double()
        assert torch.equal(tensor, expected.to(tensor.dtype)), name
    assert verify.main([str(folder)]) == 0


def test_the_config_dir_of_a_command_has_the_yamls(mylab, tmp_path):
    shown = launch(tmp_path, "--config-dir", str(mylab / "conf"), "merge=power", "merge.exponent=3", "--cfg", "job")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "_target_: mylab.power.power" in shown.stdout


def test_a_package_that_declares_nothing_is_refused(mylab, tiny_base, tiny_pivot, tmp_path):
    with pytest.raises(UserError, match=r"os\.system is not inside patientdx or mylab"):
        dotted("os.system")
    with pytest.raises(UserError, match=r"mylab\.power\.lerp does not exist; name a function as mylab\.<module>"):
        dotted("mylab.power.lerp")
    (mylab.parent / "mylab-1.0.dist-info" / "entry_points.txt").write_text("")
    _forget()
    with pytest.raises(UserError, match=r"mylab\.power\.power is not inside patientdx; .* docs/plugins\.md"):
        settings(tiny_base, tiny_pivot, tmp_path, "merge._target_=mylab.power.power")


def test_an_analysis_under_another_name_is_refused(mylab):
    points = mylab.parent / "mylab-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("sizes = ", "groups = "))
    _forget()
    with pytest.raises(UserError, match=r"mylab\.sizes:ANALYSIS is declared as the analysis groups: its module needs"):
        all_tables()
