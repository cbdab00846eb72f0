"""What merging and the merged model cost: seconds, memory, bytes, and the same model with 8-bit weights.

    python -m experiments.edge data=FOLDER                               # the default pair; overrides as for run.py
    python -m experiments.edge --merges linear,della --precisions bfloat16,int8 data=FOLDER task.limit=50
    python -m experiments.edge --work /big/disk pair=medical_7b data=FOLDER
    python -m experiments.edge --read                                    # what was measured before, once more

Every merge is `run.py task=none save=…` in a process of its own, watched from outside (Linux). The first of the merges
is kept, and asked the same questions in every precision, each again in its own process. What was measured is left in
outputs/edge/edge.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.benchmarks.harness import machine
from experiments.benchmarks.watch import Watched, watch
from experiments.comparison import Line, change_text, comparison_table, score_table, source_notes
from experiments.edge_precision import PRECISIONS, check, questions
from experiments.measuring import arguments, given, kept
from experiments.permuted_heads import asked_of
from experiments.published import Block, published
from experiments.reading import show
from patientdx.checkpoints.source import REPOSITORY
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.evaluation.session import Session
from patientdx.metrics.accuracy import accuracy
from patientdx.metrics.bootstrap import interval, paired_difference

USUAL = ("task=medical_qa", "task.limit=12", "splits=[test]", "clinical=false", "tracking=none")
MERGES = ("linear", "task_arithmetic", "dare_ties", "della", "breadcrumbs", "hierarchical")
MIB = 2**20


@dataclass(frozen=True)
class Merged:
    """One merge to disk: the watched command, and the bytes of the folder that it left."""

    name: str
    watched: Watched
    written: int

    @property
    def facts(self) -> dict[str, Any]:
        """As edge.json has it: seconds, and bytes."""
        seen = self.watched
        return {"name": self.name, "wall": seen.wall, "cpu": seen.cpu, "peak": seen.peak, "written": self.written}


def child(arguments: Sequence[str], threads: int | None) -> Watched:
    """A Python program of this repository, watched; UserError with its last words where it fails."""
    given = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    search = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return watch([sys.executable, *arguments], [], REPOSITORY, os.environ | given | {"PYTHONPATH": search})


def merged(name: str, models: Sequence[str], work: Path, threads: int | None) -> Merged:
    """The published merge of that name written to `work`/<name>."""
    target = work / name
    asked = [f"merge=published/{name}", "task=none", "tracking=none", f"output={work / 'runs'}", f"save={target}"]
    found = child([str(REPOSITORY / "run.py"), *models, *asked], threads)
    return Merged(name, found, sum(file.stat().st_size for file in target.rglob("*") if file.is_file()))


def in_precisions(
    folder: Path, precisions: Sequence[str], length: int, overrides: Sequence[str], threads: int | None
) -> Iterator[dict[str, Any]]:
    """What edge_precision.py says of each precision, with the peak memory of the process that said it."""
    for precision in tqdm(precisions, desc="precisions", leave=False):
        asked = ["-m", "experiments.edge_precision", str(folder), precision, str(length), *overrides]
        found = child(asked, threads)
        yield json.loads(found.output.strip().splitlines()[-1]) | {"peak": found.peak}


def merge_table(merges: Sequence[Mapping[str, Any]]) -> Table:
    """Seconds, memory and bytes of each merge."""
    rows = [
        (one["name"], f"{one['wall']:.1f}", f"{one['cpu']:.1f}", _mib(one["peak"]), _mib(one["written"]))
        for one in merges
    ]
    return score_table("Merging to disk", ("", "seconds", "CPU seconds", "peak MiB", "MiB written"), rows)


def precision_table(found: Sequence[Mapping[str, Any]], draws: Mapping[str, Any]) -> Table:
    """Size, speed and answers in each precision; differences are to the first."""
    first = found[0]
    names = ("", "weights\nMiB", "file\nMiB", "peak\nMiB", "load\ns", "s a\nques-\ntion", "ms a\nnew\ntoken",
             "accuracy", "minus the\nfirst's", "unlike\nthe\nfirst")  # fmt: skip
    rows = []
    right = np.array(first["right"])
    ids = np.arange(len(right))
    for one in found:
        chosen = np.array(one["chosen"])
        own = interval(accuracy, chosen, right, ids, **draws)
        over = "–"
        if one is not first:
            over = change_text(paired_difference(accuracy, chosen, np.array(first["chosen"]), right, ids, **draws))
        rows.append((
            one["precision"].replace("_", "\n"), _mib(one["memory"]), _mib(one["file"]), _mib(one["peak"]),
            f"{one['load']:.1f}", f"{one['questions']:.3f}", f"{1000 * one['token']:.1f}",
            f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]", over,
            f"{int((chosen != np.array(first['chosen'])).sum())} of {len(chosen)}",
        ))  # fmt: skip
    return score_table("The merged model", names, rows)


def _mib(count: int) -> str:
    return f"{count / MIB:.0f}" if count >= 10 * MIB else f"{count / MIB:.2f}"


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All that is shown, as edge.json has it; what can be refused is, before anything is merged."""
    unknown = [name for name in asked.merges if not (REPOSITORY / f"conf/merge/published/{name}.yaml").is_file()]
    if unknown:
        raise UserError(f"there is no conf/merge/published/{unknown[0]}.yaml; it has {', '.join(MERGES)}.")
    named = any(one.startswith("task=") for one in asked.overrides)
    overrides = [*(USUAL[2:] if named else USUAL), *asked.overrides]
    models = [one for one in asked.overrides if not one.startswith(("task", "data=", "splits", "bootstrap", "dtype"))]
    config = asked_of(*overrides)
    for precision in asked.precisions:
        check(precision)
    rows = questions(config.with_merge(config.weight, pivot=config.merge.base, extra=(), ancestor=None))[1]
    for name in asked.merges:  # what is converted once is not the merge's time
        own = asked_of(*overrides, f"merge=published/{name}")
        Session().recipe(own.merge_config.spec, own.weight, own.cache, adapt=True)
    with tempfile.TemporaryDirectory(dir=asked.work) as place:
        work, merges = Path(place), []
        for name in tqdm(asked.merges, desc="merges", leave=False):
            merges.append(merged(name, models, work, asked.threads))
            if name != asked.merges[0]:
                shutil.rmtree(work / name)
        kept_one = work / asked.merges[0]
        found = list(in_precisions(kept_one, asked.precisions, asked.new_tokens, overrides, asked.threads))
    return {
        "base": config.merge.base.name, "pivot": config.merge.pivot.name, "task": config.task.name,
        "questions": len(rows),
        "new_tokens": asked.new_tokens, "machine": machine(),
        "draws": config.bootstrap.keywords,
        "merges": [one.facts for one in merges], "precisions": found,
    }  # fmt: skip


