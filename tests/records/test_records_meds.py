import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from meds_hospital import write_meds
from source_rows import EVENTS, NEEDED, read

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records import cohort, tables
from patientdx.records.source import SourceConfig, opened_source

IN_ICU = cohort.Outcome(label="s.death BETWEEN s.intime AND s.outtime")
SERVED = NEEDED | {
    "icu/icustays": NEEDED["icu/icustays"] | {"first_careunit": "VARCHAR", "last_careunit": "VARCHAR", "los": "DOUBLE"},
    "hosp/admissions": NEEDED["hosp/admissions"] | {"admission_type": "VARCHAR", "hospital_expire_flag": "INTEGER"},
    "icu/chartevents": NEEDED["icu/chartevents"] | {"subject_id": "BIGINT", "value": "VARCHAR"},
    "hosp/diagnoses_icd": {"hadm_id": "BIGINT", "icd_code": "VARCHAR", "icd_version": "INTEGER"},
    "hosp/d_icd_diagnoses": {"icd_code": "VARCHAR", "icd_version": "INTEGER", "long_title": "VARCHAR"},
}


@pytest.fixture(scope="module")
def meds(ward, store) -> Path:
    """The synthetic hospital as MEDS, with all ids."""
    return write_meds(ward, store / "meds")


@pytest.fixture(scope="module")
def bare(ward, store) -> Path:
    """The same with MEDS's own columns alone."""
    return write_meds(ward, store / "bare", ids=False)


@pytest.fixture(scope="module")
def demo() -> Path:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    return Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"


def message(cache: Path, root: object, needed=NEEDED) -> str:
    with pytest.raises(UserError) as refused:
        read(cache, source="meds", root=root, needed=needed)
    return str(refused.value)


def test_a_meds_folder_gives_the_rows_of_the_tables_it_was_made_of(meds, ward, store):
    loaded = read(store, needed=SERVED, source="meds", root=meds)
    tabled = read(store, needed=SERVED, root=ward)
    for name in SERVED:
        if name not in ("hosp/patients", "hosp/admissions", "icu/d_items", "icu/inputevents", "icu/icustays"):
            assert loaded[name] == tabled[name], name
    approximately(loaded["icu/inputevents"], tabled["icu/inputevents"])
    approximately(loaded["icu/icustays"], tabled["icu/icustays"])
    kept = [location for location, column in enumerate(SERVED["hosp/admissions"]) if column != "deathtime"]
    assert [[row[location] for location in kept] for row in loaded["hosp/admissions"]] == (
        [[row[location] for location in kept] for row in tabled["hosp/admissions"]]
    )
    assert {row[0]: row[1] for row in loaded["hosp/patients"]} == {row[0]: row[1] for row in tabled["hosp/patients"]}
    assert {row[0]: row[4] for row in loaded["hosp/patients"]} == {row[0]: row[4] for row in tabled["hosp/patients"]}
    observed = {
        row[0] for name in EVENTS for row in (r[2:] if name != "icu/inputevents" else r[3:] for r in tabled[name])
    }
    assert set(loaded["icu/d_items"]) == {row for row in tabled["icu/d_items"] if row[0] in observed}


def approximately(example: list[tuple], two: list[tuple]) -> None:
    """Equal, numbers to the precision of MEDS's float32."""
    assert len(example) == len(two)
    for left, right in zip(example, two, strict=True):
        floats = [location for location, value in enumerate(left) if isinstance(value, float)]
        assert [left[location] for location in floats] == pytest.approx(
            [right[location] for location in floats], rel=1e-6
        )
        rest = [location for location in range(len(left)) if location not in floats]
        assert [left[location] for location in rest] == [right[location] for location in rest]


