"""Merging to disk and in memory beside mergekit 0.1.5 and beside the least that any merge must read and write.

Same parents, same dtype (bfloat16), same threads, warm page cache; the ways alternate in every round. mergekit lives
in an environment of its own, made once (torch from the CPU build, so that no other one is fetched):

    python -m venv .venv-mergekit
    .venv-mergekit/bin/pip install torch==2.13.0 mergekit==0.1.5 transformers==5.23.0
    python -m experiments.benchmarks.merge --mergekit-python .venv-mergekit/bin/python
    python -m experiments.benchmarks.merge --mergekit-python ... --sizes 135M --methods slerp --rounds 1 --parts disk

disk    whole commands, start-up included: `python run.py merge=... save=...` and `mergekit-yaml` (--no-copy-tokenizer
        --random-seed 1; with --async-write too). The floor is a process that reads every input tensor and writes
        one checkpoint (merge_children.py); its seconds leave out its imports. Ours ends when all is on the disk
        (fsync), the other two when the system has accepted it.
memory  a further λ of a SLERP curve, written into existing storage, beside a plain copy of the same bytes and
        beside mergekit's in-memory API; and a sweep of 11 points beside 11 mergekit runs.

Before each run the disk is synchronised (not timed), so that no run pays for the writes of the run before. Each run of
ours has an empty cache: the hashes of its parents are computed anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.benchmarks import harness
from experiments.benchmarks.harness import REPOSITORY
from experiments.benchmarks.merge_parents import FILE, SIZES, make_parents
from experiments.benchmarks.merge_rounding import Count, misrounded
from experiments.benchmarks.merge_table import (
    ASYNC,
    FLOOR,
    MERGEKIT,
    MERGEKIT_SWEEP,
    OUR_SWEEP,
    OURS,
    POINTS,
    memory_table,
    quality_table,
    speed_table,
)
from experiments.benchmarks.merge_tasks import TASKS, Task, slerp
from experiments.benchmarks.watch import Watched, watch
from patientdx.checkpoints.reader import Checkpoint

SWEEP_WEIGHTS = [number / 10 for number in range(POINTS)]
FURTHER_WEIGHTS = [0.15, 0.25, 0.35, 0.45, 0.55]


def our_command(task: Task, folders: Mapping[str, Path], output: Path) -> list[Any]:
    """The command that writes the task's merge to the folder `output`."""
    models = [f"base_model.source={folders['base']}", "pivot_model=smollm2_135m_instruct"]
    models += [f"pivot_model.source={folders['pivot']}"]
    if "ancestor" in task.inputs:
        models += ["base_model@ancestor=smollm2_135m_instruct", f"ancestor.source={folders['ancestor']}"]
    rest = [f"save={output}", "task=none", "tracking=none", f"output={output.parent}/outputs"]
    if task.ours is None:
        return [sys.executable, "run.py", f"mergekit_config={_recipe(task, folders, output)}", *rest]
    return [sys.executable, "run.py", f"merge={task.method}", *task.ours, *models, *rest]


def mergekit_command(
    python: Path, task: Task, folders: Mapping[str, Path], output: Path, *options: str, dtype: str = "bfloat16"
) -> list[Any]:
    """The same merge by mergekit's command line, computed in `dtype`; its config is written beside `output`."""
    config = _recipe(task, folders, output, dtype)
    fixed = ["--no-copy-tokenizer", "--random-seed", "1", "--quiet"]
    return [python.absolute().with_name("mergekit-yaml"), config, output, *fixed, *options]


def _recipe(task: Task, folders: Mapping[str, Path], output: Path, dtype: str = "bfloat16") -> Path:
    """The task as mergekit's config, written beside `output`."""
    config = output.parent / "mergekit.yaml"
    config.write_text(json.dumps(task.mergekit(folders) | {"dtype": dtype, "out_dtype": "bfloat16"}))  # JSON is YAML
    return config


def floor_command(task: Task, folders: Mapping[str, Path], output: Path) -> list[Any]:
    """Read the task's inputs, write one checkpoint."""
    files = [folders[model] / FILE for model in task.inputs]
    return [sys.executable, "-m", "experiments.benchmarks.merge_children", "floor", output / FILE, *files]


def run(command: list[Any], inputs: list[Path], folder: Path, threads: int) -> Watched:
    """A watched command that has an empty cache, and nothing left to write from the command before."""
    env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PATIENTDX_CACHE": str(folder / "cache")}
    os.sync()
    return watch(command, inputs, REPOSITORY, os.environ | env)


def main() -> None:
    """Make the parents, alternate the runs, write the CSV after each run, print the tables."""
    args = _arguments()
    here = torch.__version__.split("+")[0]
    harness.check_environment(args.mergekit_python, {"mergekit": "0.1.5", "torch": here}, __doc__)
    with tempfile.TemporaryDirectory(prefix="merge-benchmark-") as folder:
        rows: list[dict[str, Any]] = []
        with tqdm(total=_runs(args), unit="run") as progress:
            for row in _measured(args, (args.work or Path(folder)).absolute(), progress.set_description):
                rows.append(row)
                progress.update()
                harness.write_csv(rows, args.csv)
    for part, table in (("disk", speed_table), ("disk", quality_table), ("memory", memory_table)):
        if part in args.parts:
            harness.show(table([row for row in rows if row["part"] == part]))
    print(harness.machine(f"{args.threads} threads", f"torch {torch.__version__}"))
    print(f"every run: {args.csv}")


