"""How ill a stay is: one latent severity, from it failures of organs, from them support, length of stay and death.

severity = that of the case + frailty + age + chance. An organ's failure = a share of severity + what the case, chronic
conditions and chance add. `level` is how far an organ has failed at an hour: softplus, so that health has no upside.
Everything else (readings, drugs, codes, what is measured at all) is drawn from these levels.
"""

from functools import cache

import numpy as np

from patientdx.records.synthetic.tables import numbers, rows, sigmoid

ORGANS = ("respiration", "circulation", "kidneys", "liver", "clotting", "consciousness", "inflammation")
RESPIRATION, CIRCULATION, KIDNEYS, LIVER, CLOTTING, CONSCIOUSNESS, INFLAMMATION = range(len(ORGANS))
MIXES = ("general", "referral", "surgical")
TRAITS = 24  # what is a stay's own and no illness: its pressure, its weight, how it breathes, ...
_SHARE = 0.50  # of severity in each organ's failure
_STEEP = 1.5
_FATAL = np.array([0.55, 0.65, 0.35, 0.35, 0.25, 0.60, 0.05])  # log-odds of death in the ICU for a unit of failure
_SETTLES = 96  # hours after which an organ no longer changes


def cases() -> tuple[dict[str, str], ...]:
    """The reasons for intensive care, case_mix.csv."""
    return rows("case_mix.csv")


@cache
def conditions() -> tuple[str, ...]:
    """The chronic conditions of conditions.csv."""
    return tuple(row["name"] for row in rows("conditions.csv"))


def chronic(rng: np.random.Generator, people: dict[str, np.ndarray]) -> np.ndarray:
    """Which chronic conditions each patient has, bool (patients, conditions)."""
    odds, age, frailty, male = numbers("conditions.csv", ("odds", "age", "frailty", "male")).T
    old = (people["age"][:, None] - 63) / 16
    logit = odds + age * old + frailty * people["frailty"][:, None] + male * people["male"][:, None]
    return rng.random(logit.shape) < sigmoid(logit)


def admitted_for(rng: np.random.Generator, people: dict[str, np.ndarray], mix: str) -> np.ndarray:
    """The number of the case of each patient: by its share in the mix, and by age."""
    share, age = numbers("case_mix.csv", (mix, "age")).T
    fits = np.log(share) - ((people["age"][:, None] - age) / 26) ** 2
    gumbel = -np.log(-np.log(rng.random(fits.shape)))
    return np.argmax(fits + gumbel, axis=1)


def draw(rng: np.random.Generator, people: dict[str, np.ndarray], case: np.ndarray) -> dict[str, np.ndarray]:
    """Severity, organs, support, length of stay (hours) and death of a stay of each patient."""
    size = len(case)
    of_case = dict(zip(_OF_CASE, numbers("case_mix.csv", _OF_CASE)[case].T, strict=True))
    old = (people["age"] - 63) / 16
    severity = of_case["severity"] + 0.35 * people["frailty"] + 0.15 * old + 0.85 * rng.normal(size=size)
    offsets = numbers("case_mix.csv", ORGANS)[case] + people["chronic"] @ numbers("conditions.csv", ORGANS)
    organs = _SHARE * severity[:, None] + offsets + 0.80 * rng.normal(size=(size, len(ORGANS)))
    ventilation = of_case["ventilation"] + organs[:, [RESPIRATION, CIRCULATION, CONSCIOUSNESS]] @ (1.1, 0.4, 0.6)
    ventilated = rng.random(size) < sigmoid(ventilation - 0.98)
    risk = organs @ _FATAL + of_case["death"] + 0.32 * old + 0.30 * people["frailty"] + 0.3 * ventilated
    died = rng.random(size) < sigmoid(0.95 * risk - 4.37)
    ward = ~died & (rng.random(size) < sigmoid(0.6 * risk + 0.3 * old - 3.75))
    brief = of_case["brief"] > 0
    spread = rng.normal(size=size)
    lasting = of_case["stay"] + 0.10 * severity + ventilated * np.where(brief, 0.20, 1.30) + 0.64 * spread
    hours = np.where(died, np.exp(4.75 + 0.9 * spread), np.exp(lasting - 0.13))
    return {
        "case": case, "severity": severity, "organs": organs, "died": died, "ward_death": ward,
        "ventilated": ventilated, "brief": brief, "los": np.clip(hours, 3, 800),
        "drift": np.where(died, 0.05, -0.25) + rng.normal(0, 0.3, size), "traits": rng.normal(size=(size, TRAITS)),
        "chronic": people["chronic"],
    } | _ventilation(rng, ventilated, brief, died, np.clip(hours, 3, 800))  # fmt: skip


_OF_CASE = ("severity", "ventilation", "brief", "stay", "death")


def _ventilation(
    rng: np.random.Generator, ventilated: np.ndarray, brief: np.ndarray, died: np.ndarray, los: np.ndarray
) -> dict[str, np.ndarray]:
    """When invasive ventilation begins and ends, hours after ICU admission; many arrive with it."""
    size = len(los)
    arrives = rng.random(size) < np.where(brief, 0.4, 0.15)
    later = np.exp(rng.normal(np.where(brief, -0.5, 0.7), np.where(brief, 0.6, 1.3)))
    begin = np.minimum(np.where(arrives, -0.6 * rng.random(size), later), 0.6 * los)
    length = np.where(brief, np.exp(rng.normal(2.2, 0.8, size)), los * rng.beta(1.6, 1.9, size))
    to_the_end = died & (rng.random(size) < 0.85)
    end = np.where(to_the_end, los, np.minimum(begin + 1 + length, los - 0.5))
    never = np.full(size, np.inf)
    return {"tube_in": np.where(ventilated, begin, never), "tube_out": np.where(ventilated, end, -never)}


def level(stays: dict, row: np.ndarray, hour: np.ndarray) -> np.ndarray:
    """How far each organ has failed, 0 or more, float64 (rows, organs), at hours after ICU admission."""
    change = stays["drift"][row] * np.clip(hour, -24, _SETTLES) / 48
    return np.logaddexp(0, _STEEP * (stays["organs"][row] + change[:, None])) / _STEEP


def is_ventilated(stays: dict, row: np.ndarray, hour: np.ndarray) -> np.ndarray:
    """Whether the stay is invasively ventilated at that hour."""
    return (hour >= stays["tube_in"][row]) & (hour < stays["tube_out"][row])
