import gzip
import re
import shutil
from pathlib import Path

import pytest

from patientdx.refusal import Refusal
from patientdx.tasks import mortality
from patientdx.tasks.records import cohort, tables, window

NEEDED = dict(cohort.NEEDED) | window.needed("none")
AFTER = (
    " Looked for <table>.{parquet,csv.gz,csv} in {roots}. Add a root that has them to task.mimic_root, "
    "or set task.mimic_root=null for the synthetic hospital."
)


def said(roots: object, store: Path) -> str:
    with pytest.raises(Refusal) as refused:
        mortality.load(cache=store, mimic_root=roots)
    return str(refused.value)


def test_all_missing_tables_and_columns_are_named_at_once(spoil, store):
    root = spoil("icu/icustays", lambda text: text.replace(b'"outtime"', b'"left"', 1))
    (root / "icu/chartevents.csv.gz").unlink()
    (root / "hosp/patients.csv.gz").unlink()
    absent = root.parent / "absent"
    assert said([str(root), str(absent)], store) == (
        f"MIMIC-IV tables are incomplete: no folder {absent}, no table hosp/patients, no column outtime in "
        "icu/icustays, no table icu/chartevents." + AFTER.replace("{roots}", f"{root}, {absent}")
    )


def test_a_csv_gz_that_was_cut_is_named(spoil, store):
    root = spoil("icu/chartevents", lambda text: text)
    path = root / "icu/chartevents.csv.gz"
    whole = path.read_bytes()
    expected = f"Table icu/chartevents cannot be read from {path}: the gzip file ends in the middle; fetch it again."
    for kept in (len(whole) // 2, len(whole) - 9, 12):
        path.write_bytes(whole[:kept])
        assert said(str(root), store) == expected


def test_a_plain_csv_that_was_cut_is_named(spoil, store):
    root = spoil("icu/icustays", lambda text: text)
    packed, path = root / "icu/icustays.csv.gz", root / "icu/icustays.csv"
    text = gzip.decompress(packed.read_bytes())
    packed.unlink()
    path.write_bytes(text[: text.index(b"\n", len(text) // 2) + 30])
    assert said([str(root)], store) == (
        f"Table icu/icustays cannot be read from {path}: it is no intact csv file (InvalidInputException)."
    )


def test_what_is_no_parquet_or_gzip_is_named(ward, tmp_path, store):
    root = tmp_path / "mimic"
    shutil.copytree(ward, root)
    (root / "icu/d_items.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    expected = f"Table icu/d_items cannot be read from {root}/icu/d_items.parquet: it is no intact parquet file"
    assert said([root], store).startswith(expected)
    (root / "icu/d_items.parquet").unlink()
    (root / "icu/d_items.csv.gz").write_bytes(b"plain text")
    expected = f"Table icu/d_items cannot be read from {root}/icu/d_items.csv.gz: it is no intact csv.gz file"
    assert said([root], store).startswith(expected)


@pytest.mark.parametrize(
    ("table", "column", "wrong", "kind"),
    [("icu/chartevents", "valuenum", b"CONFIDENTIAL", "number"), ("icu/icustays", "intime", b"x", "time")],
)
def test_a_value_of_another_type_is_reported_without_quoting_it(spoil, store, table, column, wrong, kind):
    def change(text: bytes) -> bytes:
        header, *lines = text.split(b"\n")
        place = [name.strip(b'"').decode() for name in header.split(b",")].index(column)
        cells = lines[5].split(b",")
        cells[place] = wrong
        lines[5] = b",".join(cells)
        return b"\n".join([header, *lines])

    assert said(spoil(table, change), store) == (
        f"MIMIC-IV tables: 1 values of {column} in {table}.csv.gz are no {kind}."
    )


def test_windows_line_ends_are_read(spoil, ward_csv, store):
    root = spoil("icu/chartevents", lambda text: text.replace(b"\n", b"\r\n"))
    assert mortality.load(cache=store, mimic_root=root).examples == (
        mortality.load(cache=store, mimic_root=ward_csv).examples
    )


def test_a_row_that_occurs_twice_is_refused(spoil, store):
    root = spoil("icu/icustays", lambda text: text + text.splitlines()[1] + b"\n")
    assert said(root, store) == "Table icustays has 1 rows whose stay_id occurs before; each must occur once."


def test_the_first_root_that_has_a_table_wins(ward, ward_csv, tmp_path):
    part = tmp_path / "part"
    (part / "icu").mkdir(parents=True)
    shutil.copy(ward_csv / "icu/icustays.csv.gz", part / "icu")
    found = tables.find([part, ward], NEEDED)
    assert found["icu/icustays"].path == part / "icu/icustays.csv.gz"
    assert {table.root for name, table in found.items() if name != "icu/icustays"} == {ward}


def test_csv_and_parquet_give_the_same_examples_and_a_home_folder_works(ward, ward_csv, store, monkeypatch):
    monkeypatch.setenv("HOME", str(ward.parent))
    one = mortality.load(cache=store, mimic_root=f"~/{ward.name}")
    two = mortality.load(cache=store, mimic_root=[str(ward_csv)], threads=1)
    assert one.examples == two.examples
    assert one.fingerprint == two.fingerprint


def test_provenance_has_hashes_and_no_path(ward, store):
    data = mortality.load(cache=store, mimic_root=ward)
    assert data.open_data
    assert data.provenance["source"] == ["synthetic hospital"]
    facts = data.provenance["tables"]
    assert set(facts) == set(NEEDED)
    for name, fact in facts.items():
        assert fact["file"] == f"{name}.parquet"
        assert fact["sha256"] == tables.sha256(ward / fact["file"])
    assert str(ward) not in repr(data.provenance)


def test_a_changed_or_unmarked_hospital_counts_as_credentialed(spoil, store):
    root = spoil("icu/d_items", lambda text: text.replace(b"Heart Rate", b"Heart rate"))
    facts = tables.provenance(tables.find([root], NEEDED))
    assert {name for name, fact in facts.items() if fact["origin"] == "credentialed"} == {"icu/d_items"}
    assert not tables.is_open(facts)
    (root / "synthetic_hospital.json").unlink()
    facts = tables.provenance(tables.find([root], NEEDED))
    assert {fact["origin"] for fact in facts.values()} == {"credentialed"}
    assert not mortality.load(cache=store, mimic_root=root).open_data


@pytest.mark.parametrize(("key", "value"), [("memory_limit", "much"), ("threads", -1)])
def test_limits_that_duckdb_does_not_know_are_refused(ward, store, key, value):
    with pytest.raises(Refusal, match=re.escape(f"task.{key}={value!r}")):
        mortality.load(cache=store, mimic_root=ward, **{key: value})


def test_too_little_memory_is_refused_by_name(ward, store):
    with pytest.raises(Refusal, match=r"^task\.memory_limit=1MB is too little for these tables; raise it\.$"):
        mortality.load(cache=store, mimic_root=ward, memory_limit="1MB")


def test_nothing_is_left_in_the_spill_folder(ward, store):
    mortality.load(cache=store, mimic_root=ward)
    assert list((store / "spill").iterdir()) == []
