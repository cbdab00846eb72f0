"""The people of the synthetic hospital: patients, admissions and ICU stays, drawn block by block."""

import numpy as np
import pyarrow as pa

from patientdx.records.synthetic.physiology import HOUR

BLOCK = 512  # patients drawn together; a block depends on the seed and its number only
_EPOCH_YEAR = 1970
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO", "ASIAN", "OTHER", "UNKNOWN")
_UNITS = (
    "Medical Intensive Care Unit (MICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Coronary Care Unit (CCU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
)


def _hours(values: np.ndarray) -> np.ndarray:
    """Hours as whole seconds in microseconds, MIMIC-IV's resolution."""
    return np.round(values * 3600).astype(np.int64) * (HOUR // 3600)


def _patients(rng: np.random.Generator, first: int) -> dict[str, np.ndarray]:
    age = np.clip(np.round(rng.normal(64, 16, BLOCK)), 18, 91)
    age = np.where(rng.random(BLOCK) < 0.02, rng.integers(14, 18, BLOCK), age).astype(np.int64)
    return {
        "subject_id": 10_000_000 + first + np.arange(BLOCK),
        "age": age,
        "year": rng.integers(2110, 2190, BLOCK),
        "male": rng.random(BLOCK) < 0.56,
        "frailty": rng.normal(size=BLOCK),
        "stays": rng.choice([1, 2, 3], BLOCK, p=[0.70, 0.20, 0.10]),
        "race": rng.choice(len(_RACES), BLOCK, p=[0.66, 0.12, 0.06, 0.04, 0.06, 0.06]),
        "dies_later": rng.random(BLOCK) < 0.15,
    }


def _gap(draw: np.ndarray, severity: np.ndarray, returns: float | None) -> np.ndarray:
    """Hours from discharge to the next admission, from uniform draws in [0, 1) and the severity of the stay before.

    10 to 250 days for everyone, or with `returns` 1 to 30 days for about that fraction, more often after severe stays.
    """
    if returns is None:
        return 240 + 5760 * draw
    soon = 1 / (1 + np.exp(-(np.log(returns / (1 - returns)) + severity)))
    return np.where(draw < soon, 24 + 696 * draw / soon, 720 + 5280 * (draw - soon) / (1 - soon))


def _timeline(rng: np.random.Generator, people: dict[str, np.ndarray], returns: float | None) -> dict[str, np.ndarray]:
    """Stays in the order of rounds (everyone's first, then second ...); the dead are not admitted again."""
    size = len(people["age"])
    alive = np.ones(size, bool)
    day = (people["year"] - _EPOCH_YEAR) * 365.2425 + rng.integers(0, 300, size)
    discharged = _hours(day * 24 + rng.uniform(0, 24, size))
    outtime, admission = discharged.copy(), np.full(size, -1)
    admitted, rounds, severity = discharged.copy(), [], np.zeros(size)
    for visit in range(3):
        before, severity = (
            severity,
            0.45 * people["frailty"] + 0.2 * (people["age"] - 64) / 16 + 0.87 * rng.normal(size=size),
        )
        again = (rng.random(size) < 0.25) & (visit > 0)  # a second stay in the same admission
        admitted = np.where(again, admitted, discharged + (visit > 0) * _hours(_gap(rng.random(size), before, returns)))
        admission = admission + ~again
        intime = np.where(again, outtime, admitted) + _hours(np.exp(rng.normal(1.0 + again, 0.8, size)))
        los = np.clip(np.exp(rng.normal(np.log(78) + 0.12 * severity, 0.65)), 8, 900)
        outtime = intime + _hours(los)
        chance = 1 / (1 + np.exp(-(-2.85 + 1.6 * severity)))
        died = rng.random(size) < chance
        ward_death = ~died & (rng.random(size) < 0.02)
        discharged = outtime + np.where(died, 0, _hours(rng.uniform(20, 190, size)))
        deathtime = np.where(died, outtime - _hours(rng.uniform(0, 0.9, size)), discharged)
        ventilated = rng.random(size) < 1 / (1 + np.exp(-(-0.9 + 0.7 * severity)))
        present = alive & (people["stays"] > visit)
        columns = {
            "person": np.arange(size), "turn": np.full(size, visit), "admission": admission, "again": again,
            "admitted": admitted, "intime": intime, "outtime": outtime, "discharged": discharged, "los": los,
            "severity": severity, "died": died, "ward_death": ward_death, "ventilated": ventilated,
            "deathtime": deathtime, "unit": rng.integers(0, len(_UNITS), size),
        }  # fmt: skip
        rounds.append({name: column[present] for name, column in columns.items()})
        alive &= ~(died | ward_death)
    merged = {name: np.concatenate([part[name] for part in rounds]) for name in rounds[0]}
    order = np.lexsort((merged["turn"], merged["person"]))
    return {name: column[order] for name, column in merged.items()}


def block(seed: int, number: int, returns: float | None = None) -> tuple[dict[str, np.ndarray], dict[str, pa.Table]]:
    """One block of patients: their stays as flat arrays and the tables patients, admissions and icustays.

    Times are int64 microseconds since 1970, `los` is in hours. Stays are ordered by patient, then by time.
    `returns`: about the share of later admissions that begin within 30 days of discharge; None: few do.
    """
    rng = np.random.default_rng([seed, number, 0])
    people = _patients(rng, number * BLOCK)
    stays = _timeline(rng, people, returns)
    person = stays["person"]
    stays["subject_id"] = people["subject_id"][person]
    stays["age"] = people["age"][person]
    stays["hadm_id"] = 20_000_000 + (stays["subject_id"] - 10_000_000) * 4 + stays["admission"]
    stays["stay_id"] = 30_000_000 + (stays["subject_id"] - 10_000_000) * 4 + stays["turn"]
    last = np.append(stays["hadm_id"][1:] != stays["hadm_id"][:-1], True)  # the admission's last stay
    final = np.flatnonzero(last)[np.searchsorted(stays["hadm_id"][last], stays["hadm_id"])]
    stays["died_in_hospital"] = (stays["died"] | stays["ward_death"])[final]
    rng = np.random.default_rng([seed, number, 1])
    tables = {
        "hosp/patients": _patients_table(rng, people, stays),
        "hosp/admissions": _admissions_table(rng, people, stays, np.flatnonzero(last)),
        "icu/icustays": _stays_table(stays),
    }
    return stays, tables


def _patients_table(rng: np.random.Generator, people: dict, stays: dict) -> pa.Table:
    size = len(people["age"])
    end = np.zeros(size, np.int64)
    np.maximum.at(end, stays["person"], stays["discharged"])
    dead = np.zeros(size, bool)
    np.logical_or.at(dead, stays["person"], stays["died"] | stays["ward_death"])
    in_hospital = np.zeros(size, np.int64)
    gone = stays["died"] | stays["ward_death"]
    in_hospital[stays["person"][gone]] = stays["deathtime"][gone]
    later = end + _hours(rng.uniform(240, 8000, size))
    day = np.where(dead, in_hospital, later) // (24 * HOUR)
    columns = {
        "subject_id": people["subject_id"],
        "gender": pa.array(np.where(people["male"], "M", "F"), pa.string()),
        "anchor_age": people["age"],
        "anchor_year": people["year"],
        "anchor_year_group": pa.array(["2011 - 2013"] * size, pa.string()),
        "dod": pa.array(day.astype(np.int32), pa.int32(), mask=~(dead | people["dies_later"])).cast(pa.date32()),
    }
    return pa.table(columns)


def _admissions_table(rng: np.random.Generator, people: dict, stays: dict, last: np.ndarray) -> pa.Table:
    person, died = stays["person"][last], stays["died_in_hospital"][last]
    unrecorded = rng.random(len(last)) < 0.02  # a deathtime that is missing, so that dod has to serve
    stamps = {"admittime": "admitted", "dischtime": "discharged", "deathtime": "deathtime"}
    masks = {"deathtime": ~died | unrecorded}
    times = {
        name: pa.array(stays[source][last], pa.timestamp("us"), mask=masks.get(name)) for name, source in stamps.items()
    }
    age = people["age"][person]
    insurance = np.where(age >= 65, "Medicare", rng.choice(["Private", "Medicaid", "Other"], len(last)))
    columns = {
        "subject_id": stays["subject_id"][last],
        "hadm_id": stays["hadm_id"][last],
        **times,
        "admission_type": pa.array(rng.choice(["URGENT", "EW EMER.", "ELECTIVE"], len(last)), pa.string()),
        "insurance": pa.array(insurance, pa.string()),
        "race": pa.array(np.array(_RACES)[people["race"][person]], pa.string()),
        "hospital_expire_flag": died.astype(np.int8),
    }
    return pa.table(columns)


def _stays_table(stays: dict) -> pa.Table:
    unit = pa.array(np.array(_UNITS)[stays["unit"]], pa.string())
    columns = {name: stays[name] for name in ("subject_id", "hadm_id", "stay_id")}
    columns |= {"first_careunit": unit, "last_careunit": unit}
    columns |= {name: pa.array(stays[name], pa.timestamp("us")) for name in ("intime", "outtime")}
    return pa.table(columns | {"los": (stays["outtime"] - stays["intime"]) / (24 * HOUR)})
