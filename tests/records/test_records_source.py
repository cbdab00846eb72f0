import json

import pytest
from source_rows import NEEDED, read

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records import source
from patientdx.records.source import SourceConfig, opened_source


def refused(cache, **asked) -> str:
    with pytest.raises(UserError) as loaded:
        read(cache, **asked)
    return str(loaded.value)


def test_without_a_root_the_source_is_the_synthetic_hospital(store, ward):
    with opened_source(SourceConfig(cache=store, synthetic={"stays": 150, "seed": 3}), NEEDED) as opened:
        assert opened.data_sources == ["synthetic hospital"]
        assert opened.open_data
        views = opened.con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        assert {name for (name,) in views} == {name.split("/")[1] for name in NEEDED}
        described = opened.con.execute("DESCRIBE icustays").fetchall()
        assert {row[0]: row[1] for row in described} == NEEDED["icu/icustays"]
        assert set(opened.files) == set(NEEDED)
        for name, fact in opened.files.items():
            assert fact["file"] == f"{name}.parquet"
            assert fact["sha256"] == sha256(ward / fact["file"])
        assert str(store) not in json.dumps(opened.files)
    assert read(store, synthetic={"stays": 150, "seed": 3}) == read(store, root=ward)


def test_one_credentialed_table_makes_the_source_credentialed(spoil, store):
    root = spoil("icu/d_items", lambda text: text.replace(b"Heart Rate", b"Heart rate"))
    with opened_source(SourceConfig(cache=store, mimic_root=root), NEEDED) as opened:
        assert opened.data_sources == ["credentialed", "synthetic hospital"]
        assert not opened.open_data


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"source": "omop"}, "task.source='omop': choose mimic or meds."),
        (
            {"source": "meds"},
            "task.source=meds needs task.mimic_root: the MEDS folder, with data/ and metadata/ in it.",
        ),
    ],
)
def test_what_makes_no_source_is_refused_before_anything_is_written(tmp_path, asked, expected):
    assert refused(tmp_path, **asked) == expected
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_in_the_spill_folder_and_what_a_killed_process_left_is_removed(ward, tmp_path):
    left = tmp_path / "spill/duckdb.dead"
    left.mkdir(parents=True)
    (left / "block.tmp").write_bytes(b"rows of patients")
    (tmp_path / "spill/duckdb.dead.lock").touch()
    with opened_source(SourceConfig(cache=tmp_path, mimic_root=ward), NEEDED):
        with opened_source(SourceConfig(cache=tmp_path, mimic_root=ward), NEEDED):
            folders = [path for path in (tmp_path / "spill").iterdir() if path.is_dir()]
            assert len(folders) == 2
            assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
        assert not left.exists()
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_spill_folder_that_cannot_be_made_is_refused(ward, tmp_path):
    (tmp_path / "spill").write_text("a file in the way")
    assert refused(tmp_path, root=ward) == (
        f"DuckDB cannot write what exceeds task.memory_limit to {tmp_path}/spill: File exists. "
        "Free some space there, or set cache=… (or PATIENTDX_CACHE) to a folder on another disk."
    )


def test_the_hash_of_a_large_file_is_remembered_until_the_file_changes(ward_csv, tmp_path, monkeypatch):
    path = ward_csv / "icu/d_items.csv.gz"
    assert source._digest(path, tmp_path) == sha256(path)
    assert not (tmp_path / "hashes").exists()
    monkeypatch.setattr(source, "CONVERT_FROM", 1)
    large = tmp_path / "large"
    large.write_bytes(b"one")
    assert source._digest(large, tmp_path) == sha256(large)
    assert len(list((tmp_path / "hashes").iterdir())) == 1
    large.write_bytes(b"another")
    assert source._digest(large, tmp_path) == sha256(large)
