"""The repository keeps the rules of docs/architecture, and every rule can fail."""

import itertools
from pathlib import Path

import pytest

from tests.architecture import BANNED, LAYER_OF, LAYERS, python_files, violations

REPOSITORY = Path(__file__).parents[1]


def test_the_repository_keeps_the_rules():
    assert violations(REPOSITORY) == []


def test_every_folder_is_checked():
    """A rule that checks nothing is always kept."""
    paths = {source.path.parts[:2] for source in python_files(REPOSITORY)}
    assert {("run.py",), ("tests", "merge"), *(("patientdx", folder) for folder in LAYER_OF)} <= paths


DOC = '"""What it is."""\n'
LONG = "    x = 1\n" * 60
BAD = [  # file below patientdx/, its text, part of the message
    ("checkpoints/a", "from patientdx.tasks import b", "line 2: imports patientdx.tasks.b, which is up: from layer 2"),
    (
        "checkpoints/a",
        "def _f():\n    import patientdx.evaluation.config",
        "imports patientdx.evaluation.config, which",
    ),
    ("checkpoints/a", "if TYPE_CHECKING:\n    from ..tasks import b", "imports patientdx.tasks.b, which is up"),
    ("core/a", "import patientdx.merge.slerp", "which is up: from layer 0 to 1"),
    ("evaluation/a", "import patientdx.cli.sweep", "which is up: from layer 4 to 6"),
    ("records/a", "from patientdx.lm import b", "across: records does not import lm"),
    ("merge/a", "from patientdx.core.errors import UserError", "across: merge does not import core"),
    ("merge/a", "import pandas as pd", "imports pandas; merge imports torch, numpy and scipy only"),
    ("core/a", "import experiments.all", "the package imports nothing of it"),
    ("__init__", "from patientdx.merge import slerp", "which is up: from layer -1"),
    ("lm/a", "import hydra.utils", "imports hydra.utils, which belongs in run.py, patientdx/api.py"),
    ("reporting/a", "import matplotlib.pyplot", "belongs in no file of the package"),
    ("tracking/a", "import wandb", "imports wandb at the top; import it inside"),
    ("tracking/a", "if True:\n    from wandb import init", "imports wandb.init at the top; import it inside"),
    ("loose", "x = 1", "is loose in patientdx/"),
    ("novelty/a", "x = 1", "novelty has no layer"),
    ("merge/utils", "x = 1", "utils says nothing as a name"),
    ("merge/a", "def slerp():\n    pass", "slerp has no docstring"),
    ("merge/a", f"class A:\n    {DOC}\n    def f(self):\n        pass", "f has no docstring"),
    ("merge/a", "class A:\n    x = 1", "A has no docstring"),
    ("merge/a", f"def f():\n    {DOC}{LONG}", "f has 62 lines, more than 60"),
    ("merge/a", "x = 1\n" * 350, "351 lines, more than 350"),
    ("merge/seen", "x = 1", "the module is called seen"),
    ("merge/a", "def _f(asked):\n    pass", "a name is asked"),
    ("merge/a", "def _f(*, one=1):\n    pass", "a name is one"),
    ("merge/a", "def _told():\n    pass", "a name is _told"),
    ("merge/a", "found = 1", "a name is found"),
    ("merge/a", "x = [own for own in ()]", "a name is own"),
    ("merge/a", "x = lambda said: 1", "a name is said"),
    ("merge/a", "try:\n    pass\nexcept OSError as given:\n    pass", "a name is given"),
    ("merge/a", "import math as whole", "a name is whole"),
    ("merge/a", "class _A:\n    def f(self):\n        self.place = 1", "a name is place"),
    ("merge/a", "class _A:\n    shares: int = 1", "a name is shares"),
    ("merge/a", "class _Clock:\n    pass", "a name is _Clock"),
]