def _arguments() -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("--mergekit-python", type=Path, required=True, help="python of mergekit's environment")
    parser.add_argument(
        "--mergekit-dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="what mergekit computes in (`dtype` of its config); bfloat16 is customary, and all it writes is bfloat16",
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
        help="mergekit runs of the sweep that are really made; the table scales fewer up, and marks it",
    )
    parser.add_argument("--work", type=Path, help="keeps the parents for the next time; default: a temporary folder")
    parser.add_argument("--csv", type=Path, default=Path("outputs/benchmarks/merge.csv"))
    return parser.parse_args()


def _ways(args: argparse.Namespace, method: str) -> list[str]:
    mergekit = [MERGEKIT] if args.no_async else [MERGEKIT, ASYNC]
    return [FLOOR, OURS, *(mergekit if TASKS[method].in_mergekit else [])]


def _runs(args: argparse.Namespace) -> int:
    disk = sum(len(_ways(args, method)) for method in args.methods) * args.rounds
    return len(args.sizes) * (
        ("disk" in args.parts) * disk + ("memory" in args.parts) * (args.rounds * 3 + args.sweep_runs)
    )


def _measured(args: argparse.Namespace, work: Path, describe: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """One row per run, as it ends."""
    for size in args.sizes:
        folders = make_parents(SIZES[size], work / size, lambda model, size=size: describe(f"{size} making {model}"))
        if "disk" in args.parts:
            for method in args.methods:
                for number in range(args.rounds):
                    for way in _ways(args, method):
                        describe(f"{size} {method} {way}")
                        yield _to_disk(args, work / "run", size, TASKS[method], folders, way, number)
        if "memory" in args.parts:
            yield from _in_memory(args, work / "run", size, folders, describe)


def _to_disk(
    args: argparse.Namespace, folder: Path, size: str, task: Task, folders: Mapping[str, Path], way: str, number: int
) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output = folder / "merged"
    if way == FLOOR:
        output.mkdir()
        command = floor_command(task, folders, output)
    elif way == OURS:
        command = our_command(task, folders, output)
    else:
        options = ["--async-write"] if way == ASYNC else []
        command = mergekit_command(args.mergekit_python, task, folders, output, *options, dtype=args.mergekit_dtype)
    result = run(command, [folders[model] for model in task.inputs], folder, args.threads)
    row = _row("disk", size, task.method, way, number, result) | {"opened": result.opened, "wrote": result.wrote}
    if way == FLOOR:
        row |= _printed(result)
    elif number == 0 and task.formula is not None:
        count = compare(task, folders, output, SIZES[size].samples)
        row |= {"elements": count.elements, "wrong": count.wrong, "steps": count.steps, "left_out": count.open}
    shutil.rmtree(folder)
    return row


def compare(task: Task, folders: Mapping[str, Path], merged: Path, names: tuple[str, ...]) -> Count:
    """Misrounded elements of the named tensors in a merged folder."""
    assert task.formula is not None
    parents = {model: Checkpoint(folder) for model, folder in folders.items()}
    result = Checkpoint(merged)
    total = Count(0, 0, 0, 0)
    for name in names:
        pair = [parents["base"].read(name), parents["pivot"].read(name)]
        total += misrounded(result.read(name), task.formula(pair, parents["ancestor"].read(name)))
    return total


def _in_memory(
    args: argparse.Namespace, folder: Path, size: str, folders: Mapping[str, Path], describe: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    pair = [folders["base"], folders["pivot"]]
    ours = [sys.executable, "-m", "experiments.benchmarks.merge_children", "points", *pair]
    files = [path / FILE for path in pair]
    mergekit = [args.mergekit_python.absolute(), "experiments/benchmarks/merge_mergekit.py", *files]
    further, all_weights = (",".join(map(str, weights)) for weights in (FURTHER_WEIGHTS, SWEEP_WEIGHTS))
    for number in range(args.rounds):
        for way, command in (
            (OURS, [*ours, further, "copies"]),
            (MERGEKIT, [*mergekit, further]),
            (OUR_SWEEP, [*ours, all_weights]),
        ):
            describe(f"{size} in memory, {way}")
            result = run(command, pair, folder, args.threads)
            yield _row("memory", size, "slerp", way, number, result) | _printed(result)
    for number, weight in enumerate(SWEEP_WEIGHTS[: args.sweep_runs]):
        describe(f"{size} sweep, mergekit λ={weight:g}")
        row = _to_disk(args, folder, size, slerp(weight), folders, MERGEKIT, number)
        yield row | {"part": "memory", "way": MERGEKIT_SWEEP}


def _row(part: str, size: str, method: str, way: str, number: int, result: Watched) -> dict[str, Any]:
    measured = {"wall": result.wall, "cpu": result.cpu, "peak": result.peak}
    return {"part": part, "size": size, "method": method, "way": way, "round": number, **measured}


def _printed(result: Watched) -> dict[str, Any]:
    return json.loads(result.output.strip().splitlines()[-1])


if __name__ == "__main__":
    harness.run(main)
