"""Where a task's tables come from: MIMIC-IV's own files, a MEDS folder, or the synthetic hospital."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from patientdx.core.cache import draw_secret
from patientdx.core.checksums import file_hash, sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.records import tables
from patientdx.records.convert import CONVERT_FROM, converted
from patientdx.records.meds.folder import MedsFolder, meds_folder
from patientdx.records.meds.tables import meds_tables
from patientdx.records.parameters import check_choice
from patientdx.records.synthetic.hospital import hospital

_log = logging.getLogger(__name__)

SOURCES = ("mimic", "meds")
SYNTHETIC = MappingProxyType({"stays": 300, "seed": 0})
_UNIQUE = {
    "hosp/patients": "subject_id", "hosp/admissions": "hadm_id", "icu/icustays": "stay_id", "icu/d_items": "itemid",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The keys of every task that reads a hospital, as conf/task/_clinical.yaml explains them.

    Attributes:
        cache: folder for converted tables and the synthetic hospital.
        source: "mimic": `mimic_root` is a folder with hosp/ and icu/ in MIMIC-IV's layout, or a list of folders, of
            which the first that has a table is used; None: the synthetic hospital, generated in `cache` on first use.
            "meds": the first root is a MEDS 0.4 folder made from MIMIC-IV; further ones may have the dictionaries that
            MEDS lacks.
        synthetic: `stays`, `seed`, `returns` and `case_mix` of the synthetic hospital.
        memory_limit, threads: limits of DuckDB; threads=None uses all cores.
    """

    cache: Path
    source: str = "mimic"
    mimic_root: Sequence[str] | str | None = None
    synthetic: Mapping[str, float | str | None] = field(default_factory=lambda: dict(SYNTHETIC))
    memory_limit: str = "2GB"
    threads: int | None = None


@dataclass(frozen=True)
class Source:
    """Opened tables.

    Attributes:
        con: has one view per needed table, named like its file (icu/chartevents -> chartevents), with the needed
            columns and types.
        files: for each of the user's files: name below its root, sha256 and origin (see `tables.provenance`; a MEDS
            folder is one entry, "meds").
        data_sources: the origins that occur, sorted.
        open_data: every file is generated or of the open demo.
        absent: optional tables and columns that the source lacks (see `tables.absent`).
        splits: train, pilot or test of each patient, where a MEDS folder says it.
        secret: keys the order of stays; empty for open data, whose order is the same everywhere.
    """

    con: duckdb.DuckDBPyConnection
    files: dict[str, dict[str, Any]]
    data_sources: list[str]
    open_data: bool
    absent: list[str]
    splits: Mapping[int, str] | None = None
    secret: bytes = b""


@contextmanager
def opened_source(
    config: SourceConfig, needed: tables.Needed, items: Mapping[str, Collection[int]] | None = None
) -> Iterator[Source]:
    """The needed tables as views of a DuckDB connection; queries belong inside the block.

    Large tables are read from parquet in the cache, made on first use (see `convert`; from MEDS all are). `items` names
    for a table the only itemids that the block reads: rows of others may be absent. Raises UserError on anything wrong
    with parameters, files or memory. DuckDB's errors inside the block become UserError without DuckDB's message, which
    may quote a patient's row.
    """
    cache = expanded(config.cache)
    check_choice("source", config.source, SOURCES)
    roots = _roots(config.mimic_root)
    limits = {"memory_limit": config.memory_limit, "threads": config.threads}
    splits = None
    if config.source == "meds":
        if not roots:
            raise UserError("task.source=meds needs task.mimic_root: the MEDS folder, with data/ and metadata/ in it.")
        folder = meds_folder(roots[0])
        located, files = _from_meds(folder, roots[1:], needed, cache, limits)
        splits = folder.splits
    else:
        folders = roots or [_synthetic(cache, config.synthetic)]
        located = tables.find(folders, needed)
        files = tables.provenance(located, lambda path: _digest(path, cache))
        if not roots and {file["origin"] for file in files.values()} != {tables.SYNTHETIC}:
            raise UserError(
                f"The synthetic hospital in {folders[0]} was changed since it was made. Delete that folder."
            )
        located = converted(located, needed, files, cache=cache, items=items, **limits)
    absent = tables.absent(located, needed)
    if absent and roots:  # the synthetic hospital is known to be smaller
        _log.info("the source has no %s: what is read of them is missing from every record", ", ".join(absent))
    with tables.opened(located, needed, spill=cache / "spill", **limits) as con:
        _check_keys(con, needed)
        if "meds" in files and "label" in needed.get("icu/d_items", ()) and "icu/d_items" not in files:
            unnamed = con.execute("SELECT count(*) FROM d_items WHERE label IS NULL").fetchall()[0][0]
            files["meds"]["items_without_label"] = unnamed
        if "meds" in files:
            _say_unplaced(con, needed)
        data_sources = sorted({file["origin"] for file in files.values()})
        open_data = tables.is_open(files)
        secret = draw_secret(cache, open_data=open_data)
        yield Source(con, files, data_sources, open_data, absent, splits, secret)


