"""How run.py ends where a request, the disk, the terminal or the user is the cause: one message, no frames."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from command_line import ROOT, environment, forked, launch, small, without_task

from patientdx.cli import ending
from patientdx.cli.__main__ import OTHERS
from patientdx.cli.__main__ import main as console_main
from patientdx.cli.compose import configuration
from patientdx.cli.user_errors import user_error
from patientdx.core import paths
from patientdx.core.errors import UserError

NOT_PLAIN = [
    "../../x",
    "/abs",
    "''",
    "null",
    "scores",
    "trackio",
    ".",
    "..",
    ".x",
    "'a\\b'",
    "' a'",
    "n" * 161,
    "3",
    "[x]",
]
FRAMES = ("Traceback", "hydra/_internal", 'File "')


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_name_is_plain(name):
    with pytest.raises(UserError) as error:
        configuration([f"name={name}"])
    assert "  name" in str(error.value)


@pytest.mark.parametrize(
    "word",
    ["task.name=a/b", "merge.name=../x", "base_model.name=..", "model.name=/x",
     "+task.metrics.a/b=patientdx.metrics.ranking.auroc",
     "output=''", "cache=''", "save=''", "data=' '", "output=1", "output='~nobody-here/x'", "base_model.source=''",
     "pivot_model.adapter=' '", "base_model.revision=''"],
)  # fmt: skip
def test_a_path_or_a_name_that_cannot_be_is_refused(word):
    with pytest.raises(
        UserError, match=re.escape(word.lstrip("+").partition("=")[0].removesuffix(".a/b").removesuffix(".name"))
    ):
        configuration([word])


def test_a_folder_of_parents_has_a_name():
    assert [model.name for model in configuration(["extra_models=[/x/third/..]"]).merge_config.extra] == ["x"]


def test_names_fit_on_the_disk():
    """A gradient over 80 layers, as a recipe of mergekit has it; another gradient has another name."""
    names = {paths.short_name("slerp_lambda=" + "-".join(f"0.{n + i:04d}" for i in range(80))) for n in (1, 2)}
    assert len(names) == 2
    assert max(len(name.encode()) for name in names) == paths.LONGEST_NAME
    assert paths.short_name("slerp_lambda=0.4") == "slerp_lambda=0.4"
    assert len(paths.short_name("λ" * 300).encode()) <= paths.LONGEST_NAME


@pytest.fixture(scope="module")
def refused(tmp_path_factory, tiny_base, tiny_pivot):
    """Commands that cannot be, by their last word."""
    folder = tmp_path_factory.mktemp("refused")
    words = ["task=3", "task=true", "lambda=[", "name='${nope}'", "~lambda", "output=''", "name=../x", "nope=1",
             "task=nix", "task.metrics=yes", "tracking.tags={a:1}", "task.fractions='1'",
             "base_model.source='../x'"]  # fmt: skip
    commands = [[*small(tiny_base, tiny_pivot), word] for word in words]
    ended = forked(folder, [*commands, ["-m", *commands[0], "lambda=0.1,0.2"]], models_may_load=False)
    assert list(folder.iterdir()) in ([], [folder / "outputs"])
    return {run.args[-1]: run for run in ended}


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("task=3", "task=3: task is chosen by a name: biomedical_questions, "),
        ("task=true", "task=true: task is chosen by a name"),
        ("lambda=0.1,0.2", "task=3: task is chosen by a name"),
        ("lambda=[", "no viable alternative at input '['"),
        ("name='${nope}'", "Interpolation key 'nope'"),
        ("~lambda", "lambda is missing"),
        ("output=''", "output=: '' is no path"),
        ("name=../x", "name=../x: a name has no / or"),
        ("nope=1", "Could not override 'nope'"),
        ("task=nix", "Could not find 'task/nix'"),
        ("task.metrics=yes", "task.metrics=yes: give a mapping"),
        ("tracking.tags={a:1}", "Error merging override tracking.tags={a:1}"),
        ("task.fractions='1'", "task.fractions must be"),
        ("base_model.source='../x'", "there is nothing at ../x"),
    ],
)
def test_what_cannot_be_is_one_message(refused, word, words):
    run = refused[word]
    assert run.returncode == 2, run.stderr
    assert words in run.stderr
    assert not any(frame in run.stderr for frame in FRAMES)


def test_a_home_is_expanded_where_results_and_hydras_files_go(tmp_path, tiny_base, tiny_pivot, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    words = [*small(tiny_base, tiny_pivot), "output='~/o'"]
    single, sweep = forked(tmp_path / "work", [[*words, "lambda=0.4"], ["-m", *words, "lambda=0.4,0.5", "name=s"]])
    assert (single.returncode, sweep.returncode) == (0, 0), single.stderr + sweep.stderr
    assert list((tmp_path / "work").iterdir()) == []
    assert (tmp_path / "home/o/s/sweep.csv").exists()
    assert sorted(path.name for path in (tmp_path / "home/o").iterdir()) == ["default", "s", "scores"]


def test_a_terminal_without_the_letters_gets_the_table(tmp_path, tiny_base, tiny_pivot, monkeypatch):
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    run = launch(tmp_path, *without_task(small(tiny_base, tiny_pivot)), "dry_run=true", "lambda=0.4")
    assert run.returncode == 0, run.stderr
    assert "slerp ?=0.4" in run.stdout
    assert run.stderr.count("lacks some characters, shown as ?: PYTHONUTF8=1") == 1


def test_an_interrupted_sweep_says_what_is_done_and_goes_on(tmp_path, tiny_base, tiny_pivot):
    command = [sys.executable, str(ROOT / "run.py"), "-m", *small(tiny_base, tiny_pivot), "lambda=range(0.02,0.9,0.02)"]
    # A shell that starts this test in the background has SIGINT ignored, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {"cwd": tmp_path, "env": environment(), "text": True, "preexec_fn": heard}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            while not list(tmp_path.glob("outputs/default/.sweeps/*/0.json")) and process.poll() is None:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGINT)
            shown, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1].startswith("stopped by Ctrl-C. What is finished is kept")
    assert "slerp λ=0.02" in shown
    assert "failed: stopped by Ctrl-C" in shown
    assert not any(frame in errors for frame in FRAMES)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_is_full_when_hydra_writes(tmp_path, tiny_base, tiny_pivot):
    (tmp_path / "outputs/default").mkdir(parents=True)
    (tmp_path / "outputs/default/multirun.yaml").symlink_to("/dev/full")
    (run,) = forked(tmp_path, [["-m", *small(tiny_base, tiny_pivot), "lambda=0.4,0.5"]], models_may_load=False)
    assert run.returncode == 2
    assert "cannot be written: No space left on device." in run.stderr
    assert not any(frame in run.stderr for frame in FRAMES)


QUOTED = " ".join(("of", "a", "record"))  # not in the source, which a trace shows


def raised(error):
    raise error


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (lambda: None, 0, []),
        (lambda: 3, 3, []),
        (lambda: raised(SystemExit(4)), 4, []),
        (lambda: raised(SystemExit("a word")), 1, ["a word"]),
        (lambda: raised(UserError("it cannot be")), 2, ["it cannot be"]),
        (lambda: raised(KeyError(QUOTED)), 1, ["KeyError", "tests/test_endings.py"]),
        (lambda: raised(KeyboardInterrupt), 130, ["stopped by Ctrl-C. What is finished is kept"]),
    ],
)
def test_a_command_ends_with_a_code_and_says_why(command, code, words, capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("PATIENTDX_FRAMES", "0")
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    assert ending.ended(command) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(word in printed.err for word in words)
    assert QUOTED not in printed.err  # what an unexpected error quotes is not shown
    assert bool(printed.err) == bool(words)


@pytest.mark.parametrize(
    "words",
    [[name] for name in ("merge", *OTHERS) if name != "compare"]  # which compares the default pair
    + [["labels", "--bogus"], ["predictions", "folder"], ["predictions", "folder", "result", "--bogus"]],
    ids=" ".join,
)
def test_a_command_that_lacks_a_word_says_so_and_ends_with_2(words, capsys):
    assert ending.ended(lambda: console_main(words)) == 2
    printed = capsys.readouterr()
    assert (printed.out, bool(printed.err)) == ("", True)


def test_an_error_of_the_disk_is_its_cause():
    error = OSError(28, "No space left on device", "/data/multirun.yaml")
    assert str(user_error(error)).startswith("/data/multirun.yaml cannot be written: No space left on device.")
    assert user_error(OSError(104, "Connection reset by peer")) is None
    assert user_error(KeyError("a")) is None


SLOW = {"duckdb", "pandas", "scipy", "sklearn", "torch", "transformers"}  # seconds, each


@pytest.mark.parametrize(
    ("word", "needed"), [("--help", set()), ("task.no_key=3", set()), ("lambda=7", {"duckdb", "torch"})]
)
def test_help_and_refusals_start_without_what_they_do_not_need(tmp_path, word, needed):
    code = "import sys; from patientdx.cli.entry import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, word]
    options = {"cwd": tmp_path, "env": environment() | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    imported = subprocess.run(command, check=True, **options).stderr.splitlines()[-1].split()
    assert set(imported) & SLOW == needed
    assert "patientdx.cli.entry" in imported
