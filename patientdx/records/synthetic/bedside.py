"""chartevents: what is charted at the bedside, hour by hour, and the laboratory beside it."""

import numpy as np
import pyarrow as pa

from patientdx.records.synthetic import illness, laboratory, physiology
from patientdx.records.synthetic.illness import (
    CIRCULATION,
    CONSCIOUSNESS,
    INFLAMMATION,
    RESPIRATION,
)  # fmt: skip
from patientdx.records.synthetic.tables import HOUR, Values, chosen, grid, ids, minutes, sigmoid, times

_HEART, _PRESSURE, _PULSE, _RATE, _WARMTH, _WAKE, _SLEEP, _STIFF = range(
    physiology.FIRST_TRAIT, physiology.FIRST_TRAIT + 8
)
LAST_TRAIT = physiology.FIRST_TRAIT + 8
_DENSE = 48  # hours charted every hour; then every two
_EYE = ("None", "To Pain", "To Speech", "Spontaneously")
_VERBAL = ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented", "No Response-ETT")
_MOTOR = (
    "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain", "Obeys Commands",
)  # fmt: skip
_RASS = (
    "-5 Unarousable", "-4 Deep sedation", "-3 Moderate sedation", "-2 Light sedation", "-1 Awakens to voice",
    " 0  Alert and calm", "+1 Anxious, apprehensive", "+2 Frequent nonpurposeful movement", "+3 Pulls or removes tubes",
)  # fmt: skip
_DEVICES = ("Endotracheal tube", "Nasal cannula", "Face tent", "High flow nasal cannula", "None")
_MODES = ("CMV/ASSIST/AutoFlow", "CPAP/PSV", "MMV/PSV/AutoFlow", "PCV+Assist")
_CODES = ("Full code", "DNR (do not resuscitate)", "DNR / DNI", "Comfort measures only")


def chart(rng: np.random.Generator, stays: dict, values: Values) -> pa.Table:
    """chartevents of these stays; `values` holds the laboratory's, to which the bedside's are added."""
    _vital_signs(rng, stays, values)
    _consciousness(rng, stays, values)
    _breathing(rng, stays, values)
    _gases(rng, stays, values)
    _body(rng, stays, values)
    columns = values.table(stays)
    return pa.table(columns | {"warning": np.zeros(len(columns["itemid"]), np.int8)})


def _hours(rng: np.random.Generator, stays: dict, every: float) -> tuple[np.ndarray, ...]:
    """(row, hour, levels) of what is charted every so many hours, and half as often from the third day."""
    los = stays["los"]
    count = np.where(los <= _DENSE, los, _DENSE + (los - _DENSE) / 2) / every
    row, hour = grid(rng, np.maximum(count.astype(int), 1), every)
    hour = np.minimum(np.where(hour <= _DENSE, hour, _DENSE + 2 * (hour - _DENSE)), los[row] - 0.02)
    return row, hour, illness.level(stays, row, hour)


def _some(rng: np.random.Generator, share: float | np.ndarray, row: np.ndarray) -> np.ndarray:
    """A mask of so much of the rows."""
    return rng.random(len(row)) < share


