"""Merging to disk and in memory beside mergekit 0.1.5 and beside the least that any merge must read and write.

Same parents, same dtype (bfloat16), same threads, warm page cache; the ways take turns in every round. mergekit lives
in an environment of its own, made once (torch from the CPU build, so that no other one is fetched):

    python -m venv .venv-mergekit
    .venv-mergekit/bin/pip install torch==2.13.0 mergekit==0.1.5 transformers==5.23.0
    python -m experiments.benchmarks.merge --mergekit-python .venv-mergekit/bin/python
    python -m experiments.benchmarks.merge --mergekit-python ... --sizes 135M --methods slerp --rounds 1 --parts disk

disk    whole commands, start-up included: `python run.py merge=... save=...` and `mergekit-yaml` (--no-copy-tokenizer
        --random-seed 1; with --async-write too). The floor is a process that reads every input tensor and writes
        one checkpoint (merge_floor.py); its seconds leave out its imports. Ours ends when all is on the disk (fsync),
        the other two when the system has taken it.
memory  a further λ of a SLERP curve, written into storage that is there, beside a plain copy of the same bytes and
        beside mergekit's in-memory API; and a sweep of 11 points beside 11 mergekit runs.

Before each run the disk is synchronised (not timed), so that no run pays for what the one before it wrote. Each run of
ours has an empty cache: what it keeps of its parents (their hashes) it works out anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.benchmarks.machine import machine
from experiments.benchmarks.merge_parents import FILE, SIZES, make_parents
from experiments.benchmarks.merge_rounding import Count, misrounded
from experiments.benchmarks.merge_table import (
    ASYNC,
    FLOOR,
    MERGEKIT,
    OUR_SWEEP,
    OURS,
    POINTS,
    THEIR_SWEEP,
    memory_table,
    quality_table,
    speed_table,
)
from experiments.benchmarks.merge_tasks import TASKS, Task, slerp
from experiments.benchmarks.merge_watch import Watched, watch
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import REPOSITORY
from patientdx.core.errors import UserError

SWEEP = [number / 10 for number in range(POINTS)]
FURTHER = [0.15, 0.25, 0.35, 0.45, 0.55]


def our_command(task: Task, places: Mapping[str, Path], out: Path) -> list[Any]:
    """What a user types to have the task's merge written to the folder `out`."""
    models = [f"base_model.source={places['base']}", "pivot_model=smollm2_135m_instruct"]
    models += [f"pivot_model.source={places['pivot']}"]
    if "ancestor" in task.inputs:
        models += ["base_model@ancestor=smollm2_135m_instruct", f"ancestor.source={places['ancestor']}"]
    rest = [f"save={out}", "task=none", "tracking=none", f"output={out.parent}/outputs"]
    if task.ours is None:
        return [sys.executable, "run.py", f"mergekit_config={_recipe(task, places, out)}", *rest]
    return [sys.executable, "run.py", f"merge={task.method}", *task.ours, *models, *rest]


def mergekit_command(
    python: Path, task: Task, places: Mapping[str, Path], out: Path, *options: str, dtype: str = "bfloat16"
) -> list[Any]:
    """The same merge by mergekit's command line, worked out in `dtype`; its config is written beside `out`."""
    config = _recipe(task, places, out, dtype)
    fixed = ["--no-copy-tokenizer", "--random-seed", "1", "--quiet"]
    # Not resolved: a venv's python is a link, and what it links to knows nothing of the venv.
    return [python.absolute().with_name("mergekit-yaml"), config, out, *fixed, *options]


def _recipe(task: Task, places: Mapping[str, Path], out: Path, dtype: str = "bfloat16") -> Path:
    """The task as mergekit's config, written beside `out`."""
    config = out.parent / "mergekit.yaml"
    config.write_text(json.dumps(task.mergekit(places) | {"dtype": dtype, "out_dtype": "bfloat16"}))  # JSON is YAML
    return config


def floor_command(task: Task, places: Mapping[str, Path], out: Path) -> list[Any]:
    """Read the task's inputs, write one checkpoint."""
    files = [places[model] / FILE for model in task.inputs]
    return [sys.executable, "-m", "experiments.benchmarks.merge_floor", out / FILE, *files]


def run(command: list[Any], inputs: list[Path], folder: Path, threads: int) -> Watched:
    """A watched command that has its own empty cache, and nothing left to write from the one before it."""
    env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PATIENTDX_CACHE": str(folder / "cache")}
    os.sync()
    return watch(command, inputs, REPOSITORY, os.environ | env)


