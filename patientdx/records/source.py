"""Where a task's tables come from: MIMIC-IV's own files, a MEDS folder, or the synthetic hospital."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from patientdx.core.checksums import file_hash, sha256
from patientdx.core.errors import UserError
from patientdx.records import tables
from patientdx.records.convert import CONVERT_FROM, converted
from patientdx.records.meds.folder import meds_folder
from patientdx.records.meds.tables import meds_tables
from patientdx.records.synthetic.hospital import hospital

SOURCES = ("mimic", "meds")
SYNTHETIC = MappingProxyType({"stays": 240, "seed": 0})
_UNIQUE = {
    "hosp/patients": "subject_id", "hosp/admissions": "hadm_id", "icu/icustays": "stay_id", "icu/d_items": "itemid",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Opened tables.

    `con` has one view per needed table, named like its file (icu/chartevents -> chartevents), with the needed columns
    and types. `facts` says for each of the user's files its name below its root, its sha256 and its origin (see
    `tables.provenance`; a MEDS folder is one entry, "meds"). `origins` lists the origins that occur. `open_data`: every
    file is generated or of the open demo.
    """

    con: duckdb.DuckDBPyConnection
    facts: dict[str, dict[str, Any]]
    origins: list[str]
    open_data: bool


@contextmanager
def opened_source(
    *,
    cache: Path,
    source: str = "mimic",
    root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    needed: tables.Needed,
    memory_limit: str = "2GB",
    threads: int | None = None,
) -> Iterator[Source]:
    """The needed tables as views of a DuckDB connection; queries belong inside the block.

    `source="mimic"`: `root` is a folder with hosp/ and icu/ in MIMIC-IV's layout, or several of which the first that
    has a table wins; None takes the synthetic hospital, generated in `cache` on first use. `source="meds"`: the first
    root is a MEDS 0.4 folder made from MIMIC-IV; further ones may have the dictionaries that MEDS lacks.

    Large tables are read from parquet in `cache`, made on first use (see `convert`; from MEDS all are). Raises UserError
    on anything wrong with parameters, files or memory; DuckDB's errors inside the block become Refusals without
    DuckDB's words, which may quote a patient's row.
    """
    cache = Path(cache).expanduser()
    if source not in SOURCES:
        raise UserError(f"task.source={source!r}: choose {' or '.join(SOURCES)}.")
    limits = {"memory_limit": memory_limit, "threads": threads}
    roots = _roots(root)
    if source == "meds":
        if not roots:
            raise UserError("task.source=meds needs task.mimic_root: the MEDS folder, with data/ and metadata/ in it.")
        found, facts = _from_meds(roots, needed, cache, limits)
    else:
        folders = roots or [_synthetic(cache, synthetic)]
        found = tables.find(folders, needed)
        facts = tables.provenance(found, lambda path: _digest(path, cache))
        if not roots and {fact["origin"] for fact in facts.values()} != {tables.SYNTHETIC}:
            raise UserError(
                f"The synthetic hospital in {folders[0]} was changed since it was made. Delete that folder."
            )
        found = converted(found, needed, facts, cache=cache, **limits)
    with tables.opened(found, needed, spill=cache / "spill", **limits) as con:
        _check_keys(con, needed)
        if "meds" in facts and "label" in needed.get("icu/d_items", ()) and "icu/d_items" not in facts:
            unnamed = con.execute("SELECT count(*) FROM d_items WHERE label IS NULL").fetchall()[0][0]
            facts["meds"]["items_without_label"] = unnamed
        origins = sorted({fact["origin"] for fact in facts.values()})
        yield Source(con, facts, origins, tables.is_open(facts))


def _roots(root: Sequence[str] | str | None) -> list[Path]:
    if root is None:
        return []
    roots = [root] if isinstance(root, str | Path) else list(root)
    if not roots:
        raise UserError("task.mimic_root=[]: name at least one folder, or null for the synthetic hospital.")
    return [Path(folder).expanduser() for folder in roots]


def _synthetic(cache: Path, wanted: Mapping[str, float | None]) -> Path:
    known = (*SYNTHETIC, "returns")
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UserError(f"task.synthetic has no {', '.join(unknown)}: it takes {', '.join(known)}.")
    return hospital(cache, **(dict(SYNTHETIC) | dict(wanted)))


def _digest(path: Path, cache: Path) -> str:
    """sha256 (hex) of a file; that of a large one is worked out once and remembered until the file changes."""
    return sha256(path) if path.stat().st_size < CONVERT_FROM else file_hash(path, cache)


def _from_meds(
    roots: list[Path], needed: tables.Needed, cache: Path, limits: Mapping[str, Any]
) -> tuple[dict[str, tables.Table], dict[str, dict[str, Any]]]:
    folder = meds_folder(roots[0])
    facts = {"meds": folder.facts(lambda path: _digest(path, cache))}
    dictionaries = {name: tables.locate(roots[1:], name) for name in needed if Path(name).name.startswith("d_")}
    own = {name: needed[name] for name, table in dictionaries.items() if table is not None}
    found = tables.find(roots[1:], own) if own else {}
    facts |= tables.provenance(found)
    rest = {name: columns for name, columns in needed.items() if name not in found}
    return found | meds_tables(folder, facts["meds"]["sha256"], rest, cache=cache, **limits), facts


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
