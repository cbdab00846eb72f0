"""MIMIC-IV's tables from a MEDS folder that was made from MIMIC-IV, written to parquet in the cache.

Data that a MEDS folder lacks, and their replacement:

* stay_id and hadm_id, of patients whose events carry no icustay_id and hadm_id: stays and admissions are numbered by
  patient and time; an event belongs to the stay, and a stay to the admission, in whose time it falls.
* anchor_year: the year of the first admission; anchor_age is the age in that year, so ages in other years agree.
* deathtime and dod apart: MEDS_DEATH is the time of death in hospital, or the day (midnight) of a death whose hour
  MIMIC-IV does not know. With an hour it is the deathtime of the admission that it falls into, or that ended with
  DIED; its date is dod. A date alone is a death in hospital only where the admission ended with DIED.
* rows of inputevents and procedureevents: starts and ends are paired by patient, item, stay and order in time (and by
  order_id where the events carry it).
* race and insurance, where events carry neither columns nor codes for them: empty.
* seq_num: empty. Labels of items are taken from the bundled dictionary, then from metadata/codes.parquet, and item
  categories from the bundled dictionary only: for all of them add a root with icu/d_items. Titles of diagnoses are
  those of metadata/codes.parquet.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

from patientdx.core.errors import UserError
from patientdx.records.connection import connected
from patientdx.records.convert import kept, quoted, write_sorted
from patientdx.records.meds import queries
from patientdx.records.meds.folder import MedsFolder
from patientdx.records.tables import OPTIONAL_COLUMNS, OPTIONAL_TABLES, Needed, Table

_OURS = (  # errors that do not concern the files
    duckdb.OutOfMemoryException, duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException,
    duckdb.InternalException,
)  # fmt: skip
VERSION = 4  # raise it when a change makes other tables


def meds_tables(
    folder: MedsFolder, sha256: str, needed: Needed, *, cache: Path, memory_limit: str, threads: int | None
) -> dict[str, Table]:
    """The needed tables as parquet in `cache`, made from the events on first use, one after another.

    Always converted, because otherwise every query would pair and assign the events again. `sha256` is that of the
    folder. Raises UserError on tables and columns that MEDS lacks, on a folder without ICU stays, on damaged
    files, and where memory or disk are too small.
    """
    _check_needed(folder, needed)
    with ExitStack() as stack:

        @functools.cache
        def events() -> duckdb.DuckDBPyConnection:
            spill = cache / "spill"
            return stack.enter_context(_events(folder, memory_limit=memory_limit, threads=threads, spill=spill))

        def converted_table(name: str, columns: Mapping[str, str]) -> Table:
            def build(target: Path) -> None:
                chosen = ", ".join(f'CAST("{column}" AS {kind}) AS "{column}"' for column, kind in columns.items())
                query = f"SELECT {chosen} FROM ({queries.query(name)})"
                write_sorted(events(), query, columns, target / f"{name}.parquet")

            return kept(cache, name, ["meds", VERSION, sha256, dict(columns)], build)

        return {name: converted_table(name, _present(name, needed[name])) for name in needed if name in queries.COLUMNS}


def _present(name: str, columns: Mapping[str, str]) -> dict[str, str]:
    return {column: kind for column, kind in columns.items() if column in queries.COLUMNS[name]}


def _check_needed(folder: MedsFolder, needed: Needed) -> None:
    errors = [f"table {name}" for name in needed if name not in queries.COLUMNS and name not in OPTIONAL_TABLES]
    for name, columns in needed.items():
        available = {*queries.COLUMNS.get(name, columns), *OPTIONAL_COLUMNS.get(name, ())}
        errors += [f"column {column} in {name}" for column in columns if column not in available]
    if errors:
        raise UserError(f"MEDS has no {', no '.join(errors)}. Use task.source=mimic for a task that needs it.")
    if "hosp/d_icd_diagnoses" in needed and folder.codes is None:
        raise UserError(
            f"{folder.root} has no titles of diagnoses (metadata/codes.parquet). Add a root with hosp/d_icd_diagnoses "
            "to task.mimic_root, or set task.diagnoses=none."
        )


@contextmanager
def _events(
    folder: MedsFolder, *, memory_limit: str, threads: int | None, spill: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views `events` and `codes`, tables `bundled`, `admissions` and `stays`."""
    with connected(memory_limit=memory_limit, threads=threads, spill=spill) as con:
        try:
            con.execute(_events_view(folder))
            con.execute(_codes_view(folder))
            text = (resources.files("patientdx.records.synthetic") / "items.csv").read_bytes()
            con.register("bundled", pyarrow.csv.read_csv(pa.BufferReader(text)))
            con.execute(queries.spans("admissions", "HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE", "hadm_id"))
            con.execute(queries.spans("placed", "ICU_ADMISSION", "ICU_DISCHARGE", "stay_id"))
            con.execute(queries.STAYS)
            con.execute(queries.WITH_IDS)
            if not con.execute("SELECT count(*) FROM stays").fetchall()[0][0]:
                raise UserError(
                    f"{folder.root} has no ICU_ADMISSION event. MEDS folders made from MIMIC-IV are read, with the "
                    "codes of its public extraction."
                )
            yield con
        except _OURS:
            raise
        except duckdb.Error as error:
            paths = [str(path) for path in (*folder.files, folder.codes)]
            if isinstance(error, duckdb.IOException) and not any(path in str(error) for path in paths):
                raise
            raise UserError(f"The MEDS folder {folder.root} has a file that is no intact parquet file.") from None


def _codes_view(folder: MedsFolder) -> str:
    if folder.codes is None:
        return "CREATE VIEW codes AS SELECT '' AS code, '' AS description LIMIT 0"
    chosen = "code, CAST(description AS VARCHAR) AS description"
    return f"CREATE VIEW codes AS SELECT {chosen} FROM read_parquet('{quoted(folder.codes)}')"


def _events_view(folder: MedsFolder) -> str:
    """The events with all columns that are used; columns that the files lack are NULL."""
    stay_column = "icustay_id" if "icustay_id" in folder.columns else "stay_id"
    optional = {
        "text_value": ("VARCHAR", "text_value"), "hadm_id": ("BIGINT", "hadm_id"), stay_column: ("BIGINT", "stay_id"),
        "order_id": ("VARCHAR", "order_id"), "race": ("VARCHAR", "race"), "insurance": ("VARCHAR", "insurance"),
        "unit": ("VARCHAR", "unit"),
    }  # fmt: skip
    columns = [
        f"{f'CAST({name} AS {kind})' if name in folder.columns else f'CAST(NULL AS {kind})'} AS {short}"
        for name, (kind, short) in optional.items()
    ]
    files = ", ".join(f"'{quoted(path)}'" for path in folder.files)
    # Through text, a float32 becomes the shortest decimal that it stands for: 98.6 and not 98.5999985.
    value = f"CAST(CAST({folder.value} AS VARCHAR) AS DOUBLE) AS number"
    chosen = f"CAST(subject_id AS BIGINT) AS subject_id, CAST(time AS TIMESTAMP) AS time, code, {value}"
    files = f"read_parquet([{files}], union_by_name=true)"
    return f"CREATE VIEW events AS SELECT {chosen}, {', '.join(columns)} FROM {files}"
