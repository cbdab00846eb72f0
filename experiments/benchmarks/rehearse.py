"""A large pair rehearsed with random weights: merged to disk, verified, and scored on a few records.

    python -m experiments.benchmarks.rehearse --shape 8.03B --work DIR --load int8 --records 8 --max-tokens 192
    python -m experiments.benchmarks.rehearse --shape 1.24B --records 8

The parents are made first and stay in --work, 16 GB each at 8.03B, beside them a merge of as much. Every step is a
command of its own. Its row shows seconds, the most anonymous memory, and the most resident memory, in which are pages
of the parents' mapped files that were read; the system drops these when memory is short. The answers mean nothing. The
tokenizer is that of the default base model, or of --tokenizer; the parents have the vocabulary of their shape.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.benchmarks import harness
from experiments.benchmarks.merge_parents import SIZES, make_parents
from experiments.benchmarks.watch import watch
from patientdx.core.errors import UserError

PARENTS = ("base", "pivot")
# What a tokenizer is made of.
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("--shape", choices=list(SIZES), default="1.24B", help="parameters")
    parser.add_argument("--records", type=int, default=24, help="most stays of a split that are scored")
    parser.add_argument("--max-tokens", type=int, default=4096, help="longer prompts are cut")
    parser.add_argument("--weight", type=float, default=0.4, help="λ")
    parser.add_argument("--dtype", default="auto", help="that the model computes in")
    parser.add_argument("--load", choices=["int8", "int4"], help="what weights are quantised to for scoring")
    parser.add_argument("--tokenizer", type=Path, help="model folder; default: that of the default base model")
    parser.add_argument("--work", type=Path, help="keeps the parents for the next time; default: a temporary folder")
    return parser.parse_args(arguments)


def _make(args: argparse.Namespace, work: Path) -> dict[str, Path]:
    """The folders of both parents; UserError where the disk has no room for them and for a merge."""
    size = SIZES[args.shape]
    need = 2 * size.parameters * (3 - sum((work / args.shape / model).is_dir() for model in PARENTS))
    if need > (free := shutil.disk_usage(work).free):
        raise UserError(
            f"{args.shape} needs {need / 1e9:.1f} GB in {work}, which has {free / 1e9:.1f} GB free: set --work."
        )
    folders = make_parents(size, work / args.shape, models=PARENTS, drawn=1 << 22)
    tokenizer = args.tokenizer or harness.default_model(harness.CACHE)
    for folder in folders.values():
        for name in (name for name in _TOKENIZER if (tokenizer / name).is_file()):
            shutil.copyfile(tokenizer / name, folder / name)
    return folders


def rehearse(args: argparse.Namespace, work: Path) -> Iterator[tuple[str, ...]]:
    """A row of the table for each step, as it ends."""
    folders = _make(args, work)
    merged, output = work / f"merged_{args.shape}", work / "outputs"
    shutil.rmtree(merged, ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    cli = [sys.executable, "-m", "patientdx.cli"]
    pair = [f"base_model={folders['base']}", f"pivot_model={folders['pivot']}", f"lambda={args.weight}"]
    stays = max(60, 5 * args.records)
    scored = [f"task.limit={args.records}", f"task.synthetic.stays={stays}", "splits=[test]", "parents=false"]
    scored += [f"dtype={args.dtype}", f"load={args.load or 'null'}", f"scoring.max_tokens={args.max_tokens}"]
    scored += ["baselines=[]", "clinical=false", "tracking=none", f"output={output}"]
    steps = {
        "merge to disk": [*cli, "merge", *pair, f"save={merged}"],
        "verify": [*cli, "verify", str(merged)],
        f"score {args.records} records": [*cli, "run", *pair, *scored],
    }
    paths = filter(None, (str(harness.REPOSITORY), os.environ.get("PYTHONPATH")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    for name, command in steps.items():
        seen = watch(command, list(folders.values()), work, environment)
        numbers = (seen.wall, seen.cpu, seen.peak / 1e9, seen.resident / 1e9)
        row = (name, *map("{:.{}f}".format, numbers, (0, 0, 2, 2)))
        print(*row, file=sys.stderr, sep="\t", flush=True)  # a later step takes long, or fails
        yield row


def main(arguments: Sequence[str] | None = None) -> None:
    """Rehearse, and print the table. Raises UserError where a step fails, with its last words."""
    args = _arguments(arguments)
    with tempfile.TemporaryDirectory() as away:
        work = Path(args.work or away).resolve()
        work.mkdir(parents=True, exist_ok=True)
        rows = list(rehearse(args, work))
    title = f"{args.shape}, random weights, dtype={args.dtype}" + (f" load={args.load}" if args.load else "")
    columns = ("step", "seconds", "CPU seconds", "anonymous GB", "resident GB")
    harness.show(harness.table(title, columns, rows, 1, harness.machine()))


if __name__ == "__main__":
    harness.run(main)
