import gzip
import pathlib
import re
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from source_rows import NEEDED, read

from patientdx.core.errors import UserError
from patientdx.records import tables

AFTER = (
    " Looked for <table>.{parquet,csv.gz,csv} in {roots}. Add a root that has them to task.mimic_root, "
    "or set task.mimic_root=null for the synthetic hospital."
)


def report(roots: object, store: Path, **more) -> str:
    with pytest.raises(UserError) as refused:
        read(store, root=roots, **more)
    return str(refused.value)


def test_all_missing_tables_and_columns_are_named_at_once(spoil, store):
    root = spoil("icu/icustays", lambda text: text.replace(b'"outtime"', b'"left"', 1))
    (root / "icu/chartevents.csv.gz").unlink()
    (root / "hosp/patients.csv.gz").unlink()
    absent = root.parent / "absent"
    assert report([str(root), str(absent)], store) == (
        f"MIMIC-IV tables are incomplete: no folder {absent}, no table hosp/patients, no table icu/chartevents, "
        "no column outtime in icu/icustays." + AFTER.replace("{roots}", f"{root}, {absent}")
    )


@pytest.mark.parametrize("name", [b"intime", b"INTIME"])
def test_a_column_twice_is_refused_with_its_line(spoil, store, name):
    root = spoil("icu/icustays", lambda text: text.replace(b'"outtime"', b'"outtime","' + name + b'"', 1))
    assert report(root, store) == (
        f"Table icu/icustays in {root}/icu/icustays.csv.gz names the column intime more than once in its line 1: which "
        "of them holds the values is unknown. Leave one."
    )


