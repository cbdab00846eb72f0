"""The threshold on the score at which an alert goes off, chosen on pilot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from patientdx.metrics import decision


@dataclass(frozen=True)
class Rule:
    """How the threshold is chosen: Youden's index; else the highest threshold with a sensitivity, or the lowest that
    keeps to a number of alerts, where a number of stays is scored each day.
    """

    target_sensitivity: float | None = None
    alerts_per_day: float | None = None
    stays_per_day: float | None = None

    @property
    def name(self) -> str:
        """As results call it: youden, "sensitivity 0.9" or "4 alerts a day of 30 stays"."""
        if self.target_sensitivity is not None:
            return f"sensitivity {self.target_sensitivity:g}"
        if self.alerts_per_day is not None:
            return f"{self.alerts_per_day:g} alerts a day of {self.stays_per_day:g} stays"
        return "youden"

    def choose(self, score: ArrayLike, label: ArrayLike) -> float:
        """The threshold by these rows (n,), of probabilities and labels. ValueError where there is none."""
        if self.target_sensitivity is not None:
            return decision.threshold_for_sensitivity(score, label, self.target_sensitivity)
        if self.alerts_per_day is not None and self.stays_per_day is not None:
            return decision.threshold_for_alerts(score, label, self.alerts_per_day / self.stays_per_day)
        return decision.youden_threshold(score, label)

    def described(self, measured: dict[str, Any]) -> dict[str, Any]:
        """What the estimates at the threshold mean a day: `alerts_per_day`, where it is known how many are scored."""
        alerts = measured.get("alerts_per_100")
        if self.stays_per_day is None or alerts is None:
            return {}
        scaled = {
            k: None if alerts.get(k) is None else alerts[k] * self.stays_per_day / 100 for k in ("value", "low", "high")
        }
        return {"alerts_per_day": {**alerts, **scaled}}
