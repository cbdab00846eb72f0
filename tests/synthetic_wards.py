"""A small synthetic hospital, as parquet to read and as csv.gz to spoil."""

import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tasks_by_yaml import load

from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.example import TaskData

SIXTY_STAYS = {"stays": 60, "seed": 0}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder that the tests of tasks share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def load_synthetic(session_cache: Path) -> Callable[..., TaskData]:
    """``load_synthetic(name, **keys)``: a task on the synthetic hospital of the tests of runs, read in one thread."""
    return partial(load, cache=session_cache, synthetic=SIXTY_STAYS, threads=1)


@pytest.fixture(scope="session")
def ward(store: Path) -> Path:
    """Root of a synthetic hospital of about 150 eligible stays; read it, do not change it."""
    return hospital(store, stays=150, seed=3)


@pytest.fixture(scope="session")
def ward_csv(store: Path) -> Path:
    """The same patients as csv.gz."""
    return hospital(store, stays=150, seed=3, form="csv.gz")


@pytest.fixture
def spoil(ward_csv: Path, tmp_path: Path) -> Callable[..., Path]:
    """`spoil("icu/chartevents", bytes -> bytes)` copies the csv.gz hospital with one table's text changed."""

    def copied(table: str, change: Callable[[bytes], bytes]) -> Path:
        root = tmp_path / "mimic"
        if not root.exists():
            shutil.copytree(ward_csv, root)
        path = root / f"{table}.csv.gz"
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), 1))
        return root

    return copied
