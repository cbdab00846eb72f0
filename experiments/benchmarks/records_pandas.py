"""Cohort, features and text as they are made with pandas: whole csv.gz files, merge, filter, groupby.

Only the columns in need are read and nothing loops over rows but the text, which is more careful than much that is
published. It gives what our default does: the same stays, and the same mean of every reading.

python -m experiments.benchmarks.records_pandas --root hospital
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from patientdx.records import concepts

WINDOW, GAP = 48, 6


def main(words: list[str] | None = None) -> None:
    """Print the seconds of each part and the number of stays as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--means", type=Path, help="where to write the means of the readings")
    asked = parser.parse_args(words)
    start = time.perf_counter()
    stays = cohort(asked.root)
    chosen = time.perf_counter()
    readings = charted(asked.root, stays)
    drugs, procedures, urine = events(asked.root, stays)
    counted = time.perf_counter()
    texts = written(stays, readings, drugs, procedures, urine)
    end = time.perf_counter()
    if asked.means is not None:
        readings.reset_index()[["stay_id", "name", "mean"]].to_parquet(asked.means)
    said = {"cohort": chosen - start, "features": counted - start, "text": end - counted, "seconds": end - start}
    print(json.dumps(said | {"stays": len(stays), "characters": sum(map(len, texts))}))


def _read(root: Path, name: str, columns: list[str], times: list[str]) -> pd.DataFrame:
    return pd.read_csv(root / f"{name}.csv.gz", usecols=columns, parse_dates=times)


def cohort(root: Path) -> pd.DataFrame:
    """One row a stay: adult, long enough, alive until the gap's end; with its label."""
    stays = _read(
        root, "icu/icustays", ["subject_id", "hadm_id", "stay_id", "intime", "outtime"], ["intime", "outtime"]
    )
    people = _read(root, "hosp/patients", ["subject_id", "gender", "anchor_age", "anchor_year", "dod"], ["dod"])
    admissions = _read(root, "hosp/admissions", ["hadm_id", "deathtime", "race", "insurance"], ["deathtime"])
    whole = stays.merge(people, on="subject_id").merge(admissions, on="hadm_id")
    whole["age"] = whole["anchor_age"] + whole["intime"].dt.year - whole["anchor_year"]
    whole["prediction_time"] = whole["intime"] + pd.Timedelta(hours=WINDOW)
    target = whole["prediction_time"] + pd.Timedelta(hours=GAP)
    death = whole["deathtime"].fillna(whole["dod"])
    whole["label"] = ((death >= whole["intime"]) & (death <= whole["outtime"])).astype(int)
    by_day = whole["deathtime"].isna() & (whole["dod"] < target.dt.normalize())
    long_enough = whole["outtime"] - whole["intime"] >= pd.Timedelta(hours=WINDOW + GAP)
    return whole[(whole["age"] >= 18) & long_enough & ~(whole["deathtime"] < target) & ~by_day]


def charted(root: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """Mean, first, last, minimum, maximum and count by stay and reading."""
    chart = _read(root, "icu/chartevents", ["stay_id", "charttime", "itemid", "valuenum"], ["charttime"])
    chart = chart.merge(stays[["stay_id", "intime", "prediction_time"]], on="stay_id")
    chart = chart[(chart["charttime"] >= chart["intime"]) & (chart["charttime"] < chart["prediction_time"])]
    dictionary = pd.DataFrame([vars(item) for item in concepts.items()])
    chart = chart.merge(dictionary, on="itemid")
    chart["value"] = chart["valuenum"] * chart["scale"] + chart["offset"]
    chart = chart[(chart["value"] >= chart["minimum"]) & (chart["value"] <= chart["maximum"])]
    chart = chart.sort_values("charttime", kind="stable")
    parts = chart.groupby(["stay_id", "name", "part", "parts"])["value"].agg(
        ["mean", "first", "last", "min", "max", "count"]
    )
    whole = parts.reset_index().groupby(["stay_id", "name", "parts"])
    summed, kinds = whole[["mean", "first", "last", "min", "max", "count"]].sum(), whole.size()
    return summed[kinds == summed.index.get_level_values("parts")].reset_index("parts", drop=True)


def events(root: Path, stays: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Names of drugs and procedures by stay, the most frequent first, and urine in mL."""
    dictionary = _read(root, "icu/d_items", ["itemid", "label", "category", "linksto"], [])
    found = []
    for kind, table in (("drug", "inputevents"), ("procedure", "procedureevents")):
        rows = _read(root, f"icu/{table}", ["stay_id", "starttime", "itemid"], ["starttime"])
        rows = rows.merge(stays[["stay_id", "intime", "prediction_time"]], on="stay_id")
        rows = rows[(rows["starttime"] >= rows["intime"]) & (rows["starttime"] < rows["prediction_time"])]
        entries = dictionary[dictionary["linksto"] == table]
        names = concepts.short_names(kind, entries[["itemid", "label", "category"]].itertuples(index=False, name=None))
        rows["name"] = rows["itemid"].map(names)
        counts = rows.dropna(subset="name").groupby(["stay_id", "name"]).size().reset_index(name="count")
        counts = counts.sort_values(["stay_id", "count", "name"], ascending=[True, False, True])
        found.append(counts.groupby("stay_id")["name"].agg(list))
    output = _read(root, "icu/outputevents", ["stay_id", "charttime", "itemid", "value"], ["charttime"])
    output = output.merge(stays[["stay_id", "intime", "prediction_time"]], on="stay_id")
    output = output[(output["charttime"] >= output["intime"]) & (output["charttime"] < output["prediction_time"])]
    output["amount"] = output["value"] * output["itemid"].map(concepts.urine())
    return (*found, output.dropna(subset="amount").groupby("stay_id")["amount"].sum())


def written(
    stays: pd.DataFrame, readings: pd.DataFrame, drugs: pd.Series, procedures: pd.Series, urine: pd.Series
) -> list[str]:
    """One text a stay, a line for each reading."""
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
