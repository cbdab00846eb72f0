import errno
import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from source_rows import NEEDED, read
from tasks_by_yaml import load

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records import convert, tables, window
from patientdx.records.source import SourceConfig, opened_source
from patientdx.records.synthetic.hospital import hospital


@pytest.fixture
def everything(monkeypatch):
    """Every csv is large enough to be converted."""
    monkeypatch.setattr(convert, "CONVERT_FROM", 1)


def made(cache: Path) -> dict[str, Path]:
    """Converted tables by name, and nothing unfinished beside them."""
    folders = [path for path in (cache / "records").iterdir() if path.is_dir()]
    assert not [path for path in folders if path.name.startswith(".")]
    return {folder.name.rsplit("-", 1)[0]: next(folder.rglob("*.parquet")) for folder in folders}


def test_small_tables_are_not_converted(ward_csv, tmp_path):
    read(tmp_path, root=ward_csv)
    assert not (tmp_path / "records").exists()


@pytest.mark.usefixtures("everything")
def test_converted_tables_have_the_same_rows_the_needed_columns_and_an_order(ward, ward_csv, tmp_path):
    assert read(tmp_path, root=ward_csv, threads=2) == read(tmp_path, root=ward)
    loaded = made(tmp_path)
    assert set(loaded) == {name.split("/")[1] for name in NEEDED}
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700
    for name, columns in NEEDED.items():
        file = pyarrow.parquet.ParquetFile(loaded[name.split("/")[1]])
        assert set(file.schema_arrow.names) == set(columns)
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    chart = pyarrow.parquet.read_table(loaded["chartevents"]).to_pandas()
    assert chart[["stay_id", "charttime"]].equals(
        chart[["stay_id", "charttime"]].sort_values(["stay_id", "charttime"], ignore_index=True)
    )


@pytest.mark.usefixtures("everything")
def test_a_conversion_is_made_once_for_a_content_and_its_columns(ward_csv, tmp_path, spoil):
    read(tmp_path, root=ward_csv)
    before = {name: path.stat().st_mtime_ns for name, path in made(tmp_path).items()}
    copy = tmp_path / "copy"
    shutil.copytree(ward_csv, copy)
    read(tmp_path, root=copy, threads=1, memory_limit="1GB")
    assert {name: path.stat().st_mtime_ns for name, path in made(tmp_path).items()} == before
    fewer = NEEDED | {"icu/chartevents": {"stay_id": "BIGINT", "itemid": "INTEGER"}}
    read(tmp_path, root=ward_csv, needed=fewer)
    assert len(list((tmp_path / "records").glob("chartevents-*"))) == 2
    read(tmp_path, root=spoil("icu/d_items", lambda text: text.replace(b"Heart Rate", b"Heart rate")))
    assert len(list((tmp_path / "records").glob("d_items-*"))) == 2
    assert len(list((tmp_path / "records").glob("icustays-*"))) == 1


@pytest.mark.usefixtures("everything")
def test_only_rows_of_items_that_are_read_are_converted_and_other_items_are_another_conversion(ward_csv, tmp_path):
    rows = read(tmp_path, root=ward_csv)["icu/chartevents"]
    items = {"icu/chartevents": {220045, 220179}, "icu/icustays": {220045}}
    for _ in range(2):
        with opened_source(SourceConfig(cache=tmp_path, mimic_root=ward_csv), NEEDED, items) as opened:
            chosen = opened.con.execute("FROM chartevents ORDER BY ALL").fetchall()
    assert chosen == [row for row in rows if row[2] in items["icu/chartevents"]] != []
    count = {name: len(list((tmp_path / "records").glob(f"{name}-*"))) for name in ("chartevents", "icustays")}
    assert count == {"chartevents": 2, "icustays": 1}