def _vital_signs(rng: np.random.Generator, stays: dict, values: Values) -> None:
    row, hour, level = _hours(rng, stays, 1)
    trait, size = stays["traits"][row], len(row)
    noise = rng.normal(size=(7, size))
    heart = 81 + 3.5 * level[:, CIRCULATION] + 3.5 * level[:, INFLAMMATION] + 2 * level[:, RESPIRATION]
    heart += 13 * trait[:, _HEART] + 6 * noise[0]
    breaths = (
        15.8
        + 3.0 * level[:, RESPIRATION]
        + 1.0 * level[:, INFLAMMATION]
        + 2.6 * (trait[:, _RATE] + 0.18 * trait[:, _RATE] ** 2)
        + 3.6 * noise[1]
    )
    pressure, _, _ = physiology.oxygen(stays, row, hour, level)
    spo2 = np.clip(physiology.saturation(pressure) - 0.8 + 1.0 * noise[2] + 0.6 * trait[:, _WAKE], 60, 100)
    warm = 36.75 + 0.28 * level[:, INFLAMMATION] - 0.08 * level[:, CIRCULATION] + 0.27 * trait[:, _WARMTH]
    warm += 0.38 * noise[3]
    mean = (
        78.0
        - 5.5 * level[:, CIRCULATION]
        - 1.5 * level[:, INFLAMMATION]
        + 7.2 * (trait[:, _PRESSURE] + 0.1 * trait[:, _PRESSURE] ** 2)
    )
    mean += 5.5 * physiology.has(stays, "hypertension")[row] + 7 * noise[4]
    pulse = np.clip(55 + 11 * trait[:, _PULSE] - 1.5 * level[:, CIRCULATION] + 7 * noise[5], 15, 120)
    values.add(220045, row, hour, np.clip(np.round(heart), 25, 210), "bpm")
    values.add(220210, row, hour, np.clip(np.round(breaths), 4, 60), "insp/min")
    values.add(220277, row, hour, np.round(spo2), "%")
    lower, upper = np.clip(mean - pulse / 3, 15, 160), np.clip(mean + 2 * pulse / 3, 35, 260)
    arterial = (arterial_line(stays) & (stays["traits"][:, _STIFF] < 2))[row]
    by_cuff = np.where(arterial, noise[6] > 0.6, True)
    for mask, items in ((arterial, (220050, 220051, 220052)), (by_cuff, (220179, 220180, 220181))):
        for item, value in zip(items, (upper, lower, np.clip(mean, 25, 190)), strict=True):
            values.add(item, row[mask], hour[mask], np.round(value[mask]), "mmHg")
    mask = rng.random(size) < 0.3
    values.add(223761, row[mask], hour[mask], np.round(np.clip(warm[mask], 32, 41.5) * 1.8 + 32, 1), "°F")
    mask = central_line(stays)[row] & (rng.random(size) < 0.35)
    venous = 8.5 + 1.2 * level[mask, CIRCULATION] + 2.5 * trait[mask, _STIFF] + 2 * noise[6][mask]
    values.add(220074, row[mask], hour[mask], np.round(np.clip(venous, 0, 30)), "mmHg")


def arterial_line(stays: dict) -> np.ndarray:
    """Who has an arterial line: the ventilated, mostly, and who is in shock."""
    return (
        stays["ventilated"] * 1.5 + 0.5 * stays["organs"][:, CIRCULATION] + 0.8 * stays["traits"][:, LAST_TRAIT] > 0.95
    )


def central_line(stays: dict) -> np.ndarray:
    """Who has a central venous line."""
    ill = 0.8 * stays["organs"][:, CIRCULATION] + 0.8 * stays["ventilated"] + 0.9 * stays["traits"][:, LAST_TRAIT + 1]
    return ill > 1.15


def _consciousness(rng: np.random.Generator, stays: dict, values: Values) -> None:
    row, hour, level = _hours(rng, stays, 4)
    trait, tube = stays["traits"][row], illness.is_ventilated(stays, row, hour)
    # Sedation is lightened with time, and less so in those who stay ventilated for their lungs.
    light = np.clip((hour - np.where(tube, stays["tube_in"][row], 0)) / 60, 0, 1)
    asleep = np.where(tube, 2.4 + 0.9 * trait[:, _SLEEP] - 1.0 * light + 0.25 * level[:, RESPIRATION], 0)
    asleep = np.maximum(asleep, 0)
    deficit = (
        0.95 * (level[:, CONSCIOUSNESS] - 0.35) + 0.30 * trait[:, _WAKE] + asleep + 0.3 * rng.normal(size=len(row))
    )
    eye = np.clip(np.round(4.2 - 0.75 * deficit), 1, 4)
    motor = np.clip(np.round(6.5 - 1.25 * np.maximum(deficit - 0.35, 0)), 1, 6)
    verbal = np.where(tube, 1, np.clip(np.round(5.2 - 0.95 * deficit), 1, 5))
    values.add_words(220739, row, hour, _EYE, eye - 1, eye)
    values.add_words(223900, row, hour, _VERBAL, np.where(tube, 5, verbal - 1), verbal)
    values.add_words(223901, row, hour, _MOTOR, motor - 1, motor)
    restless = (rng.random(len(row)) < 0.08) * rng.integers(1, 3, len(row))
    scale = np.clip(np.round(0.35 - 1.15 * asleep - 0.45 * np.maximum(deficit - asleep, 0)) + restless, -5, 3)
    values.add_words(228096, row, hour, _RASS, scale + 5, scale)


