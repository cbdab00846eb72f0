"""What all benchmarks share: ways timed in turns, a half in another environment, the machine in words, tables.

The halves that run in another tool's environment import this too, so nothing but the standard library is imported at
the top.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from patientdx.core.errors import UserError

if TYPE_CHECKING:
    from patientdx.core.tables import Table
    from patientdx.tasks.clinical import ClinicalTask

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser()
DEFAULT_MODEL = "smollm2_135m_instruct"

Seconds = dict[str, dict[str, list[float]]]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[], None]) -> None:
    """Run a command; a UserError ends it with its message alone."""
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None


def measure(ways: Mapping[str, Callable[[], Any]], rounds: int, *, seed: int = 0) -> Seconds:
    """CPU (user and system, all threads) and wall seconds of each way, `rounds` times, each round in another order."""
    shuffle = random.Random(seed)
    seconds: Seconds = {name: {"cpu": [], "wall": []} for name in ways}
    for _ in range(rounds):
        for name in shuffle.sample(list(ways), len(ways)):
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name]["cpu"].append(time.process_time() - cpu)
            seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


def ratio_of_medians(seconds: Seconds, way: str, reference: str, clock: str = "cpu") -> dict[str, Any]:
    """Median seconds of `way` over those of `reference`, with the least and the most of the ratios in one round."""
    values, references = seconds[way][clock], seconds[reference][clock]
    rounds = [value / base for value, base in zip(values, references, strict=True)]
    return {"ratio": median(values) / median(references), "ratio_rounds": [min(rounds), max(rounds)]}


def fastest(seconds: Seconds, ways: Iterable[str], clock: str = "cpu") -> str:
    """The way with the smallest median."""
    return min(ways, key=lambda way: median(seconds[way][clock]))


def run_half(module: str, job: Any, python: Path, threads: int = 1) -> Any:
    """The result of `serve` in `module`, run by the python of another environment; job and result are JSON."""
    settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        job_file, result_file = Path(folder, "job.json"), Path(folder, "result.json")
        job_file.write_text(json.dumps(job))
        # Not resolved: a venv's python is a link, and the file behind it does not know the venv.
        command = [python.absolute(), "-m", module, job_file, result_file]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | settings, check=True)
        return json.loads(result_file.read_text())


def serve(arguments: Sequence[str], work: Callable[[Any], Any]) -> None:
    """The other side of `run_half`: read the job's file, write the result's file, both named in `arguments`."""
    job_file, result_file = map(Path, arguments)
    result_file.write_text(json.dumps(work(json.loads(job_file.read_text()))))


def check_environment(python: Path, expected: Mapping[str, str | None], doc: str | None) -> None:
    """UserError unless `python` has these packages in these versions (None: any); `doc` has the lines to make one."""
    code = f"import importlib.metadata as m; print(*map(m.version, {tuple(expected)!r}))"
    try:
        output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (line.strip() for line in (doc or "").splitlines())
        recipe = "; ".join(line for line in lines if "-m venv" in line or "pip install" in line)
        raise UserError(f"{python} is not a python with {', '.join(expected)}. Make one: {recipe}") from error
    versions = {name: version.split("+")[0] for name, version in zip(expected, output, strict=True)}
    wrong = [name for name, version in expected.items() if version and version.split("+")[0] != versions[name]]
    if wrong:
        raise UserError(
            f"{python} has {', '.join(f'{name} {versions[name]}' for name in wrong)}; this benchmark needs "
            f"{', '.join(f'{name} {expected[name]}' for name in wrong)}."
        )


def default_model(cache: Path) -> Path:
    """The folder of the default base model."""
    from omegaconf import OmegaConf

    from patientdx.checkpoints.source import ModelSource, locate

    node = OmegaConf.load(REPOSITORY / "conf" / "models" / f"{DEFAULT_MODEL}.yaml")
    fields: Any = OmegaConf.to_container(node)
    return locate(ModelSource(**fields), cache)


def mortality_task(cache: Path, **options: Any) -> ClinicalTask:
    """The default mortality task of the synthetic hospital, or of the source in `options`."""
    from patientdx.tasks.clinical import ClinicalTask

    return ClinicalTask(outcome="mortality", window_hours=48, gap_hours=6, cache=cache, **options)


def machine(*details: str) -> str:
    """Processor, cores, memory, `details`, and the load at this moment."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [processor(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", *details]
    return ", ".join([*parts, f"load {os.getloadavg()[0]:.1f} now"])


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def spread(values: Sequence[float]) -> str:
    """Median, and the least and the most if there are several: 2.1 (1.9 - 2.4)."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{median(values):.3g} ({min(values):.3g} - {max(values):.3g})"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], names: int, *notes: str) -> Table:
    """A table of texts whose first `names` columns name a row; the others are numbers."""
    from patientdx.core.tables import Cell, Column, make_table

    typed = [Column(name, "left" if index < names else "right") for index, name in enumerate(columns)]
    cells = [[Cell(text) for text in row] for row in rows]
    return make_table("benchmark", title, typed, cells, notes=notes, keys=names)


def show(*tables: Table, width: int = 140) -> None:
    """Print tables with their notes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=width, highlight=False, markup=False)
    for table in tables:
        shown = RichTable(box=SIMPLE_HEAD, title=table.title)
        for column in table.columns:
            shown.add_column(column.heading, justify=column.align, no_wrap=True)
        for row in table.rows:
            shown.add_row(*(cell.text for cell in row))
        console.print(shown)
        for note in table.notes:
            console.print(note)


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """All keys of the rows as columns; a row without a key has an empty field."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