@pytest.mark.parametrize("template", ["brief/2", "intervals/1"])
def test_a_task_is_the_same_from_rows_of_its_items_alone(store, tmp_path, monkeypatch, template):
    root = hospital(store, stays=60, seed=3, form="csv.gz", unread=2)
    options = {"mimic_root": str(root), "template": template}
    every = load("mortality", cache=tmp_path / "every", **options)
    monkeypatch.setattr(convert, "CONVERT_FROM", 1)
    some = load("mortality", cache=tmp_path / "some", **options)
    assert some.examples == every.examples
    assert some.readings == every.readings
    np.testing.assert_array_equal(some.features.values, every.features.values)
    chart = pyarrow.parquet.read_table(made(tmp_path / "some")["chartevents"])["itemid"].to_numpy()
    assert set(chart) <= window.items_read()["icu/chartevents"]
    assert gzip.decompress((root / "icu/chartevents.csv.gz").read_bytes()).count(b"\n") - 1 > len(chart)


ODD = b'''subject_id,hadm_id,stay_id,charttime,storetime,itemid,value,valuenum,valueuom,warning
1,1,{stay},2150-01-01 00:00:00,,220045,"two
lines, and ""quotes""",80,bpm,0
1,1,{stay},2150-01-01 00:00:00.5,,220045,"",,"",
1,1,{stay},2150-01-01,,220045,NA,NaN,,1
1,1,{stay},2150-01-01 01:00:00,,220045,1.0,-1e-3,,1
'''
UNTYPED = b"1,1,{stay},2150-01-01 02:00:00,,220045.0,x,1,,1\n"  # pyarrow reads no integer there, DuckDB does


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize(("rows", "by_pyarrow"), [(ODD, True), (ODD + UNTYPED, False)])
def test_values_are_read_as_duckdb_reads_them(spoil, tmp_path, monkeypatch, rows, by_pyarrow):
    root = spoil("icu/chartevents", lambda _: rows.replace(b"{stay}", b"30000000"))
    needed = {"icu/chartevents": {**NEEDED["icu/chartevents"], "value": "VARCHAR"}}
    write, ways = convert._write_csv, []
    monkeypatch.setattr(convert, "_write_csv", lambda *words: ways.append(write(*words)) or ways[-1])
    streamed = read(tmp_path / "one", root=root, needed=needed)
    assert ways == [by_pyarrow]
    monkeypatch.setattr(convert, "_write_csv", lambda *words: False)
    assert str(streamed) == str(read(tmp_path / "two", root=root, needed=needed))  # as text: NaN is not itself
    assert len(streamed["icu/chartevents"]) == 4 + (not by_pyarrow)


@pytest.mark.usefixtures("everything")
def test_a_converted_order_that_was_replaced_is_left_out(spoil, tmp_path):
    table, columns = "icu/inputevents", NEEDED["icu/inputevents"]

    def marked(text: bytes) -> bytes:
        head, *lines = text.splitlines()
        states = (b"Rewritten" if number % 2 else b"FinishedRunning" for number in range(len(lines)))
        added = [line + b"," + state for line, state in zip(lines, states, strict=True)]
        return b"\n".join([head + b",statusdescription", *added, b""])

    before = read(tmp_path / "one", root=spoil(table, lambda text: text), needed={table: columns})[table]
    after = read(tmp_path / "two", root=spoil(table, marked), needed={table: columns})[table]
    assert len(after) == (len(before) + 1) // 2


@pytest.mark.usefixtures("everything")
def test_provenance_keeps_the_hashes_of_the_user_s_files(ward_csv, tmp_path):
    with opened_source(SourceConfig(cache=tmp_path, mimic_root=ward_csv), NEEDED) as opened:
        for name, fact in opened.files.items():
            assert fact["file"] == f"{name}.csv.gz"
            assert fact["sha256"] == sha256(ward_csv / fact["file"])


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from source_rows import read
from patientdx.records import convert
convert.CONVERT_FROM = 1
write = convert.write_sorted