def _breathing(rng: np.random.Generator, stays: dict, values: Values) -> None:
    """Settings of the ventilator every three hours, else oxygen and its device every six."""
    row, hour, level = _hours(rng, stays, 3)
    tube = illness.is_ventilated(stays, row, hour)
    _, share, flow = physiology.oxygen(stays, row, hour, level)
    trait, failed = stays["traits"][row], level[:, RESPIRATION]
    noise = rng.normal(size=(3, len(row)))
    charted = stays["traits"][row, LAST_TRAIT + 3] < 2.2  # of few nothing is charted
    on, off = tube & charted, ~tube & _some(rng, 0.5, row)
    values.add(223835, row[on], hour[on], np.round(100 * share[on]), "%")
    pressure = np.clip(5 + 2.4 * np.maximum(failed - 1.0, 0) + 0.8 * noise[0], 5, 18)
    values.add(220339, row[on], hour[on], np.round(pressure[on]), "cmH2O")
    volume = (7.6 * (50 + 0.91 * (stays["height"] - 152.4) - 4.5 * ~stays["male"]))[row]
    volume = np.clip(volume * np.exp(0.10 * trait[:, _STIFF] + 0.08 * noise[1]), 200, 1100)
    values.add(224685, row[on], hour[on], np.round(volume[on]), "mL")
    total = np.clip(16 + 1.8 * failed + 2.6 * trait[:, _RATE] + 2.5 * noise[2], 8, 45)
    values.add(224690, row[on], hour[on], np.round(total[on]), "insp/min")
    mode = np.where(
        stays["tube_out"][row] - hour < 10, 1, np.where(trait[:, _STIFF] > 1, 3, np.where(failed > 1, 0, 2))
    )
    values.add_words(223849, row[on], hour[on], _MODES, mode[on])
    device = np.where(tube, 0, np.where(flow == 0, 4, np.where(flow < 6, 1, np.where(flow < 10, 2, 3))))
    seen = off | (on & _some(rng, 0.5, row))
    values.add_words(226732, row[seen], hour[seen], _DEVICES, device[seen])
    flowing = off & (flow > 0)
    values.add(223834, row[flowing], hour[flowing], flow[flowing], "L/min")


