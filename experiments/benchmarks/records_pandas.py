"""Cohort, features and text as they are made with pandas: whole csv.gz files, merge, filter, groupby.

Only the columns in use are read and only the text loops over rows, which is more careful than much published code. It
gives the same as our default: the same stays, and the same mean of every reading.

python -m experiments.benchmarks.records_pandas --root hospital
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmarks import harness
from patientdx.records import concept_table, concepts

WINDOW, GAP = 48, 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds of each part and the number of stays as JSON."""
    parser = harness.parser(__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--means", type=Path, help="where to write the means of the readings")
    args = parser.parse_args(arguments)
    start, used = time.perf_counter(), time.process_time()
    stays = cohort(args.root)
    chosen = time.perf_counter()
    readings = charted(args.root, stays)
    drugs, procedures, urine = events(args.root, stays)
    counted = time.perf_counter()
    texts = write(stays, readings, drugs, procedures, urine)
    end, cpu = time.perf_counter(), time.process_time() - used
    if args.means is not None:
        readings.reset_index()[["stay_id", "name", "mean"]].to_parquet(args.means)
    seconds = {"cohort": chosen - start, "features": counted - start, "text": end - counted, "seconds": end - start}
    print(json.dumps(seconds | {"cpu": cpu, "stays": len(stays), "characters": sum(map(len, texts))}))


def _read(root: Path, name: str, columns: list[str], times: list[str]) -> pd.DataFrame:
    return pd.read_csv(root / f"{name}.csv.gz", usecols=columns, parse_dates=times)


def _in_window(rows: pd.DataFrame, stays: pd.DataFrame, time: str) -> pd.DataFrame:
    """The rows of the stays with `time` between admission and prediction."""
    rows = rows.merge(stays[["stay_id", "intime", "prediction_time"]], on="stay_id")
    return rows[(rows[time] >= rows["intime"]) & (rows[time] < rows["prediction_time"])]


def cohort(root: Path) -> pd.DataFrame:
    """One row per stay: adult, long enough, alive until the gap's end; with its label."""
    columns = ["subject_id", "hadm_id", "stay_id", "first_careunit", "intime", "outtime"]
    stays = _read(root, "icu/icustays", columns, ["intime", "outtime"])
    stepdown = [row["careunit"] for row in concept_table.rows("stepdown_units.csv")]
    stays = stays[~stays["first_careunit"].isin(stepdown)]
    people = _read(root, "hosp/patients", ["subject_id", "gender", "anchor_age", "anchor_year", "dod"], ["dod"])
    admissions = _read(root, "hosp/admissions", ["hadm_id", "deathtime", "race", "insurance"], ["deathtime"])
    cohort = stays.merge(people, on="subject_id").merge(admissions, on="hadm_id")
    cohort["age"] = cohort["anchor_age"] + cohort["intime"].dt.year - cohort["anchor_year"]
    cohort["prediction_time"] = cohort["intime"] + pd.Timedelta(hours=WINDOW)
    target = cohort["prediction_time"] + pd.Timedelta(hours=GAP)
    death = cohort["deathtime"].fillna(cohort["dod"])
    cohort["label"] = ((death >= cohort["intime"]) & (death <= cohort["outtime"])).astype(int)
    by_day = cohort["deathtime"].isna() & (cohort["dod"] < target.dt.normalize())
    long_enough = cohort["outtime"] - cohort["intime"] >= pd.Timedelta(hours=WINDOW + GAP)
    return cohort[(cohort["age"] >= 18) & long_enough & ~(cohort["deathtime"] < target) & ~by_day]


def charted(root: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """Mean, first, last, minimum, maximum and count by stay and reading."""
    chart = _read(root, "icu/chartevents", ["stay_id", "charttime", "itemid", "valuenum"], ["charttime"])
    chart = _in_window(chart, stays, "charttime")
    dictionary = pd.DataFrame([vars(item) for item in concepts.items()])
    chart = chart.merge(dictionary, on="itemid")
    chart["value"] = chart["valuenum"] * chart["scale"] + chart["offset"]
    chart = chart[(chart["value"] >= chart["minimum"]) & (chart["value"] <= chart["maximum"])]
    chart = chart.sort_values("charttime", kind="stable")
    parts = chart.groupby(["stay_id", "name", "part", "parts"])["value"].agg(
        ["mean", "first", "last", "min", "max", "count"]
    )
    readings = parts.reset_index().groupby(["stay_id", "name", "parts"])
    summed, kinds = readings[["mean", "first", "last", "min", "max", "count"]].sum(), readings.size()
    return summed[kinds == summed.index.get_level_values("parts")].reset_index("parts", drop=True)


def events(root: Path, stays: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Names of drugs and procedures by stay, the most frequent first, and urine in mL."""
    dictionary = _read(root, "icu/d_items", ["itemid", "label", "category", "linksto"], [])
    names_by_stay = []
    for kind, table in (("drug", "inputevents"), ("procedure", "procedureevents")):
        rows = _read(root, f"icu/{table}", ["stay_id", "starttime", "itemid"], ["starttime"])
        rows = _in_window(rows, stays, "starttime")
        entries = dictionary[dictionary["linksto"] == table]
        names = concepts.short_names(kind, entries[["itemid", "label", "category"]].itertuples(index=False, name=None))
        rows["name"] = rows["itemid"].map(names)
        counts = rows.dropna(subset="name").groupby(["stay_id", "name"]).size().reset_index(name="count")
        counts = counts.sort_values(["stay_id", "count", "name"], ascending=[True, False, True])
        names_by_stay.append(counts.groupby("stay_id")["name"].agg(list))
    output = _read(root, "icu/outputevents", ["stay_id", "charttime", "itemid", "value"], ["charttime"])
    output = _in_window(output, stays, "charttime")
    output["amount"] = output["value"] * output["itemid"].map(concepts.urine())
    return (*names_by_stay, output.dropna(subset="amount").groupby("stay_id")["amount"].sum())


def write(
    stays: pd.DataFrame, readings: pd.DataFrame, drugs: pd.Series, procedures: pd.Series, urine: pd.Series
) -> list[str]:
    """One text per stay, a line for each reading."""
    means = readings["mean"].reset_index()
    lines = {stay: list(zip(group["name"], group["mean"], strict=True)) for stay, group in means.groupby("stay_id")}
    texts = []
    for stay, age, gender in stays[["stay_id", "age", "gender"]].itertuples(index=False, name=None):
        text = [f"Age {age}, {gender}."]
        for name, mean in lines.get(stay, ()):
            item = concepts.readings()[name]
            text.append(f"{name} {mean:.{item.decimals}f} ({item.low}-{item.high}) {item.unit}")
        text += [f"Drugs: {', '.join(drugs.get(stay, []))}", f"Procedures: {', '.join(procedures.get(stay, []))}"]
        amount = urine.get(stay, np.nan)
        texts.append("\n".join(text + ([] if np.isnan(amount) else [f"Urine output {amount:.0f} mL"])))
    return texts


if __name__ == "__main__":
    main()
