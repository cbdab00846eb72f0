"""The package as a user installs it: a wheel in a folder of its own, used from another one, without the repository."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import ROOT, environment, small

from patientdx.cli.compose import configuration
from patientdx.core import extras
from patientdx.core.errors import UserError
from patientdx.core.extras import EXTRAS

CONF = ROOT / "conf"
# What a plain install lacks: packages that no process with this file on its path finds.
WITHOUT_EXTRAS = f"""
from importlib.machinery import PathFinder
real = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: None if name in {set(EXTRAS)} else real(name, path, target)
"""


def build(command: str, folder: Path) -> Path:
    """The one file that a hook of the build backend writes to `folder`."""
    code = f"import hatchling.build as backend, sys; print(backend.{command}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the repository as it is."""
    return build("build_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def patientdx(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess]:
    """The console command of the installed wheel, in a folder of its own, and without the packages of the extras."""
    target, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (target / "sitecustomize.py").write_text(WITHOUT_EXTRAS)

    def call(*words: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(target / "bin" / "patientdx"), *words],
            cwd=folder,
            env=environment() | {"PYTHONPATH": str(target)} | variables,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return call


def test_the_wheel_has_every_yaml_of_conf_and_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        held = {name for name in names if not name.startswith("patientdx-")}
        folders = [path for path in CONF.iterdir() if path.is_dir()]  # links too, which rglob does not enter
        yamls = [CONF / "config.yaml", *(path for folder in folders for path in folder.rglob("*.yaml"))]
        for path in yamls:
            assert archive.read(f"patientdx/conf/{path.relative_to(CONF).as_posix()}") == path.read_bytes()
    files = [path for path in (ROOT / "patientdx").rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    source = {path.relative_to(ROOT).as_posix() for path in files}
    assert held == {f"patientdx/conf/{path.relative_to(CONF).as_posix()}" for path in yamls} | source
    assert {"patientdx/conf/pivot_model/llama_3_8b.yaml", "patientdx/conf/hydra/launcher/slurm_8gpu.yaml"} < held


def test_an_editable_install_reads_conf_of_the_clone(tmp_path):
    with zipfile.ZipFile(build("build_editable", tmp_path)) as archive:
        assert not [name for name in archive.namelist() if "conf" in name]
        (link,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".pth")]
    assert Path(link.strip()) == ROOT


def test_dependencies_are_the_pins_of_the_requirements_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = archive.read(name).decode()
    needs = re.findall(r"^Requires-Dist: ([^;\n]+)(?:; extra == '(\w+)')?$", metadata, re.MULTILINE)
    files = [path for path in ROOT.glob("requirements*.txt") if path.name != "requirements-model.txt"]
    lines = [line for path in files for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(requirement for requirement, _ in needs) == sorted(lines)
    extras = {requirement.partition("=")[0].replace("-", "_"): extra for requirement, extra in needs if extra != "dev"}
    assert {name: extra for name, extra in extras.items() if extra and extra != "docs"} == EXTRAS
    assert {"torch", "wandb", "hydra_core"} <= {name for name, extra in extras.items() if not extra}
    assert re.search(r"^Version: 0\.2\.0$", metadata, re.MULTILINE)


def test_help_version_and_completion(patientdx):
    shown = patientdx("--help")
    assert shown.returncode == 0
    assert all(f"\n{name} " in shown.stdout for name in ("run", "merge", "verify", "certify", "report", "labels"))
    assert patientdx("--version").stdout == "patientdx 0.2.0\n"
    assert "merge: " in patientdx("run", "--help").stdout
    assert patientdx("mrege").returncode == 2
    assert patientdx("-sc", "query=bash", COMP_LINE="patientdx me", COMP_POINT="12").stdout.split() == ["merge"]
    line = "patientdx run merge=sl"
    assert "merge=slerp" in patientdx("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).stdout.split()


def test_a_job_is_composed_and_a_merge_saved_from_another_folder(patientdx, tiny_base, tiny_pivot, tmp_path):
    composed = patientdx("run", "merge=linear", "lambda=0.3", "--cfg", "job")
    assert (composed.returncode, "_target_: patientdx.merge.linear.linear" in composed.stdout) == (0, True)
    models = [f"base_model.source={tiny_base}", f"pivot_model.source={tiny_pivot}", "pivot_model.adapter=null"]
    refused = patientdx("merge", *models)
    assert refused.returncode == 2
    assert "add save=<folder>" in refused.stderr
    done = patientdx("merge", *models, f"save={tmp_path / 'merged'}", f"output={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_a_plain_install_runs_the_clinical_task_without_the_packages_of_extras(
    patientdx, tiny_base, tiny_pivot, tmp_path
):
    done = patientdx("run", *small(tiny_base, tiny_pivot), f"output={tmp_path}", "name=plain")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("plain/*/metrics.json"))) == 1


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["finetune=lora"], "peft", "finetune"),
        (["task=ifeval", "task.path=nowhere"], "langdetect", "qa"),
        (["task=record_search"], "bm25s", "qa"),
        (["task=question_summary", "task.path=nowhere"], "rouge_score", "qa"),
        (["tracking=trackio"], "trackio", "trackio"),
        (["generator=vllm"], "vllm", "vllm"),
    ],
)
def test_an_absent_extra_is_named_by_the_configuration(words, package, extra, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError) as refused:
        configuration(words)
    assert f"the package {package}, which is not installed: pip install 'patientdx[{extra}]'" in str(refused.value)


def test_an_absent_extra_ends_a_command_in_one_message(patientdx):
    done = patientdx("run", "task=ifeval", "task.path=nowhere")  # nltk is imported where the task is
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the package nltk, which is not installed: pip install 'patientdx[qa]'" in done.stderr


def test_a_late_import_of_an_extra_is_declared_where_a_configuration_is_checked():
    """A package that a function imports is named in REQUIRES of a module, or checked by name."""
    # By the configuration; a spreadsheet is read before models are.
    declared = {"peft", "trackio", "vllm", "torchao", "openpyxl"}
    late = set()
    for path in (ROOT / "patientdx").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [node.module for node in ast.walk(node) if isinstance(node, ast.ImportFrom) and node.module]
                names += [a.name for node in ast.walk(node) if isinstance(node, ast.Import) for a in node.names]
                late |= {name.partition(".")[0] for name in names} & EXTRAS.keys()
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "REQUIRES":
                declared |= set(ast.literal_eval(node.value))
    assert late <= declared
