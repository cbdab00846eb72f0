"""The people of the synthetic hospital: patients, admissions and ICU stays, drawn block by block."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from patientdx.records.synthetic import illness
from patientdx.records.synthetic.tables import HOUR, chosen, rows, times

BLOCK = 128  # patients drawn together; a block depends on the seed and its number only
_EPOCH_YEAR = 1970
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO", "ASIAN", "OTHER", "UNKNOWN")
_YEARS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
_UNITS = {
    "MICU": "Medical Intensive Care Unit (MICU)",
    "SICU": "Surgical Intensive Care Unit (SICU)",
    "MICU/SICU": "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "TSICU": "Trauma SICU (TSICU)",
    "CCU": "Coronary Care Unit (CCU)",
    "CVICU": "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Neuro": "Neuro Surgical Intensive Care Unit (Neuro SICU)",
    "Intermediate": "Neuro Intermediate",
}
_HOMES = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "HOSPICE", "AGAINST ADVICE")
DIED, STEPDOWN = "DIED", "Intermediate"


def _hours(values: np.ndarray) -> np.ndarray:
    """Hours as whole seconds in microseconds, MIMIC-IV's resolution."""
    return np.round(values * 3600).astype(np.int64) * (HOUR // 3600)


def _patients(rng: np.random.Generator, first: int) -> dict[str, np.ndarray]:
    age = np.clip(np.round(rng.normal(63, 16.5, BLOCK)), 18, 91)
    age = np.where(rng.random(BLOCK) < 0.02, rng.integers(14, 18, BLOCK), age).astype(np.int64)
    people = {
        "subject_id": 10_000_000 + first + np.arange(BLOCK),
        "age": age,
        "year": rng.integers(2110, 2190, BLOCK),
        "years": rng.integers(0, len(_YEARS), BLOCK),
        "male": rng.random(BLOCK) < 0.56,
        "frailty": rng.normal(size=BLOCK),
        "stays": rng.choice([1, 2, 3], BLOCK, p=[0.66, 0.22, 0.12]),
        "race": rng.choice(len(_RACES), BLOCK, p=[0.66, 0.12, 0.06, 0.04, 0.06, 0.06]),
        "dies_later": rng.random(BLOCK) < 0.15,
        "build": rng.normal(size=(BLOCK, 2)),
    }
    return people | {"chronic": illness.chronic(rng, people)}


def _gap(draw: np.ndarray, severity: np.ndarray, returns: float | None) -> np.ndarray:
    """Hours from discharge to the next admission, from uniform draws in [0, 1) and the severity of the stay before.

    10 to 250 days for everyone, or with `returns` 1 to 30 days for about that fraction, more often after severe stays.
    """
    if returns is None:
        return 240 + 5760 * draw
    soon = 1 / (1 + np.exp(-(np.log(returns / (1 - returns)) + severity)))
    return np.where(draw < soon, 24 + 696 * draw / soon, 720 + 5280 * (draw - soon) / (1 - soon))


def _timeline(
    rng: np.random.Generator, people: dict[str, np.ndarray], returns: float | None, mix: str
) -> dict[str, np.ndarray]:
    """Stays in the order of rounds (everyone's first, then second ...); the dead are not admitted again."""
    size = len(people["age"])
    alive = np.ones(size, bool)
    day = (people["year"] - _EPOCH_YEAR) * 365.2425 + rng.integers(0, 300, size)
    discharged = _hours(day * 24 + rng.uniform(0, 24, size))
    outtime, admission = discharged.copy(), np.full(size, -1)
    admitted, rounds, stay = discharged.copy(), [], {"severity": np.zeros(size), "case": np.zeros(size, int)}
    for visit in range(3):
        before, again = stay, (rng.random(size) < 0.25) & (visit > 0)  # a second stay in the same admission
        case = illness.admitted_for(rng, people, mix)
        case = np.where(again, before["case"], case)
        stay = illness.draw(rng, people, case)
        gap = _hours(_gap(rng.random(size), before["severity"], returns))
        admitted = np.where(again, admitted, discharged + (visit > 0) * gap)
        admission = admission + ~again
        intime = np.where(again, outtime, admitted) + _hours(_before(rng, case, again))
        outtime = intime + _hours(stay["los"])
        after = np.exp(rng.normal(4.4 + 0.1 * stay["severity"], 0.9))
        discharged = outtime + np.where(stay["died"], 0, _hours(np.clip(after, 6, 900)))
        # The bed is free some hours after the death.
        deathtime = np.where(
            stay["died"], outtime - _hours(np.minimum(rng.uniform(1, 5, size), stay["los"] / 3)), discharged
        )
        present = alive & (people["stays"] > visit)
        columns = stay | {
            "person": np.arange(size), "turn": np.full(size, visit), "admission": admission, "again": again,
            "admitted": admitted, "intime": intime, "outtime": outtime, "discharged": discharged,
            "deathtime": deathtime,
        }  # fmt: skip
        rounds.append({name: column[present] for name, column in columns.items()})
        alive &= ~(stay["died"] | stay["ward_death"])
    merged = {name: np.concatenate([part[name] for part in rounds]) for name in rounds[0]}
    order = np.lexsort((merged["turn"], merged["person"]))
    return {name: column[order] for name, column in merged.items()}


def _before(rng: np.random.Generator, case: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Hours in hospital before intensive care: straight to the unit, from the emergency department, or from a ward."""
    typical = np.array([float(row["before"]) for row in illness.cases()])[case]
    way, normal = rng.random(len(case)), rng.normal(size=len(case))
    hours = np.where(way < 0.42, 0.02 + 1.2 * rng.random(len(case)), 0.6 * typical * np.exp(0.7 * normal))
    return np.where(again | (way > 0.74), np.exp(4.0 + 1.0 * normal), hours)


def block(
    seed: int, number: int, returns: float | None = None, mix: str = "general"
) -> tuple[dict[str, np.ndarray], dict[str, pa.Table]]:
    """One block of patients: their stays as flat arrays and the tables of who they are and where they went.

    Times are int64 microseconds since 1970, `los` is in hours. Stays are ordered by patient, then by time.
    `returns`: about the share of later admissions that begin within 30 days of discharge; None: few do.
    """
    rng = np.random.default_rng([seed, number, 0])
    people = _patients(rng, number * BLOCK)
    stays = _timeline(rng, people, returns, mix)
    person = stays["person"]
    stays |= {name: people[name][person] for name in ("subject_id", "age", "male")}
    tall, heavy = people["build"][person].T
    stays["height"] = np.round(163 + 12 * stays["male"] + 7 * tall)
    stays["weight"] = np.clip(
        np.round(74 + 10 * stays["male"] + 6 * tall + 17 * heavy * np.exp(0.2 * heavy), 1), 38, 200
    )
    stays["hadm_id"] = 20_000_000 + (stays["subject_id"] - 10_000_000) * 4 + stays["admission"]
    stays["stay_id"] = 30_000_000 + (stays["subject_id"] - 10_000_000) * 4 + stays["turn"]
    first = np.append(True, stays["hadm_id"][1:] != stays["hadm_id"][:-1])  # the admission's first stay
    last = np.append(first[1:], True)
    final = np.flatnonzero(last)[np.searchsorted(stays["hadm_id"][last], stays["hadm_id"])]
    stays["died_in_hospital"] = (stays["died"] | stays["ward_death"])[final]
    rng = np.random.default_rng([seed, number, 1])
    words, stays["unit"] = _pick(rng, stays["case"], "units")
    stays["stepdown"] = stays["unit"] == words.index(STEPDOWN)
    tables = {
        "hosp/patients": _patients_table(rng, people, stays),
        "hosp/admissions": _admissions_table(rng, people, stays, np.flatnonzero(first), np.flatnonzero(last)),
        "hosp/services": _services_table(rng, stays, np.flatnonzero(first)),
        "icu/icustays": _stays_table(stays, words),
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
        "anchor_year_group": chosen(_YEARS, people["years"]),
        "dod": pa.array(day.astype(np.int32), pa.int32(), mask=~(dead | people["dies_later"])).cast(pa.date32()),
    }
    return pa.table(columns)


def _pick(rng: np.random.Generator, case: np.ndarray, column: str) -> tuple[list[str], np.ndarray]:
    """Words and the number of one for each case, drawn from its shares in a column of case_mix.csv."""
    words: list[str] = []
    number, draw = np.zeros(len(case), int), rng.random(len(case))
    for which, row in enumerate(illness.cases()):
        names, odds = zip(*(part.rsplit(":", 1) for part in row[column].split("|")), strict=True)
        words += [name for name in names if name not in words]
        edges = np.cumsum([float(text) for text in odds])
        of_case = case == which
        drawn = np.minimum(np.searchsorted(edges, draw[of_case] * edges[-1]), len(names) - 1)
        number[of_case] = np.array([words.index(name) for name in names])[drawn]
    return words, number


def _admissions_table(
    rng: np.random.Generator, people: dict, stays: dict, first: np.ndarray, last: np.ndarray
) -> pa.Table:
    person, died = stays["person"][last], stays["died_in_hospital"][last]
    unrecorded = rng.random(len(last)) < 0.02  # a deathtime that is missing, so that the flag has to serve
    age, ill = people["age"][person], stays["severity"][last] + 0.5 * (people["age"][person] - 63) / 16
    insurance = np.where(age >= 65, 0, rng.integers(1, 4, len(last)))
    weight = np.exp(np.outer(ill, (-0.6, 0.0, 0.7, 0.3, 0.9, -0.8)) + np.log((0.28, 0.36, 0.2, 0.09, 0.03, 0.02)))
    home = (np.cumsum(weight, axis=1) < weight.sum(axis=1, keepdims=True) * rng.random((len(last), 1))).sum(axis=1)
    home = np.where(died, len(_HOMES), home)
    kinds, sources = (chosen(*_pick(rng, stays["case"][first], column)) for column in ("types", "sources"))
    columns = {
        "subject_id": stays["subject_id"][last],
        "hadm_id": stays["hadm_id"][last],
        "admittime": times(stays["admitted"][last]),
        "dischtime": times(stays["discharged"][last]),
        "deathtime": times(stays["deathtime"][last], ~died | unrecorded),
        "admission_type": kinds,
        "admission_location": sources,
        "discharge_location": chosen((*_HOMES, DIED), home),
        "insurance": chosen(("Medicare", "Private", "Medicaid", "Other"), insurance),
        "race": chosen(_RACES, people["race"][person]),
        "hospital_expire_flag": died.astype(np.int8),
    }
    return pa.table(columns)


def _services_table(rng: np.random.Generator, stays: dict, first: np.ndarray) -> pa.Table:
    columns = {name: stays[name][first] for name in ("subject_id", "hadm_id")}
    columns["transfertime"] = times(stays["admitted"][first] + _hours(rng.uniform(0, 0.02, len(first))))
    columns["prev_service"] = pa.nulls(len(first), pa.string())
    return pa.table(columns | {"curr_service": chosen(*_pick(rng, stays["case"][first], "services"))})


def _stays_table(stays: dict, words: Sequence[str]) -> pa.Table:
    unit = chosen([_UNITS[word] for word in words], stays["unit"])
    columns = {name: stays[name] for name in ("subject_id", "hadm_id", "stay_id")}
    columns |= {"first_careunit": unit, "last_careunit": unit}
    columns |= {name: times(stays[name]) for name in ("intime", "outtime")}
    return pa.table(columns | {"los": (stays["outtime"] - stays["intime"]) / (24 * HOUR)})


def dictionary() -> pa.Table:
    """d_icd_diagnoses: the codes of conditions.csv and codes.csv."""
    titles = {row["code"]: row["title"] for file in ("conditions.csv", "codes.csv") for row in rows(file)}
    codes = {"icd_code": list(titles), "icd_version": [10] * len(titles), "long_title": list(titles.values())}
    return pa.table(codes)
