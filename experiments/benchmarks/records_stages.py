"""One stage of `records` in a process of its own; prints its seconds and counts as JSON.

python -m experiments.benchmarks.records_stages features --root hospital --cache cache
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from experiments.benchmarks import harness
from patientdx.records import cohort, features, templates, window
from patientdx.records.source import Source, SourceConfig, opened_source
from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.clinical import OPTIONS
from patientdx.tasks.outcomes import OUTCOMES

WINDOW, GAP = 48, 6
Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stage named on the command line; `seconds` are those of the whole stage unless it counts its own."""
    parser = harness.parser(__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--root", type=Path, required=True, help="hospital; for `make`, the cache to write it in")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--stays", type=int, default=10_000, help="of `make` and `tokens`")
    parser.add_argument("--form", default="csv.gz", help="of `make`")
    parser.add_argument("--unread", type=float, default=0, help="of `make`: chart rows per hour that nothing reads")
    parser.add_argument("--template", default="intervals/1")
    parser.add_argument("--means", type=Path, help="where `features` writes the means of its readings")
    parser.add_argument("--tokenizer", type=Path, help="model folder; default: that of the default base model")
    args = parser.parse_args(arguments)
    start, used = time.perf_counter(), time.process_time()
    result = STAGES[args.stage](args)
    print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - used} | result))


def _source_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"mimic_root": str(args.root), "memory_limit": args.memory, "threads": args.threads}


def _opened(args: argparse.Namespace):
    template = templates.template(args.template)
    needed = window.needed("none", cohort.NEEDED, revision=template.revision)
    items = None if template.every_item else window.items_read()
    return opened_source(SourceConfig(cache=args.cache, **_source_options(args)), needed, items)


def _cohort(source: Source) -> int:
    """Choose the cohort; the number of its stays."""
    return len(cohort.select(source.con, OUTCOMES["mortality"].define({})[0], window_hours=WINDOW, gap_hours=GAP).stays)


def _texts(source: Source, template: templates.Template) -> Iterator[str]:
    """The text of every stay of the cohort, a batch of stays in memory at a time."""
    how: dict[str, Any] = (
        {"every_item": True, "pipeline": True} if template.every_item else {"revision": template.revision}
    )
    for _, record in window.stream(source.con, courses=template.courses, **how):
        yield template.write(record, WINDOW)


def make(args: argparse.Namespace) -> Result:
    """A synthetic hospital of so many stays."""
    return {"folder": str(hospital(args.root, stays=args.stays, form=args.form, unread=args.unread))}


def convert(args: argparse.Namespace) -> Result:
    """First opening: hash the files, convert the large ones."""
    start, used = time.perf_counter(), time.process_time()
    with _opened(args) as source:
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        rows, stays = (
            source.con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            for table in ("chartevents", "icustays")
        )
    size = sum(path.stat().st_size for path in (args.cache / "records").rglob("*.parquet"))
    return {"seconds": seconds, "cpu": cpu, "rows": rows, "all_stays": stays, "bytes": size}


def select_cohort(args: argparse.Namespace) -> Result:
    """Opening again, and the cohort."""
    with _opened(args) as source:
        return {"stays": _cohort(source)}


def tabular_features(args: argparse.Namespace) -> Result:
    """Opening again, the cohort, and the tabular features of every stay."""
    start, revision = time.perf_counter(), templates.template(args.template).revision
    rows: list[tuple[int, str, float]] = []

    def records(source: Source) -> Iterator[tuple[int, window.Record]]:
        for stay, record in window.stream(source.con, courses=True, revision=revision):
            if args.means is not None:
                rows.extend((stay, name, mean) for name, mean in record.readings)
            yield stay, record

    with _opened(args) as source:
        stays = _cohort(source)
        _, table = features.table(records(source), revision=revision)
        seconds = time.perf_counter() - start
    if args.means is not None:
        columns = dict(zip(("stay_id", "name", "mean"), map(list, zip(*rows, strict=True)), strict=True))
        pyarrow.parquet.write_table(pa.table(columns), args.means)
    return {"seconds": seconds, "stays": stays, "columns": len(table.names)}


def write_texts(args: argparse.Namespace) -> Result:
    """Opening again, the cohort, and the text of every stay."""
    with _opened(args) as source:
        stays = _cohort(source)
        return {"stays": stays, "characters": sum(map(len, _texts(source, templates.template(args.template))))}


def load_task(args: argparse.Namespace) -> Result:
    """The task as a run loads it: cohort, splits, features, text, examples, fingerprint."""
    data = harness.mortality_task(args.cache, template=args.template, **_source_options(args)).load()
    return {"stays": len(data.examples)}


def tokens(args: argparse.Namespace) -> Result:
    """The first stays of the cohort as text, then as tokens of a model."""
    from patientdx.lm.load import load_tokenizer  # not at the top: the other stages start without torch
    from patientdx.lm.prompts import tokenise

    tokenizer = load_tokenizer(args.tokenizer or harness.default_model(harness.CACHE))
    template, question = templates.template(args.template), f"\n\n{OUTCOMES['mortality'].question}"
    start = time.perf_counter()
    with _opened(args) as source:
        _cohort(source)
        first = "SELECT stay_id FROM cohort ORDER BY stay_id LIMIT ?"
        source.con.execute(f"DELETE FROM cohort WHERE stay_id NOT IN ({first})", [args.stays])
        parts = [("", text, question) for text in _texts(source, template)]
    written = time.perf_counter()
    prompts = tokenise(tokenizer, parts, OPTIONS)
    end = time.perf_counter()
    seconds = {"text_seconds": written - start, "token_seconds": end - written, "seconds": end - start}
    return seconds | {"stays": len(parts), "tokens": sum(map(len, prompts.ids))}


STAGES: dict[str, Callable[[argparse.Namespace], Result]] = {
    "make": make, "convert": convert, "cohort": select_cohort, "features": tabular_features, "text": write_texts,
    "task": load_task, "tokens": tokens,
}  # fmt: skip

if __name__ == "__main__":
    main()
