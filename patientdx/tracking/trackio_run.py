"""A run of trackio: config and final numbers in `<output>/trackio/<project>.db`, on this machine only.

trackio fixes its folder when it is imported, prints, and asks the hub who the user is where it finds a token. So it
runs in a process of its own, with a clean environment and for a bounded time: `python -m` this module, JSON in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from patientdx.tracking.run import Run

FOLDER = "trackio"

_SECONDS = 60.0
# What could send a run elsewhere, or say who runs it.
_OF_OTHERS = ("TRACKIO_", "HF_", "HUGGING", "SPACE_", "SYSTEM")


def record(run: Run) -> None:
    """Write one run, in place of an earlier one with the same id. Raises OSError where it did not get there."""
    folder = run.output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "project": run.project,
        "name": f"{run.name} {run.id[:8]}",
        "group": run.group,
        # Keys with a leading underline are trackio's own.
        "config": {key: value for key, value in run.config.items() if not key.startswith("_")}
        | {"id": run.id, "job_type": run.job_type, "tags": list(run.tags)},
        "numbers": run.numbers,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "patientdx.tracking.trackio_run"],
            input=json.dumps(content),
            env=_environment(folder),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"trackio did not end within {_SECONDS:.0f} seconds") from None
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or ["trackio ended without a word"])[-1])


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_OF_OTHERS)}
    here = [str(Path(__file__).parents[2]), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(here)}


def _write(content: dict) -> None:
    """Write the run and read it back: trackio makes a warning of whatever goes wrong."""
    import trackio

    project, name = content["project"], content["name"]
    try:
        earlier = [run for run in trackio.Api().runs(project) if run.name == name]
    except ValueError:  # the first run of the project
        earlier = []
    for run in earlier:
        run.delete()
    started = trackio.init(
        project=project,
        name=name,
        group=content["group"],
        config=content["config"],
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    started.log(content["numbers"])
    started.finish()
    written = [run for run in trackio.Api().runs(project) if run.name == name]
    if not written or (written[0].config or {}).get("id") != content["config"]["id"]:
        sys.exit("the run is not in trackio's database")


if __name__ == "__main__":
    _write(json.load(sys.stdin))
