"""A finished run handed to a tracker, and the file that says so."""

from __future__ import annotations

from pathlib import Path

from patientdx.evaluation.config.tracking import TrackingConfig
from patientdx.evaluation.results import Record
from patientdx.evaluation.store import read_sealed_json, write_sealed_json
from patientdx.tracking import track

TRACKED = "tracked.json"


class TrackingPublisher:
    """A `runner.Publisher` by the `tracking` group of the config."""

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config

    def is_done(self, folder: Path) -> bool:
        """Whether the run is recorded in this mode; with mode none every run is."""
        mode = self._config.mode
        return mode == "none" or (read_sealed_json(folder / TRACKED) or {}).get("mode") == mode

    def publish(self, record: Record) -> None:
        """Record the run; a tracker that fails ends in a warning, and the run will be recorded when it is run again."""
        folder = record.folder
        run_id = track(self._config, **vars(record), predictions=folder / "predictions.parquet")
        if run_id is not None:
            write_sealed_json({"mode": self._config.mode, "id": run_id}, folder / TRACKED)
