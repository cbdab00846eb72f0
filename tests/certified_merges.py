"""A merged folder and the run that scored it, for the tests of certificates."""

import shutil
from pathlib import Path

import pytest
from command_line import settings
from in_process import run, session

from patientdx.cli.save import save


@pytest.fixture(scope="session")
def scored_merge(tiny_base, tiny_pivot, tmp_path_factory) -> tuple[Path, Path]:
    """A merged folder and the result folder of the run that scored it, on pilot and test; copy them to change them."""
    place = tmp_path_factory.mktemp("scored")
    config = settings(tiny_base, tiny_pivot, place / "outputs", f"save={place / 'merged'}", "lambda=0.4")
    save(session(), config)
    return place / "merged", run(config).folder


@pytest.fixture
def folder(scored_merge, tmp_path) -> Path:
    """A copy of the merged folder."""
    return shutil.copytree(scored_merge[0], tmp_path / "merged")


@pytest.fixture
def scored(scored_merge, tmp_path) -> Path:
    """A copy of the result folder, alone in its study."""
    return shutil.copytree(scored_merge[1], tmp_path / "outputs" / "default" / scored_merge[1].name)
