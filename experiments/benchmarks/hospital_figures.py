"""The synthetic hospital beside the open MIMIC-IV demo: figures of both, and what 140 stays leave to chance.

    PATIENTDX_SHARED=<folder with data/mimic-iv-demo> python -m experiments.benchmarks.hospital_figures

Each figure is computed by the same queries from the tables of both. The interval is that of 95 % of samples of the
synthetic hospital which are as large as the demo (100 patients, about 140 stays): a demo drawn from this hospital would
lie in it. Readings are the mean of a stay's first 48 hours. The demo's chartevents and inputevents are rebuilt from its
MEDS events (numbers, no words and no units).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from experiments.benchmarks import harness
from patientdx.core.errors import UserError
from patientdx.records import tables
from patientdx.records.synthetic.hospital import hospital

PATIENTS = 100  # of the demo
SAMPLES = 1000
NEEDED: tables.Needed = {
    "hosp/patients": {"subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER"},
    "hosp/admissions": {
        "hadm_id": "BIGINT", "admittime": "TIMESTAMP", "deathtime": "TIMESTAMP", "admission_type": "VARCHAR",
        "hospital_expire_flag": "INTEGER",
    },
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "first_careunit": "VARCHAR",
        "intime": "TIMESTAMP", "outtime": "TIMESTAMP",
    },
    "icu/chartevents": {"stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE"},
    "icu/inputevents": {"stay_id": "BIGINT", "itemid": "INTEGER"},
    "icu/procedureevents": {
        "stay_id": "BIGINT", "itemid": "INTEGER", "starttime": "TIMESTAMP", "endtime": "TIMESTAMP",
    },
    "icu/outputevents": {
        "stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "value": "DOUBLE",
    },
}  # fmt: skip
READINGS = {
    "heart": (220045,), "pressure": (220181,), "systolic": (220179,), "diastolic": (220180,), "breaths": (220210,),
    "spo2": (220277,), "warm": (223761,), "eye": (220739,), "motor": (223901,), "creatinine": (220615,),
    "urea": (225624,), "sodium": (220645,), "potassium": (227442,), "bicarbonate": (227443,), "gap": (227073,),
    "phosphate": (225677,), "glucose": (220621,), "magnesium": (220635,), "white": (220546,), "hemoglobin": (220228,),
    "platelets": (227457,), "inr": (227467,), "lactate": (225668,), "bilirubin": (225690,), "alt": (220644,),
    "ast": (220587,), "albumin": (227456,), "ph": (223830,), "pco2": (220235,), "po2": (220224,), "fio2": (223835,),
}  # fmt: skip
VENTILATION, PRESSORS, URINE = 225792, (221906, 221289, 222315, 221749, 221662), (226559, 226560, 226561, 226563)
Stays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Figure:
    """One figure of a set of stays; `decimals` of its printed value."""

    name: str
    of: Callable[[Stays], float]
    decimals: int = 2


def read_stays(roots: Sequence[Path], cache: Path) -> Stays:
    """One entry a stay: who, where, how long, how it ended, support, and the mean of each reading (NaN: none)."""
    located = tables.find(roots, NEEDED)
    columns = ", ".join(
        f"avg(valuenum) FILTER (itemid IN ({', '.join(map(str, items))})) AS {name}" for name, items in READINGS.items()
    )
    early = "charttime >= intime AND charttime < intime + to_hours(48)"
    hours = "epoch({} - {}) / 3600"
    query = f"""
    WITH charted AS (SELECT stay_id, {columns} FROM chartevents JOIN icustays USING (stay_id) WHERE {early} GROUP BY 1),
    urine AS (
        SELECT stay_id, sum(value) AS urine FROM outputevents JOIN icustays USING (stay_id)
        WHERE itemid IN {URINE} AND charttime >= intime AND charttime < intime + to_hours(24) GROUP BY 1),
    tube AS (
        SELECT stay_id, sum({hours.format("endtime", "starttime")}) AS tube_hours FROM procedureevents
        WHERE itemid = {VENTILATION} GROUP BY 1)
    SELECT i.subject_id, p.anchor_age + year(intime) - p.anchor_year AS age, p.gender = 'M' AS male,
        i.first_careunit AS unit, a.admission_type AS type, {hours.format("outtime", "intime")} AS los,
        {hours.format("intime", "admittime")} AS before, a.hospital_expire_flag = 1 AS died,
        coalesce(deathtime BETWEEN intime AND outtime, false) AS died_in_unit,
        {hours.format("outtime", "deathtime")} AS bed, {hours.format("deathtime", "intime")} AS until_death,
        stay_id IN (SELECT stay_id FROM tube) AS ventilated, tube_hours,
        stay_id IN (SELECT stay_id FROM inputevents WHERE itemid IN {PRESSORS}) AS pressors,
        CASE WHEN {hours.format("outtime", "intime")} >= 24 THEN urine END AS urine, charted.* EXCLUDE (stay_id)
    FROM icustays i JOIN patients p USING (subject_id) JOIN admissions a USING (hadm_id)
    LEFT JOIN charted USING (stay_id) LEFT JOIN urine USING (stay_id) LEFT JOIN tube USING (stay_id)
    WHERE age >= 18 ORDER BY i.subject_id, intime"""
    with tables.opened(located, NEEDED, memory_limit="2GB", threads=None, spill=cache / "spill") as con:
        read = con.execute(query).fetchnumpy()
    return {name: _plain(column) for name, column in read.items()}


def _plain(column: np.ndarray) -> np.ndarray:
    """Without a mask: numbers have NaN where nothing is known."""
    if not isinstance(column, np.ma.MaskedArray):
        return column
    return column.filled("") if column.dtype == object else column.astype(float).filled(np.nan)


def _subset(stays: Stays, rows: np.ndarray) -> Stays:
    return {name: column[rows] for name, column in stays.items()}


def _where(stays: Stays, test: Callable[[Stays], np.ndarray] | None) -> np.ndarray:
    return np.ones(len(stays["age"]), bool) if test is None else test(stays).astype(bool)


def share(of: str, test: Callable[[Stays], np.ndarray] | None = None) -> Callable[[Stays], float]:
    """Percent of the stays in `test` that are `of`."""

    def figure(stays: Stays) -> float:
        rows = _where(stays, test)
        return 100 * float(stays[of][rows].mean()) if rows.any() else np.nan

    return figure


def measured(reading: str, test: Callable[[Stays], np.ndarray] | None = None) -> Callable[[Stays], float]:
    """Percent of the stays in `test` that have the reading in their first 48 hours."""

    def figure(stays: Stays) -> float:
        rows = _where(stays, test)
        return 100 * float(np.isfinite(stays[reading][rows]).mean()) if rows.any() else np.nan

    return figure


def quantile(of: str, level: float, test: Callable[[Stays], np.ndarray] | None = None) -> Callable[[Stays], float]:
    """A quantile over the stays in `test` that have a value."""

    def figure(stays: Stays) -> float:
        values = stays[of][_where(stays, test)]
        values = values[np.isfinite(values)]
        return float(np.quantile(values, level)) if len(values) else np.nan

    return figure


def correlation(one: str, other: str, by_rank: bool = False) -> Callable[[Stays], float]:
    """Pearson's correlation, or Spearman's of skewed readings, over stays that have both."""

    def figure(stays: Stays) -> float:
        both = np.isfinite(stays[one]) & np.isfinite(stays[other])
        if both.sum() < 3:
            return np.nan
        pair = stays[one][both], stays[other][both]
        return float(np.corrcoef(*(map(rankdata, pair) if by_rank else pair))[0, 1])

    return figure


def _planned(stays: Stays) -> np.ndarray:
    return np.isin(stays["type"].astype(str), ("ELECTIVE", "SURGICAL SAME DAY ADMISSION"))


def _in_unit(*parts: str) -> Callable[[Stays], np.ndarray]:
    return lambda stays: np.array([any(part in unit for part in parts) for unit in stays["unit"].astype(str)])


def _died(stays: Stays) -> np.ndarray:
    return stays["died"]


def _ventilated(stays: Stays) -> np.ndarray:
    return stays["ventilated"]


def _breathing(stays: Stays) -> np.ndarray:
    return ~stays["ventilated"].astype(bool)


FIGURES = (
    Figure("correlation: creatinine, urea", correlation("creatinine", "urea")),
    Figure("correlation: pH, PCO2", correlation("ph", "pco2")),
    Figure("correlation: pH, bicarbonate", correlation("ph", "bicarbonate")),
    Figure("correlation: PCO2, bicarbonate", correlation("pco2", "bicarbonate")),
    Figure("correlation: SpO2, PO2", correlation("spo2", "po2")),
    Figure("correlation: lactate, bicarbonate", correlation("lactate", "bicarbonate", by_rank=True)),
    Figure("correlation: lactate, pH", correlation("lactate", "ph", by_rank=True)),
    Figure("correlation: anion gap, bicarbonate", correlation("gap", "bicarbonate")),
    Figure("correlation: creatinine, potassium", correlation("creatinine", "potassium", by_rank=True)),
    Figure("correlation: creatinine, phosphate", correlation("creatinine", "phosphate", by_rank=True)),
    Figure("correlation: ALT, AST (ranks)", correlation("alt", "ast", by_rank=True)),
    Figure("correlation: bilirubin, INR (ranks)", correlation("bilirubin", "inr", by_rank=True)),
    Figure("correlation: bilirubin, platelets (ranks)", correlation("bilirubin", "platelets", by_rank=True)),
    Figure("correlation: systolic, diastolic pressure", correlation("systolic", "diastolic")),
    Figure("correlation: heart rate, respiratory rate", correlation("heart", "breaths")),
    Figure("death in the ICU, % of stays", share("died_in_unit"), 1),
    Figure("death in hospital, % of stays", share("died"), 1),
    Figure("death in hospital, under 45 years, %", share("died", lambda s: s["age"] < 45), 1),
    Figure("death in hospital, 45 to 64, %", share("died", lambda s: (s["age"] >= 45) & (s["age"] < 65)), 1),
    Figure("death in hospital, 65 to 79, %", share("died", lambda s: (s["age"] >= 65) & (s["age"] < 80)), 1),
    Figure("death in hospital, 80 and over, %", share("died", lambda s: s["age"] >= 80), 1),
    Figure("death in hospital, planned admission, %", share("died", _planned), 1),
    Figure("death in hospital, other admission, %", share("died", lambda s: ~_planned(s)), 1),
    Figure("death in hospital, cardiac surgery unit, %", share("died", _in_unit("CVICU")), 1),
    Figure("death in hospital, coronary unit, %", share("died", _in_unit("CCU")), 1),
    Figure("death in hospital, medical units, %", share("died", _in_unit("MICU")), 1),
    Figure("death in hospital, surgical and trauma units, %", share("died", _in_unit("(SICU)", "TSICU")), 1),
    Figure("death in hospital, ventilated, %", share("died", _ventilated), 1),
    Figure("death in hospital, not ventilated, %", share("died", _breathing), 1),
    Figure("death in hospital, with vasopressor, %", share("died", lambda s: s["pressors"]), 1),
    Figure("hospital deaths that are in the ICU, %", share("died_in_unit", _died), 1),
    Figure("death to leaving the bed, median h", quantile("bed", 0.5, lambda s: s["died_in_unit"]), 1),
    Figure("ICU admission to death in hospital, median h", quantile("until_death", 0.5, _died), 0),
    Figure("length of stay, 5th percentile, h", quantile("los", 0.05), 1),
    Figure("length of stay, 25th percentile, h", quantile("los", 0.25), 1),
    Figure("length of stay, median, h", quantile("los", 0.5), 1),
    Figure("length of stay, 75th percentile, h", quantile("los", 0.75), 0),
    Figure("length of stay, 95th percentile, h", quantile("los", 0.95), 0),
    Figure("stays under 24 h, %", lambda s: 100 * float((s["los"] < 24).mean()), 1),
    Figure("length of stay, ventilated, median h", quantile("los", 0.5, _ventilated), 0),
    Figure("length of stay, not ventilated, median h", quantile("los", 0.5, _breathing), 0),
    Figure("length of stay, dead in hospital, median h", quantile("los", 0.5, _died), 0),
    Figure("age, mean", lambda s: float(s["age"].mean()), 1),
    Figure("men, %", share("male"), 1),
    Figure("in hospital before the ICU, median h", quantile("before", 0.5), 1),
    Figure("in hospital before the ICU, 90th percentile, h", quantile("before", 0.9), 0),
    Figure("planned admissions, %", lambda s: 100 * float(_planned(s).mean()), 1),
    Figure("medical units, %", lambda s: 100 * float(_in_unit("MICU")(s).mean()), 1),
    Figure("invasively ventilated, %", share("ventilated"), 1),
    Figure("ventilation, median h", quantile("tube_hours", 0.5), 0),
    Figure("with vasopressor, %", share("pressors"), 1),
    Figure("with vasopressor, ventilated, %", share("pressors", _ventilated), 1),
    Figure("with vasopressor, not ventilated, %", share("pressors", _breathing), 1),
    Figure("urine in 24 h, 10th percentile, mL", quantile("urine", 0.1), 0),
    Figure("urine in 24 h, median, mL", quantile("urine", 0.5), 0),
    Figure("urine in 24 h, 90th percentile, mL", quantile("urine", 0.9), 0),
    Figure("inspired oxygen charted, ventilated, %", measured("fio2", _ventilated), 1),
    Figure("lactate measured, %", measured("lactate"), 1),
    Figure("lactate measured, ventilated, %", measured("lactate", _ventilated), 1),
    Figure("lactate measured, not ventilated, %", measured("lactate", _breathing), 1),
    Figure("bilirubin measured, %", measured("bilirubin"), 1),
    Figure("bilirubin measured, dead in hospital, %", measured("bilirubin", _died), 1),
    Figure("bilirubin measured, ventilated, %", measured("bilirubin", _ventilated), 1),
    Figure("gases measured, ventilated, %", measured("po2", _ventilated), 1),
    Figure("gases measured, not ventilated, %", measured("po2", _breathing), 1),
    Figure("albumin measured, %", measured("albumin"), 1),
    *(
        Figure(f"{label}, {which}", quantile(name, level), decimals)
        for name, label, decimals in (
            ("heart", "heart rate, bpm", 0), ("pressure", "mean pressure by cuff, mmHg", 0),
            ("breaths", "respiratory rate, /min", 1), ("spo2", "SpO2, %", 1), ("warm", "temperature, °F", 1),
            ("eye", "coma scale, eye", 1), ("motor", "coma scale, motor", 1), ("creatinine", "creatinine, mg/dL", 2),
            ("urea", "urea nitrogen, mg/dL", 0), ("sodium", "sodium, mmol/L", 0),
            ("potassium", "potassium, mmol/L", 1), ("bicarbonate", "bicarbonate, mmol/L", 1),
            ("gap", "anion gap, mmol/L", 1), ("glucose", "glucose, mg/dL", 0), ("magnesium", "magnesium, mg/dL", 1),
            ("phosphate", "phosphate, mg/dL", 1), ("white", "white cells, K/uL", 1),
            ("hemoglobin", "hemoglobin, g/dL", 1), ("platelets", "platelets, K/uL", 0), ("inr", "INR", 2),
            ("lactate", "lactate, mmol/L", 1), ("bilirubin", "bilirubin, mg/dL", 1), ("ast", "AST, IU/L", 0),
            ("albumin", "albumin, g/dL", 1), ("ph", "pH", 2), ("pco2", "PCO2, mmHg", 0), ("po2", "PO2, mmHg", 0),
            ("fio2", "inspired oxygen, %", 0),
        )
        for level, which in ((0.05, "5th percentile"), (0.5, "median"), (0.95, "95th percentile"))
    ),
    Figure("creatinine, mg/dL, 99th percentile", quantile("creatinine", 0.99), 1),
    Figure("bilirubin, mg/dL, 99th percentile", quantile("bilirubin", 0.99), 1),
    Figure("lactate, mmol/L, 99th percentile", quantile("lactate", 0.99), 1),
    Figure("PO2, mmHg, 99th percentile", quantile("po2", 0.99), 0),
)  # fmt: skip


def compare(demo: Stays, synthetic: Stays, samples: int = SAMPLES, seed: int = 0) -> list[dict[str, float | str | int]]:
    """For each figure: its value in both, and the 95 % interval of samples of PATIENTS patients of the synthetic."""
    rng = np.random.default_rng(seed)
    patients, first, count = np.unique(synthetic["subject_id"], return_index=True, return_counts=True)
    spans = [np.arange(start, start + size) for start, size in zip(first.tolist(), count.tolist(), strict=True)]
    drawn = np.empty((samples, len(FIGURES)))
    for sample in range(samples):
        chosen = rng.choice(len(patients), PATIENTS, replace=False)
        rows = np.concatenate([spans[i] for i in chosen])
        small = _subset(synthetic, rows)
        drawn[sample] = [figure.of(small) for figure in FIGURES]
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    return [
        {
            "name": figure.name, "demo": figure.of(demo), "synthetic": figure.of(synthetic),
            "low": float(low[i]), "high": float(high[i]), "decimals": figure.decimals,
        }
        for i, figure in enumerate(FIGURES)
    ]  # fmt: skip


def demo_roots() -> list[Path]:
    """The demo's folders below PATIENTDX_SHARED. Raises UserError where that is unset."""
    shared = os.environ.get("PATIENTDX_SHARED")
    if not shared:
        raise UserError(
            "The open demo is read through PATIENTDX_SHARED, a folder with data/mimic-iv-demo; it is unset."
        )
    demo = Path(shared) / "data/mimic-iv-demo"
    return [demo, demo / "rebuilt"]


