"""Clinical tables at full scale: our conversion, cohort, features and text beside pandas, in one run.

    python -m experiments.benchmarks.records --rows 3000000 10000000 30000000

Makes synthetic hospitals of so many chart rows as csv.gz in a work folder (kept with --work), and runs every stage in a
process of its own, watched from outside (merge_watch):

convert   hash the files and write the large ones as parquet, once
tight     the same within --tight, to show that the rest goes to disk
cohort    open again and choose the stays
features  open again, cohort, and every stay's numbers for the tabular models
text      open again, cohort, and every stay's text
task      what a run does: cohort, splits, features, text, examples, fingerprint
pandas    cohort, features and text from the csv.gz files, the way they are made today; up to --pandas-rows

Seconds are those of the stage without interpreter start and imports; memory is the peak of anonymous memory of the
whole process. Ours may use --memory within DuckDB; Python and the stays in hand come on top. Then 10,000 stays of
another hospital to text and to tokens of the default model, and the growth from the smallest to the largest size, with
the straight line on to MIMIC-IV 3.1: 432,997,491 chart rows of 94,458 ICU stays (mimic-code's validation counts), 4,584
a stay. These hospitals have 4,600 rows a stay too; generated rows compress and parse better than real ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

from experiments.benchmarks.machine import machine
from experiments.benchmarks.merge_watch import Watched, watch
from patientdx.checkpoints.source import REPOSITORY
from patientdx.core.errors import UserError

UNREAD = 44  # chart rows an hour that nothing reads: with them there are as many a stay as in MIMIC-IV
ROWS_PER_STAY = 6_500  # or somewhat more: rows for each stay of 54 h or more, those of the shorter ones included
MIMIC_ROWS = 432_997_491
OURS = ("convert", "tight", "cohort", "features", "text", "task")


def main(words: list[str] | None = None) -> None:
    """Measure every size, printing each figure as it is there, then ratios, growth and projection."""
    asked = _arguments(words)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        print(machine(f"{asked.threads} threads", f"memory limit {asked.memory}"))
        print(f"{'chart rows':>12} {'stays':>8}  {'stage':<20} {'seconds':>9} {'peak MiB':>9}")
        for row in _measured(asked, work.resolve()):
            rows.append(row)
            stage = row["stage"] + (f" {row['template']}" if row["template"] else "")
            stays = row.get("stays", row.get("all_stays"))
            print(
                f"{row.get('rows', 0):>12,} {stays:>8,}  {stage:<20} {row['seconds']:>9.1f} "
                f"{row['peak'] / 2**20:>9.0f}",
                flush=True,
            )
    print("\n".join(["", *comparison(rows), "", *growth(rows)]))


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[3_000_000, 10_000_000, 30_000_000], help="chart rows")
    parser.add_argument("--pandas-rows", type=int, default=30_500_000, help="most chart rows that pandas is given")
    parser.add_argument("--memory", default="2GB", help="task.memory_limit")
    parser.add_argument("--unread", type=float, default=UNREAD, help="chart rows an hour of items that nothing reads")
    parser.add_argument("--tight", default="600MB", help="task.memory_limit of a second conversion")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--token-stays", type=int, default=10_000)
    parser.add_argument("--tokenizer", type=Path, help="model folder; default: that of the default base model")
    parser.add_argument("--work", type=Path, help="keeps the hospitals for the next time; default: a temporary folder")
    return parser.parse_args(words)


def _measured(asked: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """One row a process, as it ends."""
    ours = "experiments.benchmarks.records_stages"
    for wanted in sorted(asked.rows):
        stays = math.ceil(wanted / ROWS_PER_STAY)
        made = _run(asked, ours, "make", "--root", work, "--stays", stays, "--unread", asked.unread)
        root, count = Path(made["folder"]), 0
        shutil.rmtree(work / "cache", ignore_errors=True)
        for stage in OURS:
            name, cache, memory = stage, work / "cache", asked.memory
            if stage == "tight":
                name, cache, memory = "convert", work / "tight", asked.tight
            more = ("--means", work / "ours.parquet") if stage == "features" else ()
            same = ("--root", root, "--cache", cache, "--memory", memory, "--threads", asked.threads)
            found = _run(asked, ours, name, *same, *more)
            count = found.get("rows", count)
            yield found | {"rows": count, "stage": stage, "template": ""}
            shutil.rmtree(work / "tight", ignore_errors=True)
        if wanted <= asked.pandas_rows:
            theirs = "experiments.benchmarks.records_pandas"
            found = _run(asked, theirs, "--root", root, "--means", work / "pandas.parquet")
            apart = _agreement(work / "ours.parquet", work / "pandas.parquet")
            yield found | {"rows": count, "stage": "pandas", "template": "", **apart}
        shutil.rmtree(work / "cache", ignore_errors=True)
    more = math.ceil(1.01 * asked.token_stays)  # a few are left out of the cohort for a death within the gap
    made = _run(asked, ours, "make", "--root", work, "--stays", more, "--form", "parquet")
    chosen = ("--stays", asked.token_stays, *(("--tokenizer", asked.tokenizer) if asked.tokenizer else ()))
    same = ("--root", made["folder"], "--cache", work / "cache", "--memory", asked.memory, "--threads", asked.threads)
    for template in ("intervals", "narrative"):
        found = _run(asked, ours, "tokens", *same, *chosen, "--template", template)
        yield found | {"stage": "tokens", "template": template}
    shutil.rmtree(work / "cache", ignore_errors=True)


def _run(asked: argparse.Namespace, module: str, *words: object) -> dict[str, Any]:
    """What a stage says of itself, with the peak of its memory in bytes."""
    env = os.environ | {"OMP_NUM_THREADS": str(asked.threads)}
    command = [sys.executable, "-m", module, *map(str, words)]
    found: Watched = watch(command, [], REPOSITORY, env)
    return json.loads(found.output.strip().splitlines()[-1]) | {"peak": found.peak}


def _agreement(ours: Path, theirs: Path) -> dict[str, Any]:
    """Readings that both have, and the largest relative difference of their means."""
    one, two = (
        pyarrow.parquet.read_table(path).to_pandas().set_index(["stay_id", "name"])["mean"] for path in (ours, theirs)
    )
    both = one.index.intersection(two.index)
    apart = ((one[both] - two[both]).abs() / two[both].abs().clip(lower=1e-6)).max()
    return {"readings": [len(one), len(two), len(both)], "apart": float(apart)}


def _of(rows: list[dict[str, Any]], stage: str) -> dict[int, dict[str, Any]]:
    return {row["rows"]: row for row in rows if row["stage"] == stage}


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on pandas beside ours: ratio of seconds and of memory, and whether both computed the same."""
    lines = []
    stages = {stage: _of(rows, stage) for stage in OURS}
    for count, theirs in _of(rows, "pandas").items():
        again = stages["features"][count]["seconds"] + stages["text"][count]["seconds"]
        first = again + stages["convert"][count]["seconds"]
        peak = max(stages[stage][count]["peak"] for stage in ("convert", "features", "text"))
        lines += [
            f"{count:,} rows: cohort, features and text: pandas {theirs['seconds']:.1f} s, ours {again:.1f} s "
            f"({theirs['seconds'] / again:.1f} times faster), with the conversion {first:.1f} s "
            f"({theirs['seconds'] / first:.1f} times)",
            f"{count:,} rows: memory: pandas {theirs['peak'] / 2**20:.0f} MiB, ours {peak / 2**20:.0f} MiB; "
            f"readings of both / ours / pandas {theirs['readings'][2]:,} / {theirs['readings'][0]:,} / "
            f"{theirs['readings'][1]:,}, means at most {theirs['apart']:.1e} apart",
        ]
    return lines


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on how each stage grows from the smallest to the largest size, and the straight line on to MIMIC-IV 3.1."""
    lines = []
    for stage in OURS:
        found = _of(rows, stage)
        if len(found) < 2:
            return lines
        small, large = found[min(found)], found[max(found)]
        slope = (large["seconds"] - small["seconds"]) / (large["rows"] - small["rows"])
        projected = large["seconds"] + slope * (MIMIC_ROWS - large["rows"])
        times = {key: large[key] / small[key] for key in ("rows", "seconds", "peak")}
        lines.append(
            f"{stage:<9} rows x{times['rows']:.1f}: seconds x{times['seconds']:.1f}, memory x{times['peak']:.2f}; "
            f"MIMIC-IV 3.1 ({MIMIC_ROWS:,} rows): {projected:,.0f} s"
        )
    return lines


if __name__ == "__main__":
    try:
        main()
    except UserError as refusal:
        raise SystemExit(str(refusal)) from None
