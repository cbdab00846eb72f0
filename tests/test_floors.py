"""The floors of the house: imports go down only. And what keeps a file readable: length, docstrings, names.

Only the syntax tree is read; nothing is imported. The rules are tried on small bad trees, so that they can fail.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FLOORS = {
    "refusal": -1,
    "whole": -1,
    "workers": -1,
    "merge": 0,
    "checkpoint": 1,
    **dict.fromkeys(("tasks", "scoring", "tabular", "metrics", "privacy", "finetune"), 2),
    **dict.fromkeys(
        (
            "call",
            "checks",
            "comparators",
            "data_sets",
            "kinds",
            "mergekit_config",
            "numeracy",
            "settings",
            "search",
            "sources",
        ),
        3,
    ),
    **dict.fromkeys(
        (
            "answers",
            "finetuning",
            "failure",
            "ordering",
            "pointers",
            "opening",
            "saving",
            "searching",
            "seen",
            "session",
            "plan",
            "pipeline",
            "leakage",
            "clinical",
            "clinical_drawing",
            "clinical_table",
            "evidence",
            "generated",
            "graded",
            "graded_table",
            "ranked",
            "results",
            "tracking",
            "report",
            "drawing",
            "sweep",
        ),
        4,
    ),
    **dict.fromkeys(("verify", "certify_page", "certify_study"), 4),
    "certify": 5,
    "run": 5,
    "compare": 5,
    "labels": 5,
}
ONLY_IN = {  # top-level package: the files that may import it
    "hydra": {
        "run.py",
        "patientdx/cli/compare.py",
        "patientdx/cli/labels.py",
        "patientdx/cli/sweep_order.py",
        "patientdx/evaluation/config/settings.py",
        "patientdx/cli/sweep.py",
    },
    "omegaconf": {
        "run.py",
        "patientdx/evaluation/config/settings.py",
        "patientdx/evaluation/config/models.py",
        "patientdx/cli/sweep.py",
    },
    "sklearn": {"patientdx/privacy/blind.py", "patientdx/training/tabular.py"},
    "trackio": {"patientdx/tracking/trackio_run.py"},
    "vllm": {"patientdx/lm/vllm.py"},
    "wandb": {"patientdx/tracking/wandb_run.py"},
}
LAZY = {"trackio", "vllm", "wandb"}  # imported inside a function, so that a run without it does without it
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "base", "common", "misc"}
FILE_LINES, FUNCTION_LINES = 350, 60
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def errors(root: Path) -> list[str]:
    """Everything in the tree below `root` that breaks a rule, one line each."""
    found = []
    for path in python_files(root):
        place = path.relative_to(root)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        said = [*lengths(text, tree), *names(place)]
        if place.parts[0] in ("patientdx", "run.py"):
            said += [*floors(place, tree, root), *docstrings(tree)]
        found += [f"{place.as_posix()}: {fault}" for fault in said]
    return found


def python_files(root: Path) -> list[Path]:
    """The project's own files: the door, the package, experiments and tests."""
    folders = [root / name for name in ("patientdx", "experiments", "tests")]
    return sorted(path for path in [root / "run.py", *(p for f in folders for p in f.rglob("*.py"))] if path.exists())


