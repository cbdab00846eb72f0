"""MIMIC-IV's tables in one or several roots: located, checked, hashed, opened."""

import csv
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.core.regular_files import is_regular
from patientdx.core.tables import repeated
from patientdx.records.connection import connected
from patientdx.records.synthetic.hospital import MANIFEST

FORMS = ("parquet", "csv.gz", "csv")
SYNTHETIC, DEMO, REBUILT, CREDENTIALED = (
    "synthetic hospital",
    "open demo",
    "open demo, rebuilt",
    "credentialed",
)
_DEMO_BYTES = 16_000_000  # no csv.gz of the demo is larger, so larger ones need not be unpacked to know
_CHUNK = 1 << 20
Needed = Mapping[str, Mapping[str, str]]
# What a hospital may lack: such a table is read as empty, such a column as NULL, and the source says so.
OPTIONAL_TABLES = frozenset(("hosp/labevents", "hosp/services"))
OPTIONAL_COLUMNS: Needed = {
    "hosp/admissions": dict.fromkeys(("admission_location", "discharge_location"), "VARCHAR"),
    "hosp/labevents": {"storetime": "TIMESTAMP", "hadm_id": "BIGINT"},
    "icu/chartevents": {"value": "VARCHAR"},
    "icu/icustays": {"first_careunit": "VARCHAR"},
    "icu/inputevents": {
        "rate": "DOUBLE", "rateuom": "VARCHAR", "amountuom": "VARCHAR", "patientweight": "DOUBLE",
    },
    "icu/outputevents": {"valueuom": "VARCHAR", "storetime": "TIMESTAMP"},
    "icu/procedureevents": {"endtime": "TIMESTAMP"},
}  # fmt: skip

# An order with this value of statusdescription was replaced by another and never given (mimic-code, issue 47).
REWRITTEN = "Rewritten"


@dataclass(frozen=True)
class Table:
    """One table's file: `name` such as icu/chartevents, `root` its folder, `form` its ending."""

    name: str
    root: Path
    form: str

    @property
    def file(self) -> str:
        """Name relative to the root, the only one that goes into results."""
        return f"{self.name}.{self.form}"

    @property
    def path(self) -> Path:
        """Where the file is on this machine; never written into results."""
        return self.root / self.file


def find(roots: Sequence[str | os.PathLike], needed: Needed) -> dict[str, Table]:
    """The file of each needed table, from the first root that has it.

    `needed` maps a table to its columns and their DuckDB types. A table of OPTIONAL_TABLES may be missing, and is then
    absent from what is returned; so may columns of OPTIONAL_COLUMNS. Raises UserError listing every other missing root,
    table and column at once, or the first file that cannot be read.
    """
    folders = [expanded(root) for root in roots]
    errors = [f"no folder {folder}" for folder in folders if not folder.is_dir()]
    located: dict[str, Table] = {}
    for name, columns in needed.items():
        table = locate(folders, name)
        if table is None:
            errors += [] if name in OPTIONAL_TABLES else [f"no table {name}"]
            continue
        optional, present = OPTIONAL_COLUMNS.get(name, {}), set(_columns(table))
        errors += [f"no column {column} in {name}" for column in columns if column not in {*present, *optional}]
        located[name] = table
    if errors:
        raise UserError(
            f"MIMIC-IV tables are incomplete: {', '.join(errors)}. "
            f"Looked for <table>.{{{','.join(FORMS)}}} in {', '.join(map(str, folders))}. "
            "Add a root that has them to task.mimic_root, or set task.mimic_root=null for "
            "the synthetic hospital."
        )
    return located


def locate(folders: Sequence[Path], name: str) -> Table | None:
    """The first file of a table; None where no folder has it. Raises UserError for a folder without permission."""
    for folder in folders:
        for form in FORMS:
            table = Table(name, folder, form)
            try:
                table.path.stat()
            except PermissionError as error:
                raise _unreadable(table, error) from error
            except OSError:
                continue
            if is_regular(table.path):
                return table
    return None