@pytest.mark.parametrize("folder", ["meds", "bare"])
@pytest.mark.parametrize("death", ["deathtime", "dod"])
def test_the_cohort_is_that_of_the_tables(folder, death, ward, store, request):
    rows = []
    for root, kind in ((request.getfixturevalue(folder), "meds"), (ward, "mimic")):
        with opened_source(SourceConfig(cache=store, source=kind, mimic_root=root), cohort.NEEDED) as opened:
            chosen = cohort.select(opened.con, IN_ICU, window_hours=48, gap_hours=6, death=death)
            columns = "subject_id, intime, outtime, admittime, dischtime, age, gender, label"
            rows.append((opened.con.execute(f"SELECT {columns} FROM cohort ORDER BY ALL").fetchall(), chosen.attrition))
    assert rows[0] == rows[1]
    assert 10 < sum(row[-1] for row in rows[0][0]) < len(rows[0][0]) - 10


def test_events_without_ids_fall_into_the_stay_of_their_time(bare, ward, store):
    query = """SELECT i.subject_id, i.intime, e.* EXCLUDE (stay_id) FROM {} e JOIN icustays i USING (stay_id)
        WHERE e.{} < i.outtime ORDER BY ALL"""
    times = {"chartevents": "charttime", "outputevents": "charttime", "procedureevents": "starttime"}
    for table, time in times.items():
        loaded = []
        for root, kind in ((bare, "meds"), (ward, "mimic")):
            with opened_source(SourceConfig(cache=store, source=kind, mimic_root=root), NEEDED) as opened:
                loaded.append(opened.con.execute(query.format(table, time)).fetchall())
        assert len(loaded[0]) > 500
        assert loaded[0] == loaded[1]


def test_a_shard_without_ids_beside_one_with_them_loses_no_reading(meds, bare, tmp_path, caplog):
    """Patients of the one shard are read by id, those of the other by time; what is in no stay is counted."""
    folder = shutil.copytree(meds, tmp_path / "mixed")
    shutil.copy(bare / "data/train/1.parquet", folder / "data/train/1.parquet")
    placed = {}
    for root in (meds, bare, folder):
        caplog.clear()
        with (
            caplog.at_level("INFO"),
            opened_source(SourceConfig(cache=tmp_path, mimic_root=root, source="meds"), SERVED) as opened,
        ):
            query = "SELECT count(*), count(stay_id) FROM chartevents"
            rows, placed[root] = opened.con.execute(query).fetchall()[0]
        left_out = f"{rows - placed[root]} of {rows} rows of chartevents are in no ICU stay and are left out"
        assert (left_out in caplog.messages) == (rows > placed[root])
    assert placed[folder] > placed[meds] - 20
    assert min(placed[meds], placed[bare]) <= placed[folder] <= max(placed[meds], placed[bare])


def test_stays_and_admissions_without_ids_are_numbered_by_patient_and_time(bare, store):
    loaded = read(store, source="meds", root=bare)
    for name, location in (("icu/icustays", 2), ("hosp/admissions", 1)):
        rows = sorted(loaded[name], key=lambda row: (row[0], row[3 if location == 2 else 2]))
        assert [row[location] for row in rows] == list(range(1, len(rows) + 1))
    assert {row[1] for row in loaded["icu/icustays"]} <= {row[1] for row in loaded["hosp/admissions"]}
    assert {row[5] for row in loaded["hosp/admissions"]} == {None}


