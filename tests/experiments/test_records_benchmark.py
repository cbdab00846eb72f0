import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from experiments.benchmarks import records, records_pandas, records_stages
from patientdx.records import convert
from patientdx.records.synthetic.hospital import hospital


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A hospital of 120 eligible stays as csv.gz."""
    return hospital(tmp_path_factory.mktemp("hospitals"), stays=120, seed=1, form="csv.gz")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def stage(capsys, module, *words: object) -> dict:
    module.main([str(word) for word in words])
    return json.loads(capsys.readouterr().out)


def test_pandas_and_ours_choose_the_same_stays_and_find_the_same_means(root, cache, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.parquet", tmp_path / "pandas.parquet"
    result = stage(capsys, records_stages, "features", "--root", root, "--cache", cache, "--means", ours)
    pandas = stage(capsys, records_pandas, "--root", root, "--means", theirs)
    assert result["stays"] == pandas["stays"] > 100
    apart = records._agreement(ours, theirs)
    assert len(set(apart["readings"])) == 1
    assert apart["readings"][0] > 1000
    assert apart["apart"] < 1e-4  # ours sums decimals of four places
    assert pandas["seconds"] == pytest.approx(pandas["features"] + pandas["text"])


def test_agreement_counts_what_one_has_alone(tmp_path):
    columns = {"stay_id": [1, 1, 2], "name": ["a", "b", "a"], "mean": [1.0, 2.0, 3.0]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "one")
    pyarrow.parquet.write_table(pa.table(columns | {"stay_id": [1, 1, 3], "mean": [1.0, 2.5, 9.0]}), tmp_path / "two")
    assert records._agreement(tmp_path / "one", tmp_path / "two") == {"readings": [3, 3, 2], "apart": 0.2}


def test_every_stage_of_ours_counts_the_same_stays(root, cache, capsys, monkeypatch):
    monkeypatch.setattr(convert, "CONVERT_FROM", 10_000)
    same = ("--root", root, "--cache", cache)
    converted = stage(capsys, records_stages, "convert", *same)
    assert converted["rows"] > 20_000
    assert converted["bytes"] > 100_000
    stays = [stage(capsys, records_stages, name, *same)["stays"] for name in ("cohort", "text", "task")]
    assert len(set(stays)) == 1


def test_stays_become_text_and_tokens(root, cache, tiny_base, capsys):
    same = ("--root", root, "--cache", cache, "--stays", 7, "--tokenizer", tiny_base)
    result = stage(capsys, records_stages, "tokens", *same)
    assert result["stays"] == 7
    assert result["tokens"] > 7 * 50
    longer = stage(capsys, records_stages, "tokens", *same, "--template", "narrative")
    assert longer["tokens"] != result["tokens"]
    assert result["seconds"] == pytest.approx(result["text_seconds"] + result["token_seconds"], abs=0.01)


def test_a_hospital_is_made_of_so_many_stays(tmp_path, capsys):
    result = stage(capsys, records_stages, "make", "--root", tmp_path, "--stays", 5)
    assert list(tmp_path.glob("synthetic/*/icu/chartevents.csv.gz"))
    assert result["folder"].startswith(str(tmp_path))


def _row(rows: int, stage: str, seconds: float, peak: int, **more) -> dict:
    return {
        "rows": rows,
        "stage": stage,
        "seconds": seconds,
        "cpu": 2 * seconds,
        "peak": peak << 20,
        "stays": rows // 100,
        "template": "",
    } | more


ROWS = [
    *(
        _row(1000, name, seconds, 100)
        for name, seconds in zip(records.OURS, (4.0, 5.0, 0.5, 1.0, 2.0, 3.0), strict=True)
    ),
    _row(1000, "pandas", 15.0, 400, readings=[9, 8, 7], apart=2e-7),
    *(
        _row(10_000, name, seconds, 110)
        for name, seconds in zip(records.OURS, (40, 55, 0.5, 8.5, 20.0, 9.0), strict=True)
    ),
]


def test_ratios_are_those_of_seconds_with_and_without_the_conversion():
    assert records.comparison(ROWS) == [
        "1,000 rows: cohort, features and text: pandas 15.0 s, ours 3.0 s (5.0 times faster), with the conversion "
        "7.0 s (2.1 times); CPU: pandas 30.0 s, ours with the conversion 14.0 s",
        "1,000 rows: memory: pandas 400 MiB, ours 100 MiB; readings of both / ours / pandas 7 / 9 / 8, means at most "
        "2.0e-07 apart",
    ]


def test_growth_is_projected_along_a_straight_line():
    lines = {line.split()[0]: line for line in records.growth(ROWS)}
    assert list(lines) == list(records.OURS)
    seconds = 40 + 36 / 9000 * (432_997_491 - 10_000)
    assert lines["convert"] == (
        f"convert   rows x10.0: seconds x10.0, memory x1.10; MIMIC-IV 3.1 (432,997,491 rows): {seconds:,.0f} s"
    )
    assert lines["cohort"].endswith("seconds x1.0, memory x1.10; MIMIC-IV 3.1 (432,997,491 rows): 0 s")
    assert records.growth(ROWS[:7]) == []


def test_arguments_are_parsed():
    args = records._arguments(["--rows", "5", "7", "--memory", "1GB"])
    assert (args.rows, args.memory, args.pandas_rows) == ([5, 7], "1GB", 30_500_000)


def test_a_run_prints_every_stage(tmp_path, capsys, tiny_base):
    words = "--rows 150000 --unread 0 --token-stays 5 --threads 1"
    records.main([*words.split(), "--work", str(tmp_path), "--tokenizer", str(tiny_base)])
    output = capsys.readouterr().out
    for name in (
        "convert",
        "tight",
        "cohort",
        "features",
        "text",
        "task",
        "pandas",
        "tokens intervals/1",
        "tokens intervals/2",
        "tokens narrative/1",
    ):
        assert f"  {name} " in output
    assert "times faster" in output
    assert (tmp_path / "synthetic").is_dir()
    assert not (tmp_path / "cache").exists()
