"""What is done: inputevents, procedureevents and outputevents, each given more where its organ fails."""

import numpy as np
import pyarrow as pa

from patientdx.records.synthetic import bedside, illness
from patientdx.records.synthetic.tables import chosen, grid, ids, minutes, numbers, rows, sigmoid, times

_ODDS = ("odds", *illness.ORGANS, "ventilated", "brief")
_PLAN = ("begin", "length", "every", "centre", "spread", "slope", "itemid")
_VENTILATION, _ARTERIAL, _CENTRAL, _INTUBATION, _EXTUBATION = 225792, 225752, 224263, 224385, 227194
_FOLEY, _VOID, _CHEST_TUBE = 226559, 226560, 226588
_STATE_AT = 8  # hour of the illness that decides who gets what
_TO_AMOUNT = {  # amount of an hour at a rate of 1: by weight in kg, and a factor
    "mcg/kg/min": (True, 0.06), "mcg/kg/hour": (True, 1.0), "mcg/hour": (False, 0.001), "mg/hour": (False, 1.0),
    "units/hour": (False, 1.0), "mg/min": (False, 60.0), "mL/hour": (False, 1.0), "": (False, 1.0),
}  # fmt: skip
_VOLUME_HOURS = 1.0


def _receive(rng: np.random.Generator, stays: dict, file: str) -> np.ndarray:
    """Who gets each row of drugs.csv or procedures.csv, bool (stays, rows)."""
    size = len(stays["los"])
    level = illness.level(stays, np.arange(size), np.full(size, _STATE_AT))
    state = np.column_stack([np.ones(size), level, stays["ventilated"], stays["brief"]])
    return rng.random((size, len(rows(file)))) < sigmoid(state @ numbers(file, _ODDS).T)


def inputs(rng: np.random.Generator, stays: dict) -> pa.Table:
    """inputevents: infusions with their rates, doses, volumes."""
    receive, parts = _receive(rng, stays, "drugs.csv"), []
    units: list[str] = []
    for drug, plan, who in zip(rows("drugs.csv"), numbers("drugs.csv", _PLAN), receive.T, strict=True):
        make = _infusion if drug["form"] == "infusion" else _doses
        row, start, end, rate = make(rng, stays, who, plan, illness.ORGANS.index(drug["organ"]))
        hours = end - start
        by_weight, factor = _TO_AMOUNT[drug["unit"]]
        amount = rate * factor * np.where(by_weight, stays["weight"][row], 1)
        if drug["form"] == "infusion":
            amount = amount * hours
        rate = (
            rate if drug["form"] == "infusion" else rate / _VOLUME_HOURS if drug["unit"] else np.full(len(row), np.nan)
        )
        units += [unit for unit in (drug["unit"], drug["amount"]) if unit not in units]
        named = [np.full(len(row), number) for number in (units.index(drug["amount"]), units.index(drug["unit"]))]
        parts.append((row, start, end, np.full(len(row), int(plan[-1])), amount, rate, *named))
    row, start, end, item, amount, rate, amount_unit, rate_unit = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((item, start, row))
    row, unrated = row[order], np.isnan(rate[order])
    columns = _period(stays, row, start[order], end[order], item[order]) | {
        "amount": _significant(amount[order]),
        "amountuom": chosen(units, amount_unit[order]),
        "rate": pa.array(_significant(rate[order]), mask=unrated),
        "rateuom": chosen(units, np.where(unrated, -1, rate_unit[order])),
        "patientweight": stays["weight"][row],
    }
    return pa.table(columns)


def _significant(values: np.ndarray) -> np.ndarray:
    """Rounded to four digits."""
    with np.errstate(divide="ignore"):
        scale = 10.0 ** (3 - np.floor(np.log10(np.where(values > 0, values, 1))))
    return np.round(values * scale) / scale


def _infusion(
    rng: np.random.Generator, stays: dict, who: np.ndarray, plan: np.ndarray, organ: int
) -> tuple[np.ndarray, ...]:
    """(row, start, end, rate) of an infusion whose rate is changed every few hours and follows an organ."""
    begin, length, every, centre, spread, slope, item = plan
    size, los = len(who), stays["los"]
    arrives = rng.random(size) < 0.15
    first = np.minimum(np.where(arrives, -0.5 * rng.random(size), rng.exponential(begin, size)), 0.7 * los)
    last = np.minimum(first + length * np.exp(0.9 * rng.normal(size=size)), los)
    if item in _SEDATIVES:  # as long as the tube is in
        tube = stays["ventilated"]
        first = np.where(tube, np.maximum(first, stays["tube_in"]), first)
        last = np.where(tube, np.minimum(last + 6, np.maximum(stays["tube_out"], first + 0.5)), last)
    last = np.maximum(last, first + 0.3)
    pieces = np.where(who, np.ceil((last - first) / every), 0).astype(int)
    row, at = grid(rng, pieces, every)
    at = np.where(np.append(True, row[1:] != row[:-1]), 0, at) + first[row]
    end = np.where(np.append(row[1:] != row[:-1], True), np.maximum(last[row], at + 0.1), np.append(at[1:], 0))
    failed = illness.level(stays, row, at)[:, organ]
    trait = rng.normal(size=size)[row]
    return row, at, end, centre * np.exp(slope * failed + spread * trait + 0.25 * rng.normal(size=len(row)))