def contents(asked: argparse.Namespace) -> Iterator[Table | str]:
    """The tables, what they need beside them, and what was published."""
    found, block = kept(asked, lambda: measure(asked)), published("edge")
    yield merge_table(found["merges"])
    yield precision_table(found["precisions"], found["draws"])
    told = list(lines(found["merges"], block))
    yield comparison_table(told)
    yield from notes(found)
    yield from source_notes(block, told)


def lines(merges: Sequence[Mapping[str, Any]], block: Block) -> Iterator[Line]:
    """Ours beside published: what each merge took."""
    for one in merges:
        yield Line(f"{one['name']}, seconds", f"{one['wall']:.1f}", block.cells["seconds"])
        yield Line(f"{one['name']}, peak MiB", _mib(one["peak"]), block.cells["memory"])


def notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What was measured on what."""
    yield (
        f"Base {found['base']}, pivot {found['pivot']}. {found['machine']}; {found['precisions'][0]['threads']} "
        "threads where a model runs. Times are of one run each."
    )
    yield (
        "Peak: anonymous memory of the process and its children, seen every 20 ms; mapped files are not in it. "
        "Written: the folder of the merged model, tokenizer and record included."
    )
    yield (
        f"The merged model is merge=published/{found['merges'][0]['name']}; {found['task']}, {found['questions']} "
        f"questions; a new token is the median of {found['new_tokens']}, greedy, one prompt at a time. "
        f"{found['draws']['level']:.0%} intervals by question."
    )
    yield (
        "int8: 8-bit weights of all linear layers but the head, worked out in bfloat16; int8 dynamic: their inputs, "
        "too (torchao). Embedding and head stay bfloat16. The peak of int8 holds the model before it is made smaller."
    )


def _several(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables; 2 with one message where something will not do."""
    known = arguments("edge", __doc__)
    known.add_argument("--merges", type=_several, default=MERGES, help="published merges; the first answers questions")
    known.add_argument("--precisions", type=_several, default=PRECISIONS, help=",".join(PRECISIONS))
    known.add_argument("--new-tokens", type=int, default=32, help="tokens written to time one")
    known.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the processes; else as it is")
    known.add_argument("--work", type=Path, help="folder for the merged models while it runs; else the system's own")
    asked = given(known, words)
    return show(lambda: contents(asked))


if __name__ == "__main__":
    raise SystemExit(main())