def test_labels_come_from_the_bundled_dictionary_the_codes_or_a_root_with_the_dictionary(meds, ward, tmp_path):
    folder = tmp_path / "meds"
    shutil.copytree(meds, folder)
    shard = next((folder / "data").rglob("*.parquet"))
    events = pyarrow.parquet.read_table(shard)
    more = events.slice(0, 2).set_column(2, "code", pa.array(["PROCEDURE//START//299999", "PROCEDURE//START//299998"]))
    pyarrow.parquet.write_table(pa.concat_tables([events, more]), shard)
    codes = pyarrow.parquet.read_table(folder / "metadata/codes.parquet")
    example = pa.table({"code": ["PROCEDURE//START//299999"], "description": ["a new one"]})
    pyarrow.parquet.write_table(pa.concat_tables([codes, example]), folder / "metadata/codes.parquet")
    needed = {"icu/d_items": NEEDED["icu/d_items"]}
    loaded = {row[0]: row[1:] for row in read(tmp_path, source="meds", root=folder, needed=needed)["icu/d_items"]}
    assert loaded[299999] == ("a new one", None, "procedureevents")
    assert loaded[299998] == (None, None, "procedureevents")
    assert loaded[220045] == ("Heart Rate", "Routine Vital Signs", "chartevents")
    with opened_source(SourceConfig(cache=tmp_path, source="meds", mimic_root=folder), needed) as opened:
        assert opened.files["meds"]["items_without_label"] == 1
    roots = [folder, ward]
    assert read(tmp_path, source="meds", root=roots, needed=needed) == read(tmp_path, root=ward, needed=needed)
    with opened_source(SourceConfig(cache=tmp_path, source="meds", mimic_root=roots), needed) as opened:
        assert {name: fact["origin"] for name, fact in opened.files.items()} == {
            "meds": "credentialed", "icu/d_items": "synthetic hospital",
        }  # fmt: skip
        assert not opened.open_data


def test_the_column_of_the_stay_may_have_its_older_name(meds, store, tmp_path):
    folder = tmp_path / "meds"
    shutil.copytree(meds, folder)
    for shard in (folder / "data").rglob("*.parquet"):
        events = pyarrow.parquet.read_table(shard)
        names = ["stay_id" if name == "icustay_id" else name for name in events.column_names]
        pyarrow.parquet.write_table(events.rename_columns(names), shard)
    assert read(tmp_path, source="meds", root=folder) == read(store, source="meds", root=meds)


def test_race_and_insurance_may_be_codes(bare, tmp_path):
    folder = tmp_path / "meds"
    shutil.copytree(bare, folder)
    for shard in (folder / "data").rglob("*.parquet"):
        events = pyarrow.parquet.read_table(shard)
        codes = events["code"].to_pylist()
        rows = [location for location, code in enumerate(codes) if code.startswith("HOSPITAL_ADMISSION//")]
        for prefix in ("RACE//ASIAN - CHINESE", "INSURANCE//Medicaid"):
            message = events.take(rows).set_column(2, "code", pa.array([prefix] * len(rows)))
            events = pa.concat_tables([events, message])
        pyarrow.parquet.write_table(events, shard)
    loaded = read(tmp_path, source="meds", root=folder)["hosp/admissions"]
    assert {row[5:] for row in loaded} == {("Medicaid", "ASIAN - CHINESE")}


def test_a_stay_that_is_never_left_has_no_end(bare, tmp_path):
    folder = tmp_path / "meds"
    shutil.copytree(bare, folder)
    shard = next((folder / "data").rglob("*.parquet"))
    events = pyarrow.parquet.read_table(shard)
    codes = events["code"].to_pylist()
    gone = next(location for location, code in enumerate(codes) if code.startswith("ICU_DISCHARGE"))
    pyarrow.parquet.write_table(pa.concat_tables([events.slice(0, gone), events.slice(gone + 1)]), shard)
    before, after = (read(tmp_path, source="meds", root=root)["icu/icustays"] for root in (bare, folder))
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert sum(row[4] is None for row in before) == 0
    assert [row[0] for row in after if row[4] is None] == [events["subject_id"][gone].as_py()]


def test_conversion_of_meds_is_made_once(meds, tmp_path):
    read(tmp_path, source="meds", root=meds)
    folders = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir() if path.is_dir()}
    assert len(folders) == len(NEEDED)
    read(tmp_path, source="meds", root=meds, threads=1)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir() if path.is_dir()} == folders