def imports(place: Path, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(dotted name, node) of every import, inside functions too; relative ones in full, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = place.parts[: -node.level] if node.level else ()
            start = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((f"{start}.{alias.name}", node) for alias in node.names)


def floors(place: Path, tree: ast.Module, root: Path) -> Iterator[str]:
    """Imports that go up, across, or to a package that has its own place."""
    here = place.with_suffix("").parts
    own = here[1] if here[0] == "patientdx" else here[0]
    if own != "__init__" and own not in FLOORS:
        yield f"{own} has no floor: give it one in {Path(__file__).name}"
        return
    inside = {id(node) for one in ast.walk(tree) if isinstance(one, FUNCTIONS) for node in ast.walk(one)}
    for name, node in imports(place, tree):
        parts = name.split(".")
        package = parts[0]
        where = f"line {node.lineno}: imports {name}"
        if package in ONLY_IN and place.as_posix() not in ONLY_IN[package]:
            yield f"{where}, which belongs in {', '.join(sorted(ONLY_IN[package]))}"
        if package in LAZY and id(node) not in inside:
            yield f"{where} at the top; import it inside the function that needs it"
        if own == "merge" and package not in {"torch", "numpy", "patientdx", "scipy", *sys.stdlib_module_names}:
            yield f"{where}; merge takes torch, numpy, scipy and its floor-mates only"
        if package == "patientdx" and len(parts) > 1 and parts[1] != own:
            yield from neighbours(own, parts[1], where, root)


def neighbours(own: str, other: str, where: str, root: Path) -> Iterator[str]:
    """What is wrong with one part of patientdx importing another."""
    if own == "__init__":
        yield f"{where}; patientdx/__init__.py imports nothing"
    elif other not in FLOORS:
        if any((root / "patientdx" / name).exists() for name in (other, f"{other}.py")):
            yield f"{where}, which has no floor"
    elif own == "merge":
        yield f"{where}; merge takes torch, numpy, scipy and its floor-mates only"
    elif FLOORS[other] > FLOORS[own]:
        yield f"{where}, which is up: from floor {FLOORS[own]} to {FLOORS[other]}"
    elif FLOORS[other] == FLOORS[own] == 2:
        yield f"{where}; the neighbours on floor 2 do not import one another"


def lengths(text: str, tree: ast.Module) -> Iterator[str]:
    """A file or function that is too long."""
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines, more than {FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
            yield f"{node.name} has {node.end_lineno - node.lineno + 1} lines, more than {FUNCTION_LINES}"


def names(place: Path) -> Iterator[str]:
    """A folder or module whose name says nothing."""
    yield from (f"{part} says nothing as a name" for part in place.with_suffix("").parts if part in EMPTY_NAMES)


def docstrings(tree: ast.Module) -> Iterator[str]:
    """A module, or a public function, class or method, without a docstring."""
    if ast.get_docstring(tree) is None:
        yield "the module has no docstring"
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
        for one in (node, *inside):
            public = isinstance(one, FUNCTIONS | ast.ClassDef) and not one.name.startswith("_")
            if public and ast.get_docstring(one) is None:
                yield f"{one.name} has no docstring"


def test_the_house_keeps_its_rules():
    assert errors(REPOSITORY) == []


def test_every_floor_is_looked_at():
    """A rule that looked at nothing would be kept by everything."""
    seen = {path.relative_to(REPOSITORY).parts[:2] for path in python_files(REPOSITORY)}
    assert {("run.py",), ("patientdx", "merge"), ("patientdx", "settings.py"), ("tests", "checkpoint")} <= seen


DOC = '"""Says what it is."""\n'
LONG = "    x = 1\n" * 60
BAD = [  # file, its text, what must be said of it
    (
        "checkpoint/a",
        "from patientdx.tasks import b",
        "line 2: imports patientdx.tasks.b, which is up: from floor 1 to 2",
    ),
    (
        "checkpoint/a",
        "def _f():\n    import patientdx.evaluation.config.settings",
        "imports patientdx.evaluation.config.settings, which is up",
    ),
    ("checkpoint/a", "from ..tasks import b", "imports patientdx.tasks.b, which is up"),
    (
        "metrics/a",
        "from patientdx import session",
        "imports patientdx.evaluation.session, which is up: from floor 2 to 4",
    ),
    (
        "settings",
        "import patientdx.evaluation.runner",
        "imports patientdx.evaluation.runner, which is up: from floor 3 to 4",
    ),
    ("refusal", "import patientdx.merge.slerp", "imports patientdx.merge.slerp, which is up"),
    ("tasks/records/a", "from patientdx.metrics import b", "neighbours on floor 2 do not import one another"),
    ("merge/a", "import pandas as pd", "imports pandas; merge takes torch, numpy, scipy and its floor-mates only"),
    (
        "merge/a",
        "from patientdx.core.errors import UserError",
        "merge takes torch, numpy, scipy and its floor-mates only",
    ),
    ("merge/a", "import hydra.utils", "imports hydra.utils, which belongs in patientdx/cli/compare.py"),
    ("__init__", "from patientdx.merge import slerp", "patientdx/__init__.py imports nothing"),
    ("tracking/wandb_run", "import wandb", "imports wandb at the top; import it inside"),
    ("tracking/wandb_run", "if True:\n    from wandb import init", "imports wandb.init at the top; import it inside"),
    ("report", "def _f():\n    import wandb", "imports wandb, which belongs in patientdx/tracking/wandb_run.py"),
    ("pipeline", "from omegaconf import DictConfig", "imports omegaconf.DictConfig, which belongs in"),
    ("novelty", "x = 1", "novelty has no floor: give it one"),
    ("merge/utils", "x = 1", "utils says nothing as a name"),
    ("merge/a", "def slerp():\n    pass", "slerp has no docstring"),
    ("merge/a", f"class A:\n    {DOC}\n    def f(self):\n        pass", "f has no docstring"),
    ("merge/a", "class A:\n    x = 1", "A has no docstring"),
    ("merge/a", f"def f():\n    {DOC}{LONG}", "f has 62 lines, more than 60"),
    ("merge/a", "x = 1\n" * 350, "351 lines, more than 350"),
]


@pytest.mark.parametrize(("file", "text", "fault"), BAD)
def test_a_broken_rule_is_named(tmp_path, file, text, fault):
    path = tmp_path / "patientdx" / f"{file}.py"
    path.parent.mkdir(parents=True)
    path.write_text(DOC + text)
    found = errors(tmp_path)
    assert any(one.startswith(f"patientdx/{file}.py: ") and fault in one for one in found), found


def test_length_and_names_count_everywhere(tmp_path):
    for place in ("tests/common/test_a.py", "experiments/a.py", "run.py"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{DOC}def it():\n{LONG}")
    said = "it has 61 lines, more than 60"
    assert errors(tmp_path) == [
        f"experiments/a.py: {said}",
        f"run.py: {said}",
        "run.py: it has no docstring",
        f"tests/common/test_a.py: {said}",
        "tests/common/test_a.py: common says nothing as a name",
    ]


def test_a_module_without_docstring_is_named(tmp_path):
    (tmp_path / "patientdx" / "merge").mkdir(parents=True)
    (tmp_path / "patientdx" / "merge" / "a.py").write_text("x = 1\n")
    assert errors(tmp_path) == ["patientdx/merge/a.py: the module has no docstring"]


GOOD = {
    "run.py": "import hydra\nfrom patientdx.evaluation.runner import run\n",
    "patientdx/merge/slerp.py": "import math\nimport torch\nfrom patientdx.merge import curve\nfrom .curve import line",
    "patientdx/tasks/mortality.py": "import duckdb\nfrom patientdx.tasks import a\nfrom patientdx import refusal",
    "patientdx/evaluation/config/settings.py": "import omegaconf\nfrom patientdx import __version__\nimport patientdx.checkpoints.source",
    "patientdx/tracking/wandb_run.py": f"def track():\n    {DOC}    import wandb\n\n    def own():\n        pass\n",
    "experiments/a.py": "import torch\n\n\ndef f():\n    pass\n",
    "tests/merge/test_a.py": "def test_it():\n" + "    x = 1\n" * 59,
}


def test_a_good_tree_has_no_fault(tmp_path):
    for file, text in GOOD.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(DOC + text)
    assert errors(tmp_path) == []