def present(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Those of the needed `columns`, with their types, that the file has."""
    names = set(_columns(table))
    return {name: kind for name, kind in columns.items() if name in names}


def absent(located: Mapping[str, Table], needed: Needed) -> list[str]:
    """The optional tables and columns that are needed and missing, as `table` or `table.column`."""
    missing = [name for name in needed if name not in located]
    for name, table in located.items():
        there = present(table, needed[name])
        missing += [f"{name}.{column}" for column in needed[name] if column not in there]
    return missing


def _columns(table: Table) -> list[str]:
    """Names in the header. A csv whose last line has no end was cut, though DuckDB might read that line."""
    try:
        if table.form == "csv":
            with open(table.path, "rb") as stream:
                stream.seek(-min(table.path.stat().st_size, 1), os.SEEK_END)
                if stream.read() not in (b"", b"\n"):
                    raise EOFError
        if table.form == "parquet":
            names = pyarrow.parquet.read_schema(table.path).names
        else:
            opened = gzip.open if table.form == "csv.gz" else open
            with opened(table.path, "rt", encoding="utf-8-sig", newline="") as stream:
                names = next(csv.reader(stream), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise _unreadable(table, error) from error
    if again := repeated([name.casefold() for name in names]):  # DuckDB does not tell their case apart
        line = "" if table.form == "parquet" else " in its line 1"
        raise UserError(
            f"Table {table.name} in {table.path} names the column {again[0]} more than once{line}: which of them holds "
            "the values is unknown. Leave one."
        )
    return names


def _unreadable(table: Table, error: Exception) -> UserError:
    """A UserError that names the file and the kind of damage; never a value of the table."""
    text = str(error)
    if isinstance(error, EOFError) and table.form == "csv":
        reason = "its last line has no end, so it was cut; fetch it again, or end that line if it is whole"
    elif isinstance(error, EOFError) or "Unexpected end of GZIP stream" in text:
        reason = "the gzip file ends in the middle; fetch it again"
    elif isinstance(error, PermissionError) or "Permission denied" in text:
        reason = "no permission to read it"
    else:
        reason = f"it is no intact {table.form} file ({type(error).__name__})"
    return UserError(f"Table {table.name} cannot be read from {table.path}: {reason}.")


def _content_sha256(table: Table) -> str | None:
    """sha256 of the unpacked csv, or None where the file is no csv, too large for the demo, or damaged."""
    if table.form == "parquet" or table.path.stat().st_size > _DEMO_BYTES:
        return None
    digest, size = hashlib.sha256(), 0
    opened = gzip.open if table.form == "csv.gz" else open
    try:
        with opened(table.path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if size > 8 * _DEMO_BYTES:
                    return None
    except (OSError, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def provenance(located: Mapping[str, Table], digest_of: Callable[[Path], str] = sha256) -> dict[str, dict[str, str]]:
    """For each table: file name relative to its root, sha256 of the file (as `digest_of` gives it), and origin.

    The origin is "synthetic hospital" where the root's manifest lists this very hash, "open demo" (or "open
    demo, rebuilt") where the bytes are those of the public 100-patient demo, and "credentialed" for
    everything else.
    """
    manifests, files, demo = {}, {}, open_demo()
    for name, table in located.items():
        try:
            digest = digest_of(table.path)
        except OSError as error:
            raise _unreadable(table, error) from error
        if table.root not in manifests:
            manifests[table.root] = _manifest(table.root)
        origin = CREDENTIALED
        if manifests[table.root].get(table.file) == digest:
            origin = SYNTHETIC
        elif table.form != "parquet":
            known = demo.get(name, {})
            origin = known.get(digest) or known.get(_content_sha256(table) or "") or CREDENTIALED
        files[name] = {"file": table.file, "sha256": digest, "origin": origin}
    return files


def open_demo() -> dict[str, dict[str, str]]:
    """For each table of the public demo (and for "meds"): sha256 of known files or unpacked csv, and their origin."""
    return json.loads((resources.files("patientdx.records") / "open_demo.json").read_text(encoding="utf-8"))


def _manifest(root: Path) -> dict[str, str]:
    is_regular(root / MANIFEST)
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        return dict(manifest["sha256"]) if manifest["synthetic"] is True else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_open(files: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether every table is generated or of the open demo. `files` as from `provenance`."""
    return all(file["origin"] != CREDENTIALED for file in files.values())


@contextmanager
def opened(
    located: Mapping[str, Table], needed: Needed, *, memory_limit: str, threads: int | None, spill: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with one view per needed table, named like its file (icu/chartevents -> chartevents).

    A view has the needed columns only, cast to the needed types; a table that is not located is empty, a column that
    its file lacks is NULL. What does not fit in `memory_limit` (such as
    "2GB") goes to a folder inside `spill` that is gone afterwards. Errors of DuckDB inside the block that
    concern a table's file come out as UserError, without DuckDB's own words, which may quote a patient's row.
    """
    with connected(memory_limit=memory_limit, threads=threads, spill=spill) as con:
        try:
            for name, columns in needed.items():
                con.execute(_view(located[name], columns) if name in located else _empty(name, columns))
            yield con
        except duckdb.Error as error:
            user_error = _explained(error, con, located, needed)
            if user_error is None:
                raise
            raise user_error from None


def _explained(
    error: duckdb.Error, con: duckdb.DuckDBPyConnection, located: Mapping[str, Table], needed: Needed
) -> UserError | None:
    """What is wrong with a table's file, if that is what the error is about."""
    if isinstance(error, duckdb.ConversionException):
        errors = []
        for name, table in located.items():
            try:
                errors.append(_mistyped(con, table, needed[name]))
            except duckdb.Error as damage:  # a table that is broken besides: its error may quote a row too
                return _unreadable(table, damage)
        return UserError(f"MIMIC-IV tables: {', '.join(filter(None, errors)) or 'a value has another type'}.")
    if type(error) is duckdb.Error or "gzip stream" in str(error):  # damage, of which DuckDB does not say where
        return _damage(con, located, needed)
    table = next((table for table in located.values() if str(table.path) in str(error)), None)
    return None if table is None else _unreadable(table, error)


def _damage(con: duckdb.DuckDBPyConnection, located: Mapping[str, Table], needed: Needed) -> UserError | None:
    """Read all that is needed of every table to find the one that is damaged."""
    for name, table in located.items():
        columns = ", ".join(f'bit_xor(hash("{column}"))' for column in present(table, needed[name]))
        try:
            con.execute(f"SELECT {columns} FROM {_source(table)}").fetchall()
        except duckdb.Error as error:
            return _unreadable(table, error)
    return None


def _mistyped(con: duckdb.DuckDBPyConnection, table: Table, columns: Mapping[str, str]) -> str:
    """How many values of each column cannot be cast; counts only, as the values are a patient's."""
    typed = {column: kind for column, kind in present(table, columns).items() if kind != "VARCHAR"}
    counts = ", ".join(f'count("{c}") - count(TRY_CAST("{c}" AS {kind}))' for c, kind in typed.items())
    row = con.execute(f"SELECT {counts} FROM {_source(table)}").fetchall()[0]
    return ", ".join(
        f"{count} values of {column} in {table.file} are no {'time' if kind == 'TIMESTAMP' else 'number'}"
        for (column, kind), count in zip(typed.items(), row, strict=True)
        if count
    )


def _source(table: Table) -> str:
    path = str(table.path).replace("'", "''")
    if table.form == "parquet":
        return f"read_parquet('{path}')"
    # No sniffing: what the first rows suggest could change with them. All text, cast later.
    names = (name.replace('"', '""').replace("'", "''") for name in _columns(table))
    columns = ", ".join(f"\"{name}\": 'VARCHAR'" for name in names)
    dialect = """header=true, auto_detect=false, delim=',', quote='"', escape='"', nullstr=''"""
    return f"read_csv('{path}', {dialect}, columns={{{columns}}})"


def _view(table: Table, columns: Mapping[str, str]) -> str:
    return f"CREATE VIEW {Path(table.name).name} AS {selection(table, columns, _source(table))}"


def selection(table: Table, columns: Mapping[str, str], source: str) -> str:
    """The query of the needed `columns`, typed, from `source`, which has the columns of the table's file."""
    stored = set(_columns(table))
    there = {name: f'"{name}"' for name in columns if name in stored}
    chosen = ", ".join(f'CAST({there.get(name, "NULL")} AS {kind}) AS "{name}"' for name, kind in columns.items())
    rows = f"WHERE statusdescription IS DISTINCT FROM '{REWRITTEN}'" if "statusdescription" in stored else ""
    return f"SELECT {chosen} FROM {source} {rows}"


def _empty(name: str, columns: Mapping[str, str]) -> str:
    chosen = ", ".join(f'CAST(NULL AS {kind}) AS "{column}"' for column, kind in columns.items())
    return f"CREATE VIEW {Path(name).name} AS SELECT {chosen} LIMIT 0"