def _gases(rng: np.random.Generator, stays: dict, values: Values) -> None:
    """Arterial gases where there is a tube or an arterial line, more often while the lungs fail."""
    ill = sigmoid(0.9 * stays["organs"][:, RESPIRATION] + 0.4 * stays["severity"] - 2.1)
    drawn = (stays["ventilated"] | arterial_line(stays) | (rng.random(len(ill)) < ill)) & (rng.random(len(ill)) < 0.90)
    every = 9 / (1 + 0.4 * illness.level(stays, np.arange(len(ill)), np.zeros(len(ill)))[:, RESPIRATION])
    row, hour = grid(rng, np.where(drawn, np.maximum(stays["los"] / every, 1).astype(int), 0), every)
    level = illness.level(stays, row, hour)
    pressure, share, flow = physiology.oxygen(stays, row, hour, level)
    pco2, bicarbonate = physiology.acid(stays, row, level)
    noise = rng.normal(size=(4, len(row)))
    pco2 = np.clip(pco2 + 2.5 * noise[0], 14, 120)
    values.add(220235, row, hour, np.round(pco2), "mmHg", 0.4)
    acidity = np.clip(physiology.acidity(pco2, bicarbonate) + 0.012 * noise[1], 6.8, 7.7)
    values.add(223830, row, hour, np.round(acidity, 2), "", 0.4)
    values.add(220224, row, hour, np.round(np.clip(pressure * np.exp(0.13 * noise[2]), 35, 500)), "mmHg", 0.4)
    calcium = 1.125 + 0.055 * stays["traits"][row, LAST_TRAIT + 2] + 0.03 * noise[3]
    values.add(225667, row, hour, np.round(calcium, 2), "mmol/L", 0.4)
    masked = (flow > 6) & ~illness.is_ventilated(stays, row, hour)
    values.add(223835, row[masked], hour[masked] - 0.02, np.round(100 * share[masked]), "%")


def _body(rng: np.random.Generator, stays: dict, values: Values) -> None:
    """Weight, height, finger-stick glucose and code status."""
    size = len(stays["los"])
    every = np.arange(size)
    row = every[_some(rng, 0.92, every)]
    values.add(226512, row, rng.uniform(0.1, 0.9, len(row)), np.round(stays["weight"][row], 1), "kg")
    row = every[_some(rng, 0.51, every)]
    values.add(226730, row, rng.uniform(0.1, 0.9, len(row)), stays["height"][row], "cm")
    count = np.where(rng.random(size) < 0.75, stays["los"] / 24, 0).astype(int)
    row, hour = grid(rng, count, 24)
    weight = stays["weight"][row] + 0.04 * np.minimum(hour, 72) + rng.normal(0, 0.8, len(row))
    values.add(224639, row, hour, np.round(weight, 1), "kg")
    row, hour = grid(rng, np.where(rng.random(size) < 0.84, np.maximum(stays["los"] / 5.5, 1), 0).astype(int), 5.5)
    sugar = laboratory.value(stays, "Glucose", row, illness.level(stays, row, hour), rng)
    values.add(225664, row, hour, np.round(1.04 * sugar), "mg/dL")
    old = (stays["age"] - 63) / 16
    limited = rng.random(size) < sigmoid(-3.4 + 0.9 * old + 0.9 * stays["severity"])
    limit = np.where(limited, rng.integers(1, 3, size), 0)
    row = every[_some(rng, 0.7, every)]
    values.add_words(
        223758, row, rng.uniform(0.2, 6, len(row)) * np.minimum(stays["los"][row] / 6, 1), _CODES, limit[row]
    )
    comfort = every[(stays["died"] & (rng.random(size) < 0.5)) | (limited & (rng.random(size) < 0.1))]
    values.add_words(223758, comfort, stays["los"][comfort] * 0.97, _CODES, np.full(len(comfort), 3))


def unread(rng: np.random.Generator, stays: dict, per_hour: float) -> pa.Table:
    """chartevents of items that nothing reads, so many an hour: most of what MIMIC-IV charts is of that kind.

    For load tests; the numbers mean nothing, and the items (240000 to 240299) are in no dictionary.
    """
    row = np.repeat(np.arange(len(stays["los"])), np.round(stays["los"] * per_hour).astype(int))
    time = stays["intime"][row] + minutes(rng.random(len(row)) * stays["los"][row])
    number = rng.integers(0, 200, len(row))
    columns = ids(stays, row) | {
        "charttime": times(time),
        "storetime": times(time + HOUR // 4),
        "itemid": rng.integers(240_000, 240_300, len(row)).astype(np.int32),
        "value": chosen([str(n) for n in range(200)], number),
        "valuenum": pa.array(number.astype(float)),
        "valueuom": chosen([""], np.zeros(len(row))),
        "warning": np.zeros(len(row), np.int8),
    }
    return pa.table(columns)