def test_provenance_says_how_many_files_and_no_path(meds, store):
    with opened_source(SourceConfig(cache=store, source="meds", mimic_root=meds), cohort.NEEDED) as opened:
        assert opened.files == {
            "meds": {
                "file": "data/**/*.parquet", "files": 2, "sha256": opened.files["meds"]["sha256"],
                "origin": "credentialed",
            }
        }  # fmt: skip
        assert len(opened.files["meds"]["sha256"]) == 64
        assert (opened.data_sources, opened.open_data) == (["credentialed"], False)


def _copied(meds: Path, tmp_path: Path, **dataset) -> Path:
    shutil.copytree(meds, tmp_path / "other")
    (tmp_path / "other/metadata/dataset.json").write_text(json.dumps(dataset))
    return tmp_path / "other"


@pytest.mark.parametrize(
    ("dataset", "what"),
    [({"meds_version": "0.3.3"}, "MEDS 0.3.3"), ({"meds_version": "0.41"}, "MEDS 0.41"), ({}, "no MEDS version")],
)
def test_another_version_is_refused(meds, tmp_path, dataset, what):
    folder = _copied(meds, tmp_path, **dataset)
    assert message(tmp_path, folder) == (
        f"{folder}/metadata/dataset.json says {what}; only 0.4 is read. Make the folder anew with a current MIMIC-IV "
        "MEDS extraction, or set task.source=mimic and task.mimic_root to the tables."
    )


def test_what_is_no_meds_folder_is_refused(meds, ward, tmp_path):
    assert message(tmp_path, tmp_path / "absent") == f"task.mimic_root: there is no folder {tmp_path}/absent."
    assert message(tmp_path, ward) == (
        f"{ward} is no MEDS folder: it has no metadata/dataset.json. A MEDS folder has data/ and metadata/ in it; for "
        "MIMIC-IV's own tables set task.source=mimic."
    )
    folder = _copied(meds, tmp_path, meds_version="0.4")
    (folder / "metadata/dataset.json").write_text("{")
    assert message(tmp_path, folder) == (
        f"{folder}/metadata/dataset.json cannot be read (JSONDecodeError), so its MEDS version is unknown."
    )
    shutil.copy(meds / "metadata/dataset.json", folder / "metadata")
    shutil.rmtree(folder / "data")
    assert message(tmp_path, folder) == f"{folder} is no MEDS folder: there is no parquet file in its data/."