def write(root: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(DOC + text)


@pytest.mark.parametrize(("file", "text", "message"), BAD)
def test_a_broken_rule_is_reported(tmp_path, file, text, message):
    write(tmp_path, {f"patientdx/{file}.py": text})
    broken = violations(tmp_path)
    assert any(item.file == f"patientdx/{file}.py" and message in item.message for item in broken), broken


def test_a_cycle_of_files_is_reported_however_it_is_imported(tmp_path):
    write(
        tmp_path,
        {
            "patientdx/merge/a.py": "def _f():\n    from patientdx.merge.b import x",
            "patientdx/merge/b.py": "if TYPE_CHECKING:\n    from .c import x",
            "patientdx/merge/c/__init__.py": "from patientdx.merge import a",
            "patientdx/merge/d.py": "from patientdx.merge import a",
        },
    )
    (broken,) = violations(tmp_path)
    files = "patientdx/merge/a.py, patientdx/merge/b.py, patientdx/merge/c/__init__.py"
    assert broken == ("cycle", "patientdx/merge/a.py", f"a cycle of imports: {files}")


def test_a_chain_of_more_than_seven_folders_is_reported(tmp_path):
    chain = ["core", "merge", "metrics", "lm", "tasks", "evaluation", "reporting", "cli"]
    files = {f"patientdx/{b}/a.py": f"import patientdx.{a}.a" for a, b in itertools.pairwise(chain)}
    write(tmp_path, files | {"patientdx/core/a.py": "x = 1"})
    broken = violations(tmp_path)
    assert ("chain", "", "a chain of 8 folders, more than 7") in broken
    assert len(LAYERS) == 7


def test_length_and_empty_names_count_everywhere(tmp_path):
    write(tmp_path, dict.fromkeys(("tests/common/test_a.py", "experiments/a.py", "run.py"), f"def it():\n{LONG}"))
    long = "it has 61 lines, more than 60"
    assert violations(tmp_path) == [
        ("length", "experiments/a.py", long),
        ("length", "run.py", long),
        ("docstring", "run.py", "it has no docstring"),
        ("length", "tests/common/test_a.py", long),
        ("name", "tests/common/test_a.py", "common says nothing as a name"),
    ]


def test_a_module_without_docstring_is_reported(tmp_path):
    (tmp_path / "patientdx" / "merge").mkdir(parents=True)
    (tmp_path / "patientdx" / "merge" / "a.py").write_text("x = 1\n")
    assert violations(tmp_path) == [("docstring", "patientdx/merge/a.py", "the module has no docstring")]


def test_a_good_tree_has_no_violation(tmp_path):
    words = "\n".join(f"    {word} = 1" for word in sorted(BANNED))
    files = {
        "run.py": "import hydra\nfrom patientdx.cli.run import run\n",
        "patientdx/__init__.py": "__version__ = '1'",
        "patientdx/api.py": "from patientdx.cli import run\nimport patientdx.evaluation.runner",
        "patientdx/cli/run.py": "import patientdx.reporting.terminal, patientdx.evaluation.runner",
        "patientdx/merge/slerp.py": "import math\nimport torch\nfrom patientdx.merge import curve\nfrom . import curve",
        "patientdx/merge/curve.py": "import numpy\nx = {'found': 1}['found']\nx.asked(told=1).wanted",
        "patientdx/tasks/mortality.py": "import duckdb\nfrom patientdx import __version__\nimport patientdx.core",
        "patientdx/core/errors.py": "record = recording = found_models = 1",
        "patientdx/reporting/terminal.py": "import rich, altair",
        "patientdx/evaluation/runner.py": "import patientdx.tasks.mortality, patientdx.merge.slerp",
        "patientdx/tracking/wandb_run.py": f"def track():\n    {DOC}    import wandb\n\n    def f():\n        pass\n",
        "experiments/a.py": "import torch, patientdx.cli.run\n\n\ndef f(asked):\n    pass\n",
        "tests/merge/test_a.py": f"def test_it():\n{words}\n",
    }
    write(tmp_path, files)
    assert violations(tmp_path) == []