_SEDATIVES = (222168, 221668, 225150, 225942)


def _doses(
    rng: np.random.Generator, stays: dict, who: np.ndarray, plan: np.ndarray, organ: int
) -> tuple[np.ndarray, ...]:
    """(row, start, end, amount) of what is given at once; a volume runs for an hour."""
    begin, _, every, centre, spread, *_ = plan
    size, los = len(who), stays["los"]
    first = np.minimum(rng.exponential(begin, size), 0.8 * los)
    count = np.where(who, 1 + rng.poisson(np.clip((los - first) / every * 0.7, 0, 60)), 0)
    row, share = grid(rng, count, 1)
    start = first[row] + share / count[row] * (los - first)[row]
    amount = centre * np.exp(spread * rng.normal(size=len(row)))
    hours = _VOLUME_HOURS if centre >= 150 and spread and organ else 1 / 60
    return row, start, start + hours, amount


def procedures(rng: np.random.Generator, stays: dict) -> pa.Table:
    """procedureevents: ventilation, lines, dialysis; value is the length in minutes, as in MIMIC-IV."""
    receive, parts, los = _receive(rng, stays, "procedures.csv"), [], stays["los"]
    plans = numbers("procedures.csv", ("begin", "length", "itemid"))
    for (begin, length, item), who in zip(plans, receive.T, strict=True):
        row = np.flatnonzero(who)
        start = np.minimum(rng.exponential(begin, len(row)), 0.8 * los[row])
        parts.append((row, start, start + length * np.exp(0.7 * rng.normal(size=len(row))), item))
    row = np.flatnonzero(stays["ventilated"])
    tube_in, tube_out = stays["tube_in"][row], stays["tube_out"][row]
    parts.append((row, tube_in, tube_out, _VENTILATION))
    here = tube_in > 0.3
    parts.append((row[here], tube_in[here], tube_in[here] + 0.02, _INTUBATION))
    out = tube_out < los[row] - 0.4
    parts.append((row[out], tube_out[out], tube_out[out] + 0.02, _EXTUBATION))
    for item, who in ((_ARTERIAL, bedside.arterial_line(stays)), (_CENTRAL, bedside.central_line(stays))):
        row = np.flatnonzero(who)
        start = np.where(rng.random(len(row)) < 0.3, -0.3 * rng.random(len(row)), rng.exponential(1.5, len(row)))
        start = np.minimum(start, 0.5 * los[row])
        parts.append((row, start, start + (los[row] - start) * rng.uniform(0.4, 1, len(row)), item))
    numbered = [(row, start, np.minimum(end, los[row]), np.full(len(row), item)) for row, start, end, item in parts]
    row, start, end, item = map(np.concatenate, zip(*numbered, strict=True))
    order = np.lexsort((item, start, row))
    columns = _period(stays, row[order], start[order], end[order], item[order])
    length = np.round((end - start)[order] * 60)
    return pa.table(columns | {"value": length, "valueuom": chosen(["min"], np.zeros(len(row)))})


def _period(stays: dict, row: np.ndarray, start: np.ndarray, end: np.ndarray, item: np.ndarray) -> dict:
    intime, begin = stays["intime"][row], minutes(start)
    until = np.maximum(minutes(end), begin + minutes(np.array(1 / 60)))
    return ids(stays, row) | {
        "starttime": times(intime + begin), "endtime": times(intime + until), "itemid": item.astype(np.int32),
    }  # fmt: skip


def outputs(rng: np.random.Generator, stays: dict) -> pa.Table:
    """outputevents: urine every two hours by catheter, voided every five; less while kidneys and circulation fail."""
    size, los = len(stays["los"]), stays["los"]
    catheter = rng.random(size) < sigmoid(0.9 + 0.9 * stays["severity"] + 1.5 * stays["ventilated"])
    trait = rng.normal(size=size)
    parts = []
    for item, who, every in ((_FOLEY, catheter, 2.0), (_VOID, ~catheter, 5.0)):
        who = who & (rng.random(size) < 0.98)
        row, hour = grid(rng, np.where(who, np.maximum(los / every, 1), 0).astype(int), every)
        level = illness.level(stays, row, hour)
        failed = 0.62 * level[:, illness.KIDNEYS] + 0.15 * level[:, illness.CIRCULATION]
        rate = 112 * np.exp(-failed + 0.46 * trait[row] + 0.4 * rng.normal(size=len(row)))
        parts.append(
            (row, np.minimum(hour, los[row]), np.round(np.minimum(every * rate, 1500)), np.full(len(row), item))
        )
    drained = stays["brief"] & (stays["case"] == 0)  # cardiac surgery
    row, hour = grid(rng, np.where(drained, np.minimum(los, 60) / 3, 0).astype(int), 3.0)
    volume = np.round(90 * np.exp(-hour / 20 + 0.4 * rng.normal(size=len(row))))
    parts.append((row, hour, volume, np.full(len(row), _CHEST_TUBE)))
    row, hour, value, item = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((item, hour, row))
    row, charted = row[order], stays["intime"][row[order]] + minutes(hour[order])
    columns = ids(stays, row) | {
        "charttime": times(charted),
        "storetime": times(charted + minutes(np.array(0.2))),
        "itemid": item[order].astype(np.int32),
        "value": value[order],
        "valueuom": chosen(["mL"], np.zeros(len(row))),
    }
    return pa.table(columns)