def last(con, query, columns, path, *more):
    write(con, query, columns, path, *more)
    if path.stem == "icustays":
        os.kill(os.getpid(), signal.SIGKILL)

convert.write_sorted = last
read(Path({cache!r}), root={root!r}, threads=1)
"""


@pytest.mark.usefixtures("everything")
def test_a_killed_conversion_keeps_its_finished_tables(ward_csv, ward, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parents[1]), cache=str(tmp_path), root=str(ward_csv))
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    records = tmp_path / "records"
    assert [path.name.split("-")[0] for path in records.glob(".*.tmp")] == [".icustays"]
    assert list((tmp_path / "spill").iterdir()) != []
    finished = {path.name: path.stat().st_mtime_ns for path in records.iterdir() if not path.name.startswith(".")}
    assert 0 < len(finished) < len(NEEDED)
    assert read(tmp_path, root=ward_csv) == read(tmp_path, root=ward)
    assert set(made(tmp_path)) == {name.split("/")[1] for name in NEEDED}
    assert {name: (records / name).stat().st_mtime_ns for name in finished} == finished
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.usefixtures("everything")
def test_a_damaged_file_is_named_and_leaves_nothing(spoil, tmp_path):
    root = spoil("icu/chartevents", lambda text: text)
    path = root / "icu/chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError) as refused:
        read(tmp_path, root=root)
    assert str(refused.value) == (
        f"Table icu/chartevents cannot be read from {path}: the gzip file ends in the middle; fetch it again."
    )
    assert set(made(tmp_path)) <= {"patients", "admissions"}


@pytest.mark.usefixtures("everything")
def test_a_disk_without_room_is_refused_before_the_work(ward_csv, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(
        UserError, match=r"^admissions-\w+ needs 0\.00 GB in the cache, but .*/records has 0\.00 GB free"
    ):
        read(tmp_path, root=ward_csv)


@pytest.mark.usefixtures("everything")
def test_a_cache_that_cannot_be_written_is_refused(ward_csv, tmp_path):
    (tmp_path / "records").write_text("a file in the way")
    with pytest.raises(UserError) as refused:
        read(tmp_path, root=ward_csv)
    assert str(refused.value) == (
        f"{tmp_path}/records cannot be made ({os.strerror(errno.EEXIST)}): set cache=… (or PATIENTDX_CACHE) to a "
        "folder that you can write to."
    )


@pytest.mark.usefixtures("everything")
def test_large_parquet_stays_where_it_is_while_its_row_groups_follow_one_another(ward, tmp_path):
    chart = pyarrow.parquet.read_table(ward / "icu/chartevents.parquet")
    for name, order, expected in (("one", "stay_id", set()), ("two", "charttime", {"chartevents"})):
        root = tmp_path / name / "mimic"
        shutil.copytree(ward, root)
        path = root / "icu/chartevents.parquet"
        pyarrow.parquet.write_table(chart.sort_by([(order, "ascending")]), path, row_group_size=10_000)
        assert read(tmp_path / name, root=root) == read(tmp_path / name, root=ward)
        assert {folder.name.split("-")[0] for folder in (tmp_path / name).glob("records/[a-z]*")} == expected


def test_a_bar_follows_the_query(monkeypatch, tmp_path):
    observed = []

    class Bar:
        def __init__(self, **message):
            self.n, self.label = 0, message["desc"]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            observed.append((self.label, self.n))

        def update(self, more):
            self.n += more

    monkeypatch.setattr(convert, "progress", Bar)
    with tables.opened({}, {}, memory_limit="1GB", threads=1, spill=tmp_path) as con:
        query = "SELECT hash(range) AS stay_id FROM range(6_000_000)"
        convert.write_sorted(con, query, {"stay_id": "BIGINT"}, tmp_path / "x/events.parquet")
    ((label, last),) = observed
    assert label == "events to parquet"
    assert 0 < last <= 100
