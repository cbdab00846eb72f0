"""Who is in the synthetic hospital and what is measured on them. Nothing here comes from a real patient.

One hidden severity per stay moves readings, drugs, procedures, urine output and the chance of death, each
with noise of its own. Means, spreads and loadings below were chosen by hand for a plausible intensive care
unit.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

HOUR = 3_600_000_000  # microseconds


@dataclass(frozen=True)
class Reading:
    """How one chart item behaves: stay mean = centre + spread * z (times e^ if log), z loaded on severity."""

    itemid: int
    centre: float
    spread: float
    loading: float
    noise: float
    every: float
    measured: float
    log: bool = False
    both: bool = False
    decimals: int = 0
    unit: str = ""
    minimum: float = 0.0
    maximum: float = 1e9


# centre, spread and noise in the item's unit (in log units where log is set); `every` in hours; `measured` is
# the share of stays that have the item (for the gases, of those not ventilated).
READINGS = (
    Reading(220045, 86, 15, 0.40, 7, 2, 1.0, unit="bpm", minimum=25, maximum=190),
    Reading(220181, 78, 10, -0.45, 7, 2, 0.99, unit="mmHg", minimum=35, maximum=150),
    Reading(220210, 18.5, 3.8, 0.42, 2.5, 2, 1.0, unit="insp/min", minimum=5, maximum=50),
    Reading(220277, 96.8, 1.9, -0.40, 1.2, 2, 1.0, unit="%", minimum=70, maximum=100),
    Reading(223761, 98.5, 1.0, 0.15, 0.6, 4, 0.97, both=True, decimals=1, unit="°F", minimum=90, maximum=107),
    Reading(220615, 0.05, 0.55, 0.40, 0.08, 12, 0.90, log=True, decimals=1, unit="mg/dL", minimum=0.2),
    Reading(225624, 3.0, 0.55, 0.45, 0.08, 12, 0.90, log=True, unit="mg/dL", minimum=2),
    Reading(220645, 138.5, 4.2, 0.10, 1.5, 12, 0.88, both=True, unit="mEq/L", minimum=110, maximum=170),
    Reading(227442, 4.15, 0.42, 0.20, 0.25, 12, 0.85, both=True, decimals=1, unit="mEq/L", minimum=2, maximum=8),
    Reading(227443, 24.5, 3.4, -0.42, 1.2, 12, 0.75, unit="mEq/L", minimum=6, maximum=45),
    Reading(220546, 2.25, 0.42, 0.32, 0.10, 12, 0.85, log=True, decimals=1, unit="K/uL", minimum=0.2),
    Reading(220228, 11.3, 1.9, -0.25, 0.4, 12, 0.85, decimals=1, unit="g/dl", minimum=4, maximum=19),
    Reading(227457, 5.25, 0.50, -0.35, 0.06, 12, 0.80, log=True, unit="K/uL", minimum=5),
    Reading(220621, 4.88, 0.26, 0.25, 0.12, 8, 0.85, log=True, unit="mg/dL", minimum=40),
    Reading(227467, 0.20, 0.24, 0.38, 0.04, 24, 0.30, log=True, decimals=1, minimum=0.8),
    Reading(225690, -0.35, 0.85, 0.35, 0.08, 24, 0.18, log=True, decimals=1, unit="mg/dL", minimum=0.1),
    Reading(225668, 0.45, 0.50, 0.50, 0.15, 8, 0.35, log=True, decimals=1, unit="mmol/L", minimum=0.4),
    Reading(223830, 7.38, 0.06, -0.42, 0.02, 8, 0.08, decimals=2, minimum=6.9, maximum=7.7),
    Reading(220235, 40, 6.5, 0.15, 2.5, 8, 0.08, unit="mmHg", minimum=15, maximum=110),
    Reading(220224, 4.60, 0.30, -0.25, 0.15, 8, 0.06, log=True, unit="mmHg", minimum=35),
    Reading(223835, 42, 9, 0.40, 4, 4, 0.03, unit="", minimum=21, maximum=100),
)
GASES = frozenset((223830, 220235, 220224, 223835))
COMA = (
    (220739, 4, 1.0),
    (223900, 5, 1.7),
    (223901, 6, 1.2),
)  # item, best score, points lost per unit of deficit


@dataclass(frozen=True)
class Intervention:
    """A drug or procedure: log-odds of being given at severity 0, their slope, mean number of rows, unit."""

    itemid: int
    odds: float
    slope: float
    rows: float
    amount: float = 0.0
    unit: str = ""
    ventilated: float = 0.0


DRUGS = (
    Intervention(221906, -1.9, 1.5, 8, 2.0, "mg"),  # norepinephrine
    Intervention(222315, -4.0, 1.6, 3, 20, "units"),  # vasopressin
    Intervention(221749, -2.6, 0.5, 6, 5.0, "mg"),  # phenylephrine
    Intervention(222168, -2.6, 0.2, 9, 300, "mg", ventilated=4.5),  # propofol
    Intervention(221744, -2.0, 0.3, 5, 0.2, "mg", ventilated=2.0),  # fentanyl
    Intervention(223258, -0.7, 0.5, 6, 6, "units"),  # insulin
    Intervention(221794, -0.9, 0.2, 3, 40, "mg"),  # furosemide
    Intervention(225798, -1.0, 0.6, 3, 1, "dose"),  # vancomycin
    Intervention(225893, -1.8, 0.6, 4, 1, "dose"),  # piperacillin/tazobactam
    Intervention(225975, 0.2, 0.0, 4, 1, "dose"),  # heparin, prophylactic
    Intervention(225910, -0.8, 0.1, 2, 1, "dose"),  # pantoprazole
    Intervention(225974, -1.5, -0.4, 2, 5, "mg"),  # metoprolol
    Intervention(225168, -2.2, 0.4, 1, 350, "mL"),  # packed red cells
    Intervention(225158, 1.2, 0.2, 6, 250, "mL"),  # saline: charted, never printed
)
PROCEDURES = (
    Intervention(225752, -0.9, 0.7, 1, ventilated=1.5),  # arterial line
    Intervention(224263, -1.6, 1.0, 1),  # central line
    Intervention(225794, -2.8, 0.6, 1, ventilated=-2.0),  # noninvasive ventilation
    Intervention(225802, -4.6, 1.6, 1),  # continuous dialysis
    Intervention(225400, -3.3, 0.4, 1, ventilated=1.0),  # bronchoscopy
    Intervention(225459, 0.4, 0.2, 1),  # chest X-ray: charted, never printed
    Intervention(224275, 0.8, 0.0, 1),  # peripheral line: charted, never printed
)
VENTILATION = 225792
FOLEY, VOID = 226559, 226560
CODES = (  # ICD-10-CM code, title, log-odds at severity 0, slope, extra for those who die in hospital
    ("I10", "Essential (primary) hypertension", 0.0, -0.1, 0.0),
    ("E119", "Type 2 diabetes mellitus without complications", -1.2, 0.0, 0.0),
    ("I509", "Heart failure, unspecified", -1.2, 0.2, 0.0),
    ("I4891", "Unspecified atrial fibrillation", -1.2, 0.2, 0.0),
    ("N179", "Acute kidney failure, unspecified", -0.8, 0.9, 0.0),
    ("N189", "Chronic kidney disease, unspecified", -1.6, 0.2, 0.0),
    ("J449", "Chronic obstructive pulmonary disease, unspecified", -1.8, 0.1, 0.0),
    ("J9600", "Acute respiratory failure, unspecified whether with hypoxia or hypercapnia", -1.2, 0.9, 0.0),
    ("A419", "Sepsis, unspecified organism", -1.6, 1.0, 0.0),
    ("R6521", "Severe sepsis with septic shock", -2.8, 1.2, 0.0),
    ("K922", "Gastrointestinal hemorrhage, unspecified", -2.4, 0.1, 0.0),
    ("Z515", "Encounter for palliative care", -4.5, 0.3, 4.5),  # coded at discharge, so it leaks the outcome
    ("Z66", "Do not resuscitate", -3.5, 0.3, 3.0),
    ("I2510", "Atherosclerotic heart disease of native coronary artery without angina pectoris", -1.4, 0.1, 0.0),
)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _grid(rng: np.random.Generator, stays: dict, keep: np.ndarray, every: float) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers into `stays` and jittered times (microseconds) every so many hours, up to day five."""
    span = np.minimum(stays["los"], 120.0)
    counts = np.where(keep, np.maximum(1, (span / every).astype(int)), 0)
    row = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    hours = np.minimum((step + rng.uniform(0.05, 0.6, len(row))) * every, stays["los"][row])
    return row, stays["intime"][row] + (hours * 60).astype(np.int64) * (HOUR // 60)


def _ids(stays: dict, row: np.ndarray) -> dict[str, np.ndarray]:
    return {name: stays[name][row] for name in ("subject_id", "hadm_id", "stay_id")}


def _chart(stays: dict, row: np.ndarray, time: np.ndarray, item: int, value: np.ndarray, unit: str) -> pa.Table:
    columns = _ids(stays, row) | {
        "charttime": pa.array(time, pa.timestamp("us")),
        "storetime": pa.array(time + HOUR // 4, pa.timestamp("us")),
        "itemid": np.full(len(row), item, np.int32),
        "value": pa.array(np.char.mod("%g", value) if len(value) else [], pa.string()),
        "valuenum": value,
        "valueuom": pa.array([unit] * len(row), pa.string()),
        "warning": np.zeros(len(row), np.int8),
    }
    return pa.table(columns)


def chart(rng: np.random.Generator, stays: dict) -> list[pa.Table]:
    """chartevents: every reading on its own grid, drifting to worse for those who will die."""
    severity, total = stays["severity"], len(stays["severity"])
    drift = np.where(stays["died"], 0.35, -0.20) + rng.normal(0, 0.25, total)
    tables = []
    for reading in READINGS:
        independent = rng.normal(size=total)
        z = reading.loading * severity + np.sqrt(1 - reading.loading**2) * independent
        if reading.both:
            z *= 1 + 0.5 * np.clip(severity, 0, 3)
        keep = rng.random(total) < reading.measured
        if reading.itemid in GASES:
            keep |= stays["ventilated"] & (rng.random(total) < 0.7)
        row, time = _grid(rng, stays, keep, reading.every)
        elapsed = (time - stays["intime"][row]) / (48 * HOUR)
        z = z[row] + reading.loading * drift[row] * elapsed
        value = reading.centre + reading.spread * z + rng.normal(0, reading.noise, len(row))
        value = np.clip(np.exp(value) if reading.log else value, reading.minimum, reading.maximum)
        tables.append(_chart(stays, row, time, reading.itemid, np.round(value, reading.decimals), reading.unit))
    deficit = np.clip(0.4 * severity + rng.normal(0, 0.7, total) - 0.5 + 0.8 * stays["ventilated"], 0, 3)
    for item, best, points in COMA:
        row, time = _grid(rng, stays, rng.random(total) < 0.99, 4)
        value = np.round(best - points * deficit[row] + np.minimum(rng.normal(0, 0.3, len(row)), 0.4))
        tables.append(_chart(stays, row, time, item, np.clip(value, 1, best), ""))
    return tables


def unread(rng: np.random.Generator, stays: dict, per_hour: float) -> pa.Table:
    """chartevents of items that nothing reads, so many an hour: most of what MIMIC-IV charts is of that kind.

    For load tests; the numbers mean nothing, and the items (240000 to 240299) are in no dictionary.
    """
    row = np.repeat(np.arange(len(stays["los"])), np.round(stays["los"] * per_hour).astype(int))
    time = stays["intime"][row] + (rng.random(len(row)) * stays["los"][row] * 60).astype(np.int64) * (HOUR // 60)
    number = rng.integers(0, 200, len(row))
    columns = _ids(stays, row) | {
        "charttime": pa.array(time, pa.timestamp("us")),
        "storetime": pa.array(time + HOUR // 4, pa.timestamp("us")),
        "itemid": rng.integers(240_000, 240_300, len(row)).astype(np.int32),
        "value": pa.array([str(n) for n in range(200)]).take(pa.array(number)),
        "valuenum": number.astype(float),
        "valueuom": pa.array([""]).take(pa.array(np.zeros(len(row), np.int8))),
        "warning": np.zeros(len(row), np.int8),
    }
    return pa.table(columns)


def _events(
    rng: np.random.Generator, stays: dict, intervention: Intervention
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, start and end of one drug's or procedure's events; half of them begin on the first day."""
    odds = intervention.odds + intervention.slope * stays["severity"] + intervention.ventilated * stays["ventilated"]
    keep = rng.random(len(odds)) < _sigmoid(odds)
    counts = np.where(keep, 1 + rng.poisson(intervention.rows - 1, len(odds)), 0)
    row = np.repeat(np.arange(len(counts)), counts)
    span = np.minimum(stays["los"][row], np.where(rng.random(len(row)) < 0.5, 24.0, 120.0))
    start = stays["intime"][row] + (rng.random(len(row)) * span * 60).astype(np.int64) * (HOUR // 60)
    end = start + (rng.uniform(0.2, 6, len(row)) * 60).astype(np.int64) * (HOUR // 60)
    return row, start, end


def _period(stays: dict, row: np.ndarray, start: np.ndarray, end: np.ndarray, item: int) -> dict:
    return _ids(stays, row) | {
        "starttime": pa.array(start, pa.timestamp("us")),
        "endtime": pa.array(end, pa.timestamp("us")),
        "itemid": np.full(len(row), item, np.int32),
    }


def inputs(rng: np.random.Generator, stays: dict) -> list[pa.Table]:
    """inputevents: one row per infusion or dose."""
    tables = []
    for drug in DRUGS:
        row, start, end = _events(rng, stays, drug)
        amount = np.round(drug.amount * rng.lognormal(0, 0.4, len(row)), 3)
        columns = _period(stays, row, start, end, drug.itemid)
        unit = pa.array([drug.unit] * len(row), pa.string())
        tables.append(pa.table(columns | {"amount": amount, "amountuom": unit}))
    return tables


def procedures(rng: np.random.Generator, stays: dict) -> list[pa.Table]:
    """procedureevents: ventilation, lines, dialysis; value is the length in minutes, as in MIMIC-IV."""
    tables = []
    for intervention in PROCEDURES:
        row, start, end = _events(rng, stays, intervention)
        tables.append(_procedure(stays, row, start, end, intervention.itemid))
    row = np.flatnonzero(stays["ventilated"])
    start = stays["intime"][row] + (rng.uniform(0, 6, len(row)) * 60).astype(np.int64) * (HOUR // 60)
    length = stays["los"][row] * rng.uniform(0.2, 0.9, len(row))
    tables.append(_procedure(stays, row, start, start + (length * HOUR).astype(np.int64), VENTILATION))
    return tables


def _procedure(stays: dict, row: np.ndarray, start: np.ndarray, end: np.ndarray, item: int) -> pa.Table:
    minutes = (end - start) / (HOUR / 60)
    columns = {"value": np.round(minutes), "valueuom": pa.array(["min"] * len(row), pa.string())}
    return pa.table(_period(stays, row, start, end, item) | columns)


def outputs(rng: np.random.Generator, stays: dict) -> list[pa.Table]:
    """outputevents: urine every four hours, less of it in sicker stays; by catheter or voided."""
    severity = stays["severity"]
    rate = 65 * np.exp(-0.4 * severity + rng.normal(0, 0.35, len(severity)))
    catheter = rng.random(len(severity)) < _sigmoid(0.8 + 0.8 * severity)
    tables = []
    for item, keep in ((FOLEY, catheter), (VOID, ~catheter)):
        row, time = _grid(rng, stays, keep & (rng.random(len(severity)) < 0.97), 4)
        value = np.round(4 * rate[row] * rng.lognormal(0, 0.35, len(row)))
        columns = _ids(stays, row) | {
            "charttime": pa.array(time, pa.timestamp("us")),
            "itemid": np.full(len(row), item, np.int32),
            "value": value,
            "valueuom": pa.array(["ml"] * len(row), pa.string()),
        }
        tables.append(pa.table(columns))
    return tables


def diagnoses(rng: np.random.Generator, stays: dict) -> list[pa.Table]:
    """diagnoses_icd: codes per admission, given after discharge and so aware of the outcome."""
    _, first = np.unique(stays["hadm_id"], return_index=True)
    tables = []
    for rank, (code, _, odds, slope, after) in enumerate(CODES, start=1):
        logit = odds + slope * stays["severity"][first] + after * stays["died_in_hospital"][first]
        row = first[rng.random(len(first)) < _sigmoid(logit)]
        columns = {
            "subject_id": stays["subject_id"][row],
            "hadm_id": stays["hadm_id"][row],
            "seq_num": np.full(len(row), rank, np.int32),
            "icd_code": pa.array([code] * len(row), pa.string()),
            "icd_version": np.full(len(row), 10, np.int32),
        }
        tables.append(pa.table(columns))
    return tables
