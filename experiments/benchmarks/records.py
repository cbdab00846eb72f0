"""Clinical tables at full scale: our conversion, cohort, features and text beside pandas, in one run.

    python -m experiments.benchmarks.records --rows 3000000 10000000 30000000

Makes synthetic hospitals of so many chart rows as csv.gz in a work folder (kept with --work), and runs every stage in a
process of its own, watched from outside (watch):

convert   hash the files and write the large ones as parquet, once (of events the rows of items that are read)
tight     the same within --tight, to show that the rest goes to disk
cohort    open again and choose the stays
features  open again, cohort, and every stay's numbers for the tabular models
text      open again, cohort, and every stay's text
task      what a run does: cohort, splits, features, text, examples, fingerprint
pandas    cohort, features and text from the csv.gz files, as they are usually made; up to --pandas-rows

Seconds and CPU seconds are those of the stage without interpreter start and imports; memory is the peak of anonymous
memory of the whole process. Ours may use --memory within DuckDB; Python, blocks of csv and the stays in memory
are extra. Then 10,000 stays of another hospital to text and to tokens of the default model, and the growth from the
smallest to the largest size, with the straight line to MIMIC-IV 3.1: 432,997,491 chart rows of 94,458 ICU stays
(mimic-code's validation counts), 4,584 a stay. These hospitals have 4,600 rows a stay too; generated rows compress and
parse better than real ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from experiments.benchmarks import harness
from experiments.benchmarks.watch import watch

UNREAD = 44  # chart rows per hour that nothing reads: with them a stay has as many as in MIMIC-IV
ROWS_PER_STAY = 10_100  # or somewhat more: rows for each stay of 54 h or more, those of the shorter ones included
MIMIC_ROWS = 432_997_491
OURS = ("convert", "tight", "cohort", "features", "text", "task")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size, printing each figure as it is there, then ratios, growth and projection."""
    args = _arguments(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print(harness.machine(f"{args.threads} threads", f"memory limit {args.memory}"))
        print(f"{'chart rows':>12} {'stays':>8}  {'stage':<20} {'seconds':>9} {'CPU s':>9} {'peak MiB':>9}")
        for row in _measured(args, work.resolve()):
            rows.append(row)
            stage = f"{row['stage']} {row['template']}".rstrip()
            stays = row.get("stays", row.get("all_stays"))
            figures = f"{row['seconds']:>9.1f} {row['cpu']:>9.1f} {row['peak'] / 2**20:>9.0f}"
            print(f"{row.get('rows', 0):>12,} {stays:>8,}  {stage:<20} {figures}", flush=True)
    print("\n".join(["", *comparison(rows), "", *growth(rows)]))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", nargs="+", type=int, default=[3_000_000, 10_000_000, 30_000_000], help="chart rows")
    parser.add_argument("--pandas-rows", type=int, default=30_500_000, help="most chart rows that pandas has to read")
    parser.add_argument("--memory", default="2GB", help="task.memory_limit")
    parser.add_argument("--unread", type=float, default=UNREAD, help="chart rows per hour of items that nothing reads")
    parser.add_argument("--tight", default="600MB", help="task.memory_limit of a second conversion")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--token-stays", type=int, default=10_000)
    parser.add_argument("--tokenizer", type=Path, help="model folder; default: that of the default base model")
    parser.add_argument("--work", type=Path, help="keeps the hospitals for the next time; default: a temporary folder")
    return parser.parse_args(arguments)


def _measured(args: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """One row per process, as it ends."""
    cache = work / "cache"
    for chart_rows in sorted(args.rows):
        stays = math.ceil(chart_rows / ROWS_PER_STAY)
        root = _run(args, "records_stages", "make", "--root", work, "--stays", stays, "--unread", args.unread)["folder"]
        count = _lines(Path(root, "icu/chartevents.csv.gz")) - 1
        shutil.rmtree(cache, ignore_errors=True)
        for stage in OURS:
            name, folder, memory = stage, cache, args.memory
            if stage == "tight":
                name, folder, memory = "convert", work / "tight", args.tight
            more = ("--means", work / "ours.parquet") if stage == "features" else ()
            shared = ("--root", root, "--cache", folder, "--memory", memory, "--threads", args.threads)
            result = _run(args, "records_stages", name, *shared, *more)
            yield result | {"rows": count, "stage": stage, "template": ""}
            shutil.rmtree(work / "tight", ignore_errors=True)
        if chart_rows <= args.pandas_rows:
            result = _run(args, "records_pandas", "--root", root, "--means", work / "pandas.parquet")
            agreement = _agreement(work / "ours.parquet", work / "pandas.parquet")
            yield result | {"rows": count, "stage": "pandas", "template": "", **agreement}
        shutil.rmtree(cache, ignore_errors=True)
    more = math.ceil(1.01 * args.token_stays)  # a few are left out of the cohort for a death within the gap
    root = _run(args, "records_stages", "make", "--root", work, "--stays", more, "--form", "parquet")["folder"]
    tokenizer = ("--tokenizer", args.tokenizer) if args.tokenizer else ()
    shared = ("--root", root, "--cache", cache, "--memory", args.memory, "--threads", args.threads)
    for template in ("intervals/1", "intervals/2", "narrative/1"):
        options = ("--stays", args.token_stays, "--template", template, *tokenizer)
        yield _run(args, "records_stages", "tokens", *shared, *options) | {"stage": "tokens", "template": template}
    shutil.rmtree(cache, ignore_errors=True)


def _lines(path: Path) -> int:
    with gzip.open(path) as stream:
        return sum(part.count(b"\n") for part in iter(lambda: stream.read(1 << 20), b""))


def _run(args: argparse.Namespace, module: str, *words: object) -> dict[str, Any]:
    """The JSON line that a stage prints, with the peak of its memory in bytes."""
    env = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    command = [sys.executable, "-m", f"experiments.benchmarks.{module}", *map(str, words)]
    result = watch(command, [], harness.REPOSITORY, env)
    return json.loads(result.output.strip().splitlines()[-1]) | {"peak": result.peak}


def _agreement(ours: Path, pandas: Path) -> dict[str, Any]:
    """Readings that both have, and the largest relative difference of their means."""
    a, b = (
        pyarrow.parquet.read_table(path).to_pandas().set_index(["stay_id", "name"])["mean"] for path in (ours, pandas)
    )
    both = a.index.intersection(b.index)
    difference = ((a[both] - b[both]).abs() / b[both].abs().clip(lower=1e-6)).max()
    return {"readings": [len(a), len(b), len(both)], "apart": float(difference)}


def _of(rows: list[dict[str, Any]], stage: str) -> dict[int, dict[str, Any]]:
    return {row["rows"]: row for row in rows if row["stage"] == stage}


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on pandas beside ours: ratio of seconds and of memory, and whether both computed the same."""
    lines = []
    stages = {stage: _of(rows, stage) for stage in OURS}
    for count, pandas in _of(rows, "pandas").items():
        again = stages["features"][count]["seconds"] + stages["text"][count]["seconds"]
        first = again + stages["convert"][count]["seconds"]
        parts = [stages[stage][count] for stage in ("convert", "features", "text")]
        peak, cpu = max(part["peak"] for part in parts), sum(part["cpu"] for part in parts)
        lines += [
            f"{count:,} rows: cohort, features and text: pandas {pandas['seconds']:.1f} s, ours {again:.1f} s "
            f"({pandas['seconds'] / again:.1f} times faster), with the conversion {first:.1f} s "
            f"({pandas['seconds'] / first:.1f} times); CPU: pandas {pandas['cpu']:.1f} s, ours with the conversion "
            f"{cpu:.1f} s",
            f"{count:,} rows: memory: pandas {pandas['peak'] / 2**20:.0f} MiB, ours {peak / 2**20:.0f} MiB; "
            f"readings of both / ours / pandas {pandas['readings'][2]:,} / {pandas['readings'][0]:,} / "
            f"{pandas['readings'][1]:,}, means at most {pandas['apart']:.1e} apart",
        ]
    return lines


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on how each stage grows from the smallest to the largest size, and the straight line to MIMIC-IV 3.1."""
    lines = []
    for stage in OURS:
        by_rows = _of(rows, stage)
        if len(by_rows) < 2:
            return lines
        small, large = by_rows[min(by_rows)], by_rows[max(by_rows)]
        slope = (large["seconds"] - small["seconds"]) / (large["rows"] - small["rows"])
        projected = large["seconds"] + slope * (MIMIC_ROWS - large["rows"])
        times = {key: large[key] / small[key] for key in ("rows", "seconds", "peak")}
        lines.append(
            f"{stage:<9} rows x{times['rows']:.1f}: seconds x{times['seconds']:.1f}, memory x{times['peak']:.2f}; "
            f"MIMIC-IV 3.1 ({MIMIC_ROWS:,} rows): {projected:,.0f} s"
        )
    return lines


if __name__ == "__main__":
    harness.run(main)
