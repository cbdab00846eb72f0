"""What follows from what: oxygen, carbon dioxide and acid, from the organs of a stay at an hour."""

import numpy as np

from patientdx.records.synthetic import illness
from patientdx.records.synthetic.illness import CIRCULATION, KIDNEYS, RESPIRATION

_LUNGS, _NEED, _BREATH, _ACID, _FLOW = range(5)  # traits of a stay
FIRST_TRAIT = 5  # the first that is free for other uses
CHRONIC_LUNG = "chronic lung disease"


def has(stays: dict, name: str) -> np.ndarray:
    """Whether each stay's patient has that chronic condition."""
    return stays["chronic"][:, illness.conditions().index(name)]


def oxygen(stays: dict, row: np.ndarray, hour: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, ...]:
    """(arterial PO2 in mmHg, inspired oxygen as a fraction, flow in L/min; no flow: room air or ventilated).

    The ratio of PO2 to inspired oxygen falls with the lungs; oxygen is given for what is needed, and at first too much.
    """
    trait = stays["traits"][row]
    ratio = np.clip(455 * np.exp(-0.42 * level[:, RESPIRATION] + 0.50 * trait[:, _LUNGS]), 45, 650)
    tube = illness.is_ventilated(stays, row, hour)
    since = np.where(tube, hour - np.where(tube, stays["tube_in"][row], 0), 0)
    target = 0.37 + 0.09 * level[:, RESPIRATION] + 0.11 * trait[:, _NEED] + 0.22 * np.exp(-np.maximum(since, 0) / 8)
    on_tube = np.clip(np.round(target * 20) / 20, 0.3, 1.0)
    need = (88 / ratio - 0.21) / 0.035 + 0.9 * trait[:, _FLOW] + 0.6
    flow = np.where(tube | (need < 0.5), 0, np.clip(np.round(need), 1, 15))
    share = np.where(tube, on_tube, np.minimum(0.21 + 0.035 * flow, 0.7))
    return np.clip(ratio * share, 38, 500), share, flow


def saturation(pressure: np.ndarray) -> np.ndarray:
    """Oxygen saturation in percent at a PO2 in mmHg (Severinghaus 1979)."""
    return 100 / (1 + 23400 / (pressure**3 + 150 * pressure))


def acid(stays: dict, row: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(arterial PCO2 in mmHg, bicarbonate in mmol/L): each is compensated in part for the other."""
    trait, lungs = stays["traits"][row], has(stays, CHRONIC_LUNG)[row]
    lost = metabolic(stays, row, level)
    retained = 2.2 * level[:, RESPIRATION] + 7.5 * lungs + 6.4 * trait[:, _BREATH]
    return np.clip(37.2 + retained - 0.62 * lost, 16, 110), np.clip(23.9 - lost + 0.26 * retained, 5, 45)


def metabolic(stays: dict, row: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Bicarbonate lost to acids, in mmol/L."""
    return 1.9 * (level[:, CIRCULATION] + level[:, KIDNEYS] - 0.9) + 3.2 * stays["traits"][row, _ACID]


def acidity(pco2: np.ndarray, bicarbonate: np.ndarray) -> np.ndarray:
    """pH by Henderson and Hasselbalch."""
    return 6.1 + np.log10(bicarbonate / (0.0307 * pco2))