def is_within(row: Mapping[str, float | str | int]) -> bool:
    """Whether the demo's value lies in the interval, as far as the printed decimals tell."""
    low, value, high = (round(float(row[name]), int(row["decimals"])) for name in ("low", "demo", "high"))
    return low <= value <= high


def lines(rows: Sequence[Mapping[str, float | str | int]]) -> list[str]:
    """A Markdown table; a figure of the demo outside the interval is marked."""
    written = ["| figure | demo | synthetic | interval of 140 stays |", "| --- | --- | --- | --- |"]
    for row in rows:
        low, demo, synthetic, high = (
            f"{row[name]:.{row['decimals']}f}" for name in ("low", "demo", "synthetic", "high")
        )
        mark = "" if is_within(row) else " (outside)"
        written.append(f"| {row['name']} | {demo}{mark} | {synthetic} | {low} to {high} |")
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and how many figures of the demo lie within."""
    parser = harness.parser(__doc__)
    parser.add_argument("--stays", type=int, default=2000, help="of the synthetic hospital, of 54 h and more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=harness.CACHE)
    args = parser.parse_args(arguments)
    demo = read_stays(demo_roots(), args.cache)
    synthetic = read_stays([hospital(args.cache, stays=args.stays, seed=args.seed)], args.cache)
    rows = compare(demo, synthetic)
    within = sum(map(is_within, rows))
    print("\n".join(lines(rows)))
    print(
        f"\n{within} of {len(rows)} figures of the demo lie in the interval ({len(synthetic['age'])} synthetic stays)."
    )


if __name__ == "__main__":
    harness.run(main)
