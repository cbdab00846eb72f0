"""Large tables as parquet in the cache: converted once, then only the columns and stays that a query asks for are read.

A csv.gz is decompressed completely by one thread at every query; the conversion saves that. Tables below CONVERT_FROM
(those of the demo, the dictionaries) are read faster than they would be converted, and so are large parquet files
that are sorted by their key already, such as the synthetic hospital's: both are read where they are.

Of chart and laboratory events most rows are of items that no concept names. Where the caller says which items it reads,
only their rows are written: a larger set of items is another conversion.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from patientdx.core.cache import build_folder
from patientdx.core.errors import UserError
from patientdx.core.progress import progress
from patientdx.records.tables import Needed, Table, opened, present, selection

VERSION = 2  # raise it when a change makes other files
CONVERT_FROM = 8_000_000  # bytes: about a million rows of a csv.gz, which take a second to read, at every query
ROW_GROUP = 122_880  # rows: DuckDB's unit of skipping and of sharing work among threads
KEYS = ("stay_id", "hadm_id", "subject_id")
TIMES = ("charttime", "starttime", "intime", "admittime")
_BLOCK = 1 << 20  # bytes of text that are parsed at a time
_ARROW = {
    "BIGINT": pa.int64(), "INTEGER": pa.int32(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us"),
    "VARCHAR": pa.string(),
}  # fmt: skip


def converted(
    located: Mapping[str, Table],
    needed: Needed,
    files: Mapping[str, Mapping[str, str]],
    *,
    cache: Path,
    memory_limit: str,
    threads: int | None,
    items: Mapping[str, Collection[int]] | None = None,
) -> dict[str, Table]:
    """The tables to read instead of `located`: large ones from the cache, converted there on first use.

    One folder per table, complete or absent: an interruption costs only the table in progress. `items`: for a table the
    itemids whose rows are written; without them all are. The key of a conversion is the sha256 in `files`, the needed
    columns with their types, the items, and VERSION. Raises UserError on damaged files and where memory or disk are too
    small.
    """

    def to_read(name: str, table: Table) -> Table:
        columns = present(table, needed[name])
        if not _pays(table, columns):
            return table

        chosen = sorted((items or {}).get(name, ())) if "itemid" in columns else []

        def build(folder: Path) -> None:
            only, path = ({name: table}, {name: columns}), folder / f"{name}.parquet"
            with opened(*only, memory_limit=memory_limit, threads=threads, spill=cache / "spill") as con:
                if table.form == "parquet" or not _write_csv(con, table, columns, chosen, path, threads):
                    write_sorted(con, f"FROM {Path(name).name}{_where(chosen)}", columns, path)

        size = table.path.stat().st_size
        key = [files[name]["sha256"], columns, *([chosen] if chosen else [])]
        return kept(cache, name, key, build, need_bytes=size // 4 if table.form == "csv" else size)

    return {name: to_read(name, table) for name, table in located.items()}


def kept(cache: Path, name: str, key: object, build: Callable[[Path], None], need_bytes: int = 0) -> Table:
    """The table that `build(folder)` writes as <name>.parquet, from the cache if it exists for this `key`.

    Only its owner may enter the folder of all tables, which may hold credentialed data.
    """
    records = cache / "records"
    try:
        records.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"{records} cannot be made ({error.strerror}): set cache=… (or PATIENTDX_CACHE) to a folder that you can "
            "write to."
        ) from error
    digest = hashlib.sha256(json.dumps([VERSION, name, key]).encode()).hexdigest()
    folder = records / f"{Path(name).name}-{digest[:16]}"
    return Table(name, build_folder(folder, build, need_bytes), "parquet")


def _where(items: Collection[int]) -> str:
    return f" WHERE itemid IN ({', '.join(map(str, items))})" if items else ""


def _write_csv(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    columns: Mapping[str, str],
    items: Collection[int],
    path: Path,
    threads: int | None,
) -> bool:
    """`write_sorted` of a csv that pyarrow reads, which takes about half of the time of DuckDB's reader.

    False where pyarrow refuses the file: DuckDB then reads it, or says what is wrong with it.
    """
    types = {"statusdescription": pa.string()} | {name: _ARROW[kind] for name, kind in columns.items()}
    try:
        with pa.OSFile(str(table.path)) as file:
            size = max(file.size(), 1)
            with pyarrow.csv.open_csv(
                pa.CompressedInputStream(file, "gzip") if table.form == "csv.gz" else file,
                pyarrow.csv.ReadOptions(block_size=_BLOCK, use_threads=threads != 1),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(present(table, types)),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            ) as rows:
                con.register("csv_rows", rows)
                query = f"FROM ({selection(table, columns, 'csv_rows')}){_where(items)}"
                write_sorted(con, query, columns, path, lambda: 100 * file.tell() / size)
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, OSError):
        return False
    return True


def write_sorted(
    con: duckdb.DuckDBPyConnection,
    query: str,
    columns: Mapping[str, str],
    path: Path,
    percent: Callable[[], float] | None = None,
) -> None:
    """Write a query's rows to one parquet file in the order of key and time, with a bar on a terminal.

    `percent`: how much has been read, where DuckDB cannot know.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [next((name for name in names if name in columns), None) for names in (KEYS, TIMES)]
    by = ", ".join(f'"{name}"' for name in order if name)
    con.execute("SET preserve_insertion_order = false")  # the query sorts the rows; insertion order only costs memory
    with _bar(con, f"{path.stem} to parquet", percent or con.query_progress):
        con.execute(
            f"COPY ({query}{f' ORDER BY {by}' if by else ''}) TO '{quoted(path)}' "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
        )


def quoted(path: Path) -> str:
    """A path for use between single quotes in SQL."""
    return str(path).replace("'", "''")


@contextmanager
def _bar(con: duckdb.DuckDBPyConnection, label: str, percent: Callable[[], float]) -> Iterator[None]:
    """Progress bar of the running query, updated four times a second."""
    for setting in ("enable_progress_bar = true", "enable_progress_bar_print = false", "progress_bar_time = 0"):
        con.execute(f"SET {setting}")
    done = threading.Event()
    with progress(total=100, desc=label, unit="%", bar_format="{l_bar}{bar}| {elapsed}") as bar:

        def look() -> None:
            while not done.wait(0.25):
                bar.update(max(0, percent() - bar.n))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            done.set()
            looking.join()


def _pays(table: Table, columns: Mapping[str, str]) -> bool:
    if table.path.stat().st_size < CONVERT_FROM:
        return False
    key = next((name for name in KEYS if name in columns), None)
    return table.form != "parquet" or (key is not None and not _in_order(table.path, key))


def _in_order(path: Path, key: str) -> bool:
    """Whether a parquet file's row groups follow one another by an integer key, so that most can be skipped."""
    metadata = pyarrow.parquet.read_metadata(path)
    column = metadata.schema.names.index(key)
    last = None
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(column).statistics
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, int):
            return False
        if last is not None and statistics.min < last:
            return False
        last = statistics.max
    return True