def _roots(root: Sequence[str] | str | None) -> list[Path]:
    if root is None:
        return []
    roots = [root] if isinstance(root, str | Path) else list(root)
    if not roots:
        raise UserError("task.mimic_root=[]: name at least one folder, or null for the synthetic hospital.")
    return [expanded(folder) for folder in roots]


def _synthetic(cache: Path, config: Mapping[str, Any]) -> Path:
    known = (*SYNTHETIC, "returns", "case_mix")
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise UserError(f"task.synthetic has no {', '.join(unknown)}: it takes {', '.join(known)}.")
    parameters: dict[str, Any] = dict(SYNTHETIC) | dict(config)
    return hospital(cache, **parameters)


def _digest(path: Path, cache: Path) -> str:
    """sha256 (hex) of a file; that of a large file is kept in the cache until the file changes."""
    return sha256(path) if path.stat().st_size < CONVERT_FROM else file_hash(path, cache)


def _from_meds(
    folder: MedsFolder, further: list[Path], needed: tables.Needed, cache: Path, limits: Mapping[str, Any]
) -> tuple[dict[str, tables.Table], dict[str, dict[str, Any]]]:
    files = {"meds": folder.provenance(lambda path: _digest(path, cache))}
    dictionaries = {name: tables.locate(further, name) for name in needed if Path(name).name.startswith("d_")}
    beside = {name: needed[name] for name, table in dictionaries.items() if table is not None}
    located = tables.find(further, beside) if beside else {}
    files |= tables.provenance(located)
    rest = {name: columns for name, columns in needed.items() if name not in located}
    return located | meds_tables(folder, files["meds"]["sha256"], rest, cache=cache, **limits), files


def _say_unplaced(con: duckdb.DuckDBPyConnection, needed: tables.Needed) -> None:
    """Log how many readings of a MEDS folder belong to no ICU stay, and so to no example."""
    for name in (name for name, columns in needed.items() if "stay_id" in columns and name != "icu/icustays"):
        table = Path(name).name
        rows, placed = con.execute(f"SELECT count(*), count(stay_id) FROM {table}").fetchall()[0]
        if rows > placed:
            _log.info("%d of %d rows of %s are in no ICU stay and are left out", rows - placed, rows, table)


def _check_keys(con: duckdb.DuckDBPyConnection, needed: tables.Needed) -> None:
    """Raises UserError where a row of patients, admissions, stays or items has no id, or one that occurs before."""
    for name, key in _UNIQUE.items():
        if key not in needed.get(name, ()):
            continue
        table = Path(name).name
        counts = f"count(*) - count({key}), count({key}) - count(DISTINCT {key})"
        without, again = con.execute(f"SELECT {counts} FROM {table}").fetchall()[0]
        if without:
            raise UserError(f"Table {table} has {without} rows without {key}; each must have one.")
        if again:
            raise UserError(f"Table {table} has {again} rows whose {key} occurs before; each must occur once.")