def test_a_file_without_meds_s_columns_or_that_is_damaged_is_refused(meds, tmp_path):
    folder = _copied(meds, tmp_path, meds_version="0.4.0")
    shard = folder / "data/train/1.parquet"
    events = pyarrow.parquet.read_table(shard)
    wrong = events.drop_columns(["numeric_value"]).set_column(0, "subject_id", events["subject_id"].cast(pa.string()))
    pyarrow.parquet.write_table(wrong, shard)
    assert message(tmp_path, folder) == (
        f"{folder} is not MEDS 0.4: data/train/1.parquet has no column numeric_value, subject_id is string, not an "
        "integer."
    )
    shard.write_bytes(b"PAR1 no more")
    assert message(tmp_path, folder).startswith(f"{shard} cannot be read: it is no intact parquet file (")
    pyarrow.parquet.write_table(events, shard, row_group_size=1000)
    full = shard.read_bytes()
    shard.write_bytes(b"PAR1" + bytes(len(full) // 2) + full[4 + len(full) // 2 :])
    assert message(tmp_path, folder) == f"The MEDS folder {folder} has a file that is no intact parquet file."


def test_a_folder_without_intensive_care_is_refused(meds, tmp_path):
    folder = _copied(meds, tmp_path, meds_version="0.4.1")
    for shard in (folder / "data").rglob("*.parquet"):
        events = pyarrow.parquet.read_table(shard).to_pandas()
        pyarrow.parquet.write_table(pa.Table.from_pandas(events[~events["code"].str.startswith("ICU_")]), shard)
    assert message(tmp_path, folder) == (
        f"{folder} has no ICU_ADMISSION event. MEDS folders made from MIMIC-IV are read, with the codes of its public "
        "extraction."
    )


def test_what_meds_cannot_give_is_refused_by_name(bare, tmp_path):
    needed = {"hosp/omr": {"subject_id": "BIGINT"}, "icu/icustays": {"stay_id": "BIGINT", "hair": "VARCHAR"}}
    assert message(tmp_path, bare, needed) == (
        "MEDS has no table hosp/omr, no column hair in icu/icustays. Use task.source=mimic for a task that needs it."
    )
    folder = tmp_path / "plain"
    shutil.copytree(bare, folder)
    pyarrow.parquet.write_table(pa.table({"code": ["DIAGNOSIS//ICD//10//I10"]}), folder / "metadata/codes.parquet")
    assert message(tmp_path, folder, {"hosp/d_icd_diagnoses": {"long_title": "VARCHAR"}}) == (
        f"{folder} has no titles of diagnoses (metadata/codes.parquet). Add a root with hosp/d_icd_diagnoses to "
        "task.mimic_root, or set task.diagnoses=none."
    )


@pytest.mark.parametrize(("window_hours", "left"), [(24, (95, 71, 10)), (48, (67, 51, 9))])
@pytest.mark.parametrize("rewritten", [False, True])
def test_the_demo_in_meds_has_the_cohort_of_its_tables(demo, store, tmp_path, window_hours, left, rewritten):
    root = demo / "meds"
    if rewritten:
        events = pyarrow.parquet.read_table(next(root.glob("*.parquet"))).drop_columns(["table"])
        names = ["numeric_value" if name == "value" else name for name in events.column_names]
        root = tmp_path / "meds"
        (root / "data").mkdir(parents=True)
        (root / "metadata").mkdir()
        pyarrow.parquet.write_table(events.rename_columns(names), root / "data/0.parquet")
        (root / "metadata/dataset.json").write_text('{"meds_version": "0.4.1"}')
    with opened_source(SourceConfig(cache=store, source="meds", mimic_root=root), cohort.NEEDED) as opened:
        attrition = cohort.select(opened.con, IN_ICU, window_hours=window_hours, gap_hours=6).attrition
        assert opened.data_sources == ["credentialed" if rewritten else "open demo, rebuilt"]
    counts = [(row["stays"], row["patients"], row["events"]) for row in (attrition[0], attrition[-1])]
    assert counts == [(140, 100, 12), left]


def test_the_demo_in_meds_has_the_stays_and_deaths_of_its_tables(demo, store):
    query = """SELECT i.subject_id, i.intime, i.outtime, a.admittime, a.dischtime, a.deathtime, a.admission_type,
        a.hospital_expire_flag, p.gender, p.anchor_age + year(i.intime) - p.anchor_year, p.dod
        FROM icustays i JOIN admissions a USING (hadm_id) JOIN patients p ON p.subject_id = i.subject_id ORDER BY ALL"""
    loaded = []
    for root, kind in ((demo / "meds", "meds"), (demo, "mimic")):
        needed = {name: SERVED[name] for name in ("hosp/patients", "hosp/admissions", "icu/icustays")}
        with opened_source(SourceConfig(cache=store, source=kind, mimic_root=root), needed) as opened:
            loaded.append(opened.con.execute(query).fetchall())
    assert len(loaded[0]) == 140
    assert loaded[0] == loaded[1]


def test_the_known_repack_is_known_by_its_hash(demo, tmp_path):
    root = tmp_path / "repack"
    root.mkdir()
    path = Path(shutil.copy(next((demo / "meds").glob("*.parquet")), root))
    assert sha256(path) in tables.open_demo()["meds"]
    read(tmp_path, source="meds", root=root)
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes() + b" ")
    assert message(tmp_path, root).startswith(f"{root} is no MEDS folder: it has no metadata/dataset.json.")