def main() -> None:
    """Makes the parents, runs what is asked in turns, writes the CSV after each run, prints the tables."""
    asked = _arguments()
    _check_environment(asked.mergekit_python)
    with tempfile.TemporaryDirectory(prefix="merge-benchmark-") as folder:
        work = (asked.work or Path(folder)).absolute()
        rows: list[dict[str, Any]] = []
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            shown = progress.add_task("merge", total=_runs(asked))
            for row in _measured(asked, work, lambda text: progress.update(shown, description=text)):
                rows.append(row)
                progress.advance(shown)
                _write_csv(rows, asked.csv)
    console = Console(width=140)
    for part, table in (("disk", speed_table), ("disk", quality_table), ("memory", memory_table)):
        if part in asked.parts:
            console.print(table([row for row in rows if row["part"] == part]))
    console.print(machine(f"{asked.threads} threads", f"torch {torch.__version__}"))
    console.print(f"every run: {asked.csv}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit-python", type=Path, required=True, help="python of mergekit's environment")
    parser.add_argument(
        "--mergekit-dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="what mergekit works in (`dtype` of its config); bfloat16 is customary, and all it writes is bfloat16",
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["135M", "1.24B"])
    parser.add_argument("--methods", nargs="+", choices=list(TASKS), default=list(TASKS), help="of the part disk")
    parser.add_argument("--parts", nargs="+", choices=("disk", "memory"), default=["disk", "memory"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-async", action="store_true", help="leave out mergekit with --async-write")
    parser.add_argument(
        "--sweep-runs",
        type=int,
        choices=range(1, POINTS + 1),
        default=POINTS,
        help="mergekit runs of the sweep that are really made; the table scales fewer up, and says so",
    )
    parser.add_argument("--work", type=Path, help="keeps the parents for the next time; default: a temporary folder")
    parser.add_argument("--csv", type=Path, default=Path("outputs/benchmarks/merge.csv"))
    return parser.parse_args()


def _check_environment(python: Path) -> None:
    code = "import importlib.metadata as m; print(*map(m.version, ('mergekit', 'torch')))"
    recipe = "; ".join(line.strip() for line in __doc__.splitlines() if "-m venv" in line or "pip install" in line)
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{python} is no python with mergekit in it. Make one: {recipe}") from error
    here = torch.__version__.split("+")[0]
    if found[0] != "0.1.5" or found[1].split("+")[0] != here:
        raise UserError(f"{python} has mergekit {found[0]} and torch {found[1]}; this compares with 0.1.5 on {here}.")


def _runs(asked: argparse.Namespace) -> int:
    ways = sum((3 if asked.no_async else 4) if TASKS[method].mergekit else 2 for method in asked.methods)
    each = ways * asked.rounds * ("disk" in asked.parts)
    return len(asked.sizes) * (each + ("memory" in asked.parts) * (asked.rounds * 3 + asked.sweep_runs))


def _measured(asked: argparse.Namespace, work: Path, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """One row a run, as it ends."""
    for size in asked.sizes:
        places = make_parents(SIZES[size], work / size, lambda model, size=size: say(f"{size} making {model}"))
        if "disk" in asked.parts:
            ways = (FLOOR, OURS, MERGEKIT) if asked.no_async else (FLOOR, OURS, MERGEKIT, ASYNC)
            for method in asked.methods:
                for number in range(asked.rounds):
                    for way in ways if TASKS[method].mergekit else (FLOOR, OURS):
                        say(f"{size} {method} {way}")
                        yield _to_disk(asked, work / "run", size, TASKS[method], places, way, number)
        if "memory" in asked.parts:
            yield from _in_memory(asked, work / "run", size, places, say)


def _to_disk(
    asked: argparse.Namespace, folder: Path, size: str, task: Task, places: Mapping[str, Path], way: str, number: int
) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = folder / "merged"
    if way == FLOOR:
        out.mkdir()
        command = floor_command(task, places, out)
    elif way == OURS:
        command = our_command(task, places, out)
    else:
        more = ["--async-write"] if way == ASYNC else []
        command = mergekit_command(asked.mergekit_python, task, places, out, *more, dtype=asked.mergekit_dtype)
    found = run(command, [places[model] for model in task.inputs], folder, asked.threads)
    row = {
        "part": "disk", "size": size, "method": task.method, "way": way, "round": number, "wall": found.wall,
        "cpu": found.cpu, "peak": found.peak, "opened": found.opened, "wrote": found.wrote,
    }  # fmt: skip
    if way == FLOOR:
        row |= _said(found)
    elif number == 0 and task.formula is not None:
        count = compare(task, places, out, SIZES[size].samples)
        row |= {"elements": count.elements, "wrong": count.wrong, "steps": count.steps, "left_out": count.open}
    shutil.rmtree(folder)
    return row


def compare(task: Task, places: Mapping[str, Path], merged: Path, names: tuple[str, ...]) -> Count:
    """Misrounded elements of the named tensors in a merged folder."""
    opened = {model: Checkpoint(place) for model, place in places.items()}
    result = Checkpoint(merged)
    total = Count(0, 0, 0, 0)
    for name in names:
        pair = [opened["base"].read(name), opened["pivot"].read(name)]
        total += misrounded(result.read(name), task.formula(pair, opened["ancestor"].read(name)))
    return total


def _in_memory(
    asked: argparse.Namespace, folder: Path, size: str, places: Mapping[str, Path], say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    pair = [places["base"], places["pivot"]]
    ours = [sys.executable, "-m", "experiments.benchmarks.merge_memory", *pair]
    files = [place / FILE for place in pair]
    theirs = [asked.mergekit_python.absolute(), "experiments/benchmarks/merge_mergekit.py", *files]
    further, sweep = (",".join(map(str, weights)) for weights in (FURTHER, SWEEP))
    for number in range(asked.rounds):
        for what, way, command in (
            ("further λ, ours", OURS, [*ours, further, "copies"]),
            ("further λ, mergekit", MERGEKIT, [*theirs, further]),
            ("sweep, ours", OUR_SWEEP, [*ours, sweep]),
        ):
            say(f"{size} {what}")
            found = run(command, pair, folder, asked.threads)
            yield {
                "part": "memory", "size": size, "method": "slerp", "way": way, "round": number, "wall": found.wall,
                "cpu": found.cpu, "peak": found.peak, **_said(found),
            }  # fmt: skip
    for number, weight in enumerate(SWEEP[: asked.sweep_runs]):
        say(f"{size} sweep, mergekit λ={weight:g}")
        row = _to_disk(asked, folder, size, slerp(weight), places, MERGEKIT, number)
        yield row | {"part": "memory", "way": THEIR_SWEEP}


def _said(found: Watched) -> dict[str, Any]:
    return json.loads(found.output.strip().splitlines()[-1])


def _write_csv(rows: list[dict[str, Any]], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as refusal:
        raise SystemExit(str(refusal)) from None
