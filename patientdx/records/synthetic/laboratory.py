"""The laboratory: chartevents and labevents of the same blood, and labevents of the 24 h before intensive care.

laboratory.csv has a row for each value, with what an organ's failure does to it; panels.csv which are drawn together:
the log-odds that a stay has any, their slope on severity (so what is missing says something), and how often.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patientdx.records.synthetic import illness, physiology
from patientdx.records.synthetic.tables import Values, grid, numbers, rows, sigmoid, times

_EFFECTS = (*illness.ORGANS, "diabetes", "male")
_SHAPE = ("log", "centre", "spread", "noise", "decimals", "minimum", "maximum", "chart", "laboratory")
_DELAY = 1.2  # hours until a result is known
_BICARBONATE, _ANION_GAP, _AST = (227443, 50882), (227073, 50868), (220587, 50878)
_BEFORE = 24  # hours before intensive care


def value(stays: dict, name: str, row: np.ndarray, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values of one row of laboratory.csv, rounded to its decimals."""
    which = next(i for i, known in enumerate(rows("laboratory.csv")) if known["name"] == name)
    return _drawn(stays, which, row, level, rng)


def _drawn(stays: dict, which: int, row: np.ndarray, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    log, centre, spread, noise, decimals, low, high, *_ = numbers("laboratory.csv", _SHAPE)[which]
    effects = numbers("laboratory.csv", _EFFECTS)[which]
    trait = stays["blood"][row, which]
    x = centre + level @ effects[: len(illness.ORGANS)] + spread * trait + noise * rng.normal(size=len(row))
    x += effects[-2] * physiology.has(stays, "diabetes")[row] + effects[-1] * stays["male"][row]
    return np.round(np.clip(np.exp(x) if log else x, low, high), int(decimals))


def draw(rng: np.random.Generator, stays: dict, values: Values) -> pa.Table:
    """labevents of these stays; what is charted too is added to `values`."""
    size = len(stays["los"])
    stays["blood"] = rng.normal(size=(size, len(rows("laboratory.csv")) + 2))
    reported = Values()
    for panel, (odds, slope, tube, every, prior) in zip(
        rows("panels.csv"), numbers("panels.csv", ("odds", "severity", "ventilated", "every", "prior")), strict=True
    ):
        ill = stays["severity"] + 0.5 * stays["ventilated"]
        drawn = rng.random(size) < sigmoid(odds + slope * stays["severity"] + tube * stays["ventilated"])
        often = every / (1 + 0.15 * np.clip(ill, 0, 3))
        count = np.where(drawn, np.maximum(stays["los"] / often, 1), 0).astype(int)
        row, hour = grid(rng, count, often)
        early = np.flatnonzero(rng.random(size) < prior * np.where(drawn, 1, 0.5))
        row = np.concatenate([row, early])
        hour = np.concatenate([np.minimum(hour, stays["los"][row[: len(hour)]] * 0.98), _earlier(rng, len(early))])
        _panel(rng, stays, panel["panel"], row, hour, values, reported)
    return _table(stays, reported)


def _earlier(rng: np.random.Generator, size: int) -> np.ndarray:
    return -np.minimum(rng.exponential(5, size) + 0.4, _BEFORE - 0.1)


def _panel(
    rng: np.random.Generator, stays: dict, panel: str, row: np.ndarray, hour: np.ndarray, values: Values,
    reported: Values,
) -> None:  # fmt: skip
    """One panel's values, as reported and, from ICU admission on, as charted."""
    level, inside = illness.level(stays, row, hour), hour >= 0

    def add(items: tuple[int, int], value: np.ndarray, unit: str) -> None:
        mask = rng.random(len(row)) < 0.98
        chart, laboratory = items
        reported.add(laboratory, row[mask], hour[mask], value[mask], unit, _DELAY)
        mask &= inside
        if chart:
            values.add(chart, row[mask], hour[mask], value[mask], unit, _DELAY)

    for which, known in enumerate(rows("laboratory.csv")):
        if known["panel"] != panel:
            continue
        drawn = _drawn(stays, which, row, level, rng)
        add((int(known["chart"] or 0), int(known["laboratory"])), drawn, known["unit"])
        if known["name"] == "ALT":
            muscle = 0.38 + 0.75 * stays["blood"][row, -1] + 0.2 * level[:, illness.CIRCULATION]
            add(_AST, np.round(np.clip(drawn**0.86 * np.exp(muscle + 0.55), 6, 20000)), "IU/L")
    if panel == "chemistry":
        _, bicarbonate = physiology.acid(stays, row, level)
        bicarbonate = np.round(np.clip(bicarbonate + rng.normal(0, 1.0, len(row)), 4, 48))
        lost = physiology.metabolic(stays, row, level)
        gap = 13.9 + 0.66 * lost + 2.5 * stays["blood"][row, -2] + rng.normal(0, 1.2, len(row))
        add(_BICARBONATE, bicarbonate, "mEq/L")
        add(_ANION_GAP, np.round(np.clip(gap, 4, 45)), "mEq/L")


def _table(stays: dict, reported: Values) -> pa.Table:
    """labevents; before the admission a value belongs to none."""
    columns = reported.table(stays)
    stay_admitted = dict(zip(stays["stay_id"].tolist(), stays["admitted"].tolist(), strict=True))
    admitted = times(np.array([stay_admitted[stay] for stay in columns.pop("stay_id").tolist()], np.int64))
    early = pc.call_function("less", [columns["charttime"], admitted])
    columns["hadm_id"] = pc.call_function("if_else", [early, pa.scalar(None, pa.int64()), pa.array(columns["hadm_id"])])
    return pa.table(columns)
