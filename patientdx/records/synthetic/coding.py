"""diagnoses_icd: codes of an admission, given after discharge and so aware of all that happened in it."""

import numpy as np
import pyarrow as pa

from patientdx.records.synthetic import illness
from patientdx.records.synthetic.tables import chosen, numbers, rows, sigmoid

_RECORDED = 0.92  # of chronic conditions


def diagnoses(rng: np.random.Generator, stays: dict) -> pa.Table:
    """What the patient came for, chronic conditions, and what failed; palliative care leaks the outcome."""
    _, first = np.unique(stays["hadm_id"], return_index=True)
    size = len(first)
    worst = illness.level(stays, first, np.full(size, 24.0))
    who: dict[str, np.ndarray] = {}
    for number, case in enumerate(illness.cases()):
        for part in case["codes"].split("|"):
            code, share = part.split(":")
            has = (stays["case"][first] == number) & (rng.random(size) < float(share))
            who[code] = who.get(code, np.zeros(size, bool)) | has
    for row, has in zip(rows("conditions.csv"), stays["chronic"][first].T, strict=True):
        who[row["code"]] = who.get(row["code"], np.zeros(size, bool)) | (has & (rng.random(size) < _RECORDED))
    for row, (odds, slope, death) in zip(
        rows("codes.csv"), numbers("codes.csv", ("odds", "slope", "death")), strict=True
    ):
        if row["organ"]:
            failed = worst[:, illness.ORGANS.index(row["organ"])]
            logit = odds + slope * failed + death * stays["died_in_hospital"][first]
            who[row["code"]] = who.get(row["code"], np.zeros(size, bool)) | (rng.random(size) < sigmoid(logit))
    admission, code = np.nonzero(np.column_stack(list(who.values())))
    rank = np.arange(len(admission)) - np.searchsorted(admission, admission)
    columns = {name: stays[name][first][admission] for name in ("subject_id", "hadm_id")}
    columns |= {
        "seq_num": (rank + 1).astype(np.int32),
        "icd_code": chosen(list(who), code),
        "icd_version": np.full(len(code), 10, np.int32),
    }
    return pa.table(columns)
