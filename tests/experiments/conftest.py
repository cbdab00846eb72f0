"""A terminal in which no line of a table breaks, and the script of a study as a user runs it."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no line of a table breaks."""
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture
def ask(capsys):
    """``ask(script, folder, *more)``: exit code, stdout and stderr of the script of a study that reads `folder`."""

    def ask(script, folder: Path, *more: str) -> tuple[int, str, str]:
        code = script.main(["--output", str(folder.parent), "--name", folder.name, *more])
        return code, *capsys.readouterr()

    return ask
