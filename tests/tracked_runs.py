"""What a tracked run holds, read by the tracker's own tools."""

import json
import re
import subprocess
from pathlib import Path

from wandb.util import get_core_path


def inspect(folder: Path, run_id: str, *options: str) -> str:
    """What wandb's own reader says about the run of that id below a result folder: `wandb leet inspect`, directly."""
    (log,) = (folder / "wandb").glob(f"*run-*-{run_id}/*.wandb")
    command = [get_core_path(), "leet", "inspect", "-json", "-no-observability", *options, "-run-file", str(log)]
    return subprocess.run([*command, str(log.parent)], capture_output=True, text=True, check=True).stdout


def log_records(folder: Path, run_id: str) -> dict[str, list[dict]]:
    """The records of the run's log by type, such as run, history and artifact."""
    found: dict[str, list[dict]] = {}
    for line in inspect(folder, run_id).splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record.get(record["type"], record))
    return found


def run_record(folder: Path, run_id: str) -> dict:
    """The one record that says what the run is called."""
    (run,) = log_records(folder, run_id)["run"]
    return run


def final_state(folder: Path, run_id: str) -> dict:
    """Config, summary and exit code as they are at the end."""
    return json.loads(inspect(folder, run_id, "-summary"))


def run_id_of(folder: Path) -> str:
    """The id of the only offline run of a result folder."""
    (place,) = (folder / "wandb").glob("offline-run-*")
    return re.fullmatch(r"offline-run-\d{8}_\d{6}-(.*)", place.name).group(1)