def test_a_csv_gz_that_was_cut_is_named(spoil, store):
    root = spoil("icu/chartevents", lambda text: text)
    path = root / "icu/chartevents.csv.gz"
    full = path.read_bytes()
    expected = f"Table icu/chartevents cannot be read from {path}: the gzip file ends in the middle; fetch it again."
    for kept in (len(full) // 2, len(full) - 9, 12):
        path.write_bytes(full[:kept])
        assert report(str(root), store) == expected


def test_a_csv_gz_whose_text_was_cut_is_named(spoil, store):
    root = spoil("icu/icustays", lambda text: text[: text.index(b"\n", len(text) // 2) + 30])
    assert report(root, store) == (
        f"Table icu/icustays cannot be read from {root}/icu/icustays.csv.gz: "
        "it is no intact csv.gz file (InvalidInputException)."
    )


@pytest.mark.parametrize("cut", [30, -1])
def test_a_plain_csv_that_was_cut_is_named_even_within_the_last_value(spoil, store, cut):
    root = spoil("icu/icustays", lambda text: text)
    packed, path = root / "icu/icustays.csv.gz", root / "icu/icustays.csv"
    text = gzip.decompress(packed.read_bytes())
    packed.unlink()
    path.write_bytes(text[: text.index(b"\n", len(text) // 2) + cut])
    assert report([str(root)], store) == (
        f"Table icu/icustays cannot be read from {path}: its last line has no end, so it was cut; fetch it again, or "
        "end that line if it is whole."
    )
    path.write_bytes(text)
    assert len(read(store, root=root)["icu/icustays"]) == text.count(b"\n") - 1


def test_a_row_with_a_value_too_few_is_named_without_quoting_it(spoil, store):
    root = spoil("icu/icustays", lambda text: text + b"1,2,SECRET\n")
    message = report(root, store)
    assert message.endswith("it is no intact csv.gz file (InvalidInputException).")
    assert "SECRET" not in message


def test_what_is_no_parquet_or_gzip_is_named(ward, tmp_path, store):
    root = tmp_path / "mimic"
    shutil.copytree(ward, root)
    (root / "icu/d_items.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    expected = f"Table icu/d_items cannot be read from {root}/icu/d_items.parquet: it is no intact parquet file"
    assert report([root], store).startswith(expected)
    (root / "icu/d_items.parquet").unlink()
    (root / "icu/d_items.csv.gz").write_bytes(b"plain text")
    expected = f"Table icu/d_items cannot be read from {root}/icu/d_items.csv.gz: it is no intact csv.gz file"
    assert report([root], store).startswith(expected)
    (root / "icu/d_items.csv.gz").unlink()
    (root / "icu/d_items.csv").write_bytes(b"")
    assert report([root], store).startswith("MIMIC-IV tables are incomplete: no column itemid in icu/d_items")


def test_damage_in_the_middle_of_a_file_is_placed_though_duckdb_does_not_say_where(ward, ward_csv, tmp_path, store):
    metadata = pyarrow.parquet.read_metadata(ward / "icu/inputevents.parquet")
    page = metadata.row_group(0).column(metadata.schema.names.index("amount")).data_page_offset
    for hospital, form, first in ((ward, "parquet", page), (ward_csv, "csv.gz", 5000)):
        root = tmp_path / form
        shutil.copytree(hospital, root)
        path = root / f"icu/inputevents.{form}"
        full = path.read_bytes()
        path.write_bytes(full[:first] + b"\xff" * 60 + full[first + 60 :])
        message = report(root, store)
        assert re.fullmatch(
            f"Table icu/inputevents cannot be read from {re.escape(str(path))}: it is no intact {form} file "
            r"\(\w+\)\.",
            message,
        ), message


@pytest.mark.parametrize(
    ("table", "column", "wrong", "kind"),
    [("icu/chartevents", "valuenum", b"CONFIDENTIAL", "number"), ("icu/icustays", "intime", b"x", "time")],
)
def test_a_value_of_another_type_is_reported_without_quoting_it(spoil, store, table, column, wrong, kind):
    def change(text: bytes) -> bytes:
        header, *lines = text.split(b"\n")
        location = [name.strip(b'"').decode() for name in header.split(b",")].index(column)
        cells = lines[5].split(b",")
        cells[location] = wrong
        lines[5] = b",".join(cells)
        return b"\n".join([header, *lines])

    assert report(spoil(table, change), store) == (
        f"MIMIC-IV tables: 1 values of {column} in {table}.csv.gz are no {kind}."
    )


def _denying(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, part: str) -> None:
    real = getattr(owner, name)

    def denied(path, *rest, **more):
        if part in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(owner, name, denied)


def test_a_folder_that_may_not_be_looked_into_is_named(ward_csv, store, monkeypatch):
    _denying(monkeypatch, pathlib.Path, "stat", "icu/icustays")
    assert report(ward_csv, store) == (
        f"Table icu/icustays cannot be read from {ward_csv}/icu/icustays.parquet: no permission to read it."
    )


def test_a_file_that_may_not_be_read_is_named(ward_csv, store, monkeypatch):
    _denying(monkeypatch, gzip, "open", "icu/icustays")
    assert report(ward_csv, store) == (
        f"Table icu/icustays cannot be read from {ward_csv}/icu/icustays.csv.gz: no permission to read it."
    )


def test_windows_line_ends_are_read(spoil, ward_csv, store):
    root = spoil("icu/chartevents", lambda text: text.replace(b"\n", b"\r\n"))
    assert read(store, root=root) == read(store, root=ward_csv)


def test_a_row_that_occurs_twice_is_refused(spoil, store):
    root = spoil("icu/icustays", lambda text: text + text.splitlines()[1] + b"\n")
    assert report(root, store) == "Table icustays has 1 rows whose stay_id occurs before; each must occur once."
    root = spoil("icu/d_items", lambda text: text + text.splitlines()[1] + b"\n" + text.splitlines()[2] + b"\n")
    (root / "icu/icustays.csv.gz").unlink()
    needed = {"icu/d_items": NEEDED["icu/d_items"]}
    assert report(root, store, needed=needed) == (
        "Table d_items has 2 rows whose itemid occurs before; each must occur once."
    )


def test_a_row_without_its_id_is_refused(spoil, store):
    def change(text: bytes) -> bytes:
        header, line, *rest = text.split(b"\n")
        return b"\n".join([header, b"," + line.split(b",", 1)[1], *rest])

    root = spoil("hosp/patients", change)
    assert report(root, store) == "Table patients has 1 rows without subject_id; each must have one."


def test_the_first_root_that_has_a_table_wins(ward, ward_csv, tmp_path):
    part = tmp_path / "part"
    (part / "icu").mkdir(parents=True)
    shutil.copy(ward_csv / "icu/icustays.csv.gz", part / "icu")
    loaded = tables.find([part, ward], NEEDED)
    assert loaded["icu/icustays"].path == part / "icu/icustays.csv.gz"
    assert {table.root for name, table in loaded.items() if name != "icu/icustays"} == {ward}


def test_csv_csv_gz_and_parquet_give_the_same_rows_and_a_home_folder_works(
    ward, ward_csv, store, tmp_path, monkeypatch
):
    plain = tmp_path / "plain"
    for path in ward_csv.rglob("*.csv.gz"):
        target = plain / path.relative_to(ward_csv).with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.decompress(path.read_bytes()))
    monkeypatch.setenv("HOME", str(ward.parent))
    example = read(store, root=f"~/{ward.name}")
    assert example == read(store, root=[str(ward_csv)], threads=1) == read(store, root=plain)
    assert len(example["icu/chartevents"]) > 50_000


def test_a_changed_or_unmarked_hospital_counts_as_credentialed(spoil):
    root = spoil("icu/d_items", lambda text: text.replace(b"Heart Rate", b"Heart rate"))
    origins_of = tables.provenance(tables.find([root], NEEDED))
    assert {name for name, fact in origins_of.items() if fact["origin"] == "credentialed"} == {"icu/d_items"}
    assert not tables.is_open(origins_of)
    (root / "synthetic_hospital.json").unlink()
    origins_of = tables.provenance(tables.find([root], NEEDED))
    assert {fact["origin"] for fact in origins_of.values()} == {"credentialed"}


@pytest.mark.parametrize(("key", "value"), [("memory_limit", "much"), ("threads", -1)])
def test_limits_that_duckdb_does_not_know_are_refused(ward, store, key, value):
    keys = {"memory_limit": "2GB", "threads": None} | {key: value}
    assert report(ward, store, **{key: value}) == (
        f"task.memory_limit={keys['memory_limit']!r}, task.threads={keys['threads']!r}: DuckDB takes a size such as "
        "2GB and a whole number of threads, 1 or more."
    )


def test_too_little_memory_is_refused_by_name(ward, store):
    expected = "task.memory_limit=1MB is too little for these tables; raise it."
    assert report(ward, store, memory_limit="1MB") == expected
