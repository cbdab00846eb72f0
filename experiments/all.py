"""Every table that has results in one report; what has none is listed with its command.

    python -m experiments.all                            # outputs/tables.html
    python -m experiments.all --output DIR --to FILE.md  # of the runs with output=DIR, as Markdown

Each study's script prints what it prints on its own, pictures of the study's folder come with it. A study whose script
refuses shows why, and the rest goes on.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import importlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from experiments.measuring import measured
from experiments.reading import FOLDER, OVERLAYS, by_name, made_by, reader, studies
from patientdx import reporting
from patientdx.core.atomic_io import write_atomically
from patientdx.evaluation.store import read_json
from patientdx.reporting.runs import without_paths

STYLE = Path(reporting.__file__).parent / "page" / "page.css"
WIDTH = "160"  # letters of a line of a table


@dataclass(frozen=True)
class Part:
    """One study's part of the report: what was read, what its script printed, what it said on stderr, its pictures."""

    title: str
    name: str
    command: str
    printed: str = ""
    fault: str = ""
    pictures: tuple[Path, ...] = ()
    page: Path | None = None


def parts(output: Path) -> Iterator[Part]:
    """Every study once for each of its folders, once without if it has none; then the same of what runs no study."""
    found = studies(output)
    for stem, names in tqdm(found.items(), desc="studies", unit="study", disable=None):
        for name in names or [None]:
            yield _part(stem, name, output)
    for stem, names in measured(output).items():
        own = f"python -m experiments.{stem}"
        yield from (_measured(stem, name, output, own) for name in names)
        if not names:
            yield Part(_title(stem), stem, own)


def _measured(stem: str, name: str, output: Path, own: str) -> Part:
    """What a script left that runs no study, as it shows it."""
    said = (read_json(output / name / f"{stem}.json") or {}).get("command", own)
    return Part(_title(stem), name, said, *run(stem, ["--read", "--output", str(output), "--name", name]))


def _part(stem: str, name: str | None, output: Path) -> Part:
    if name is None:
        return Part(_title(stem), stem, by_name(stem, stem))
    folder, printed, fault = output / name, "", ""
    said = made_by(folder) or by_name(stem, name)
    script = reader(stem)
    if script is not None:
        printed, fault = run(script, ["--output", str(output), "--name", name])
    # After the script, which may draw; where it refuses, what is there may be of other runs.
    pictures, page = () if fault else tuple(sorted(folder.glob("*.png"))), folder / "report.html"
    return Part(_title(stem), name, said, printed, fault, pictures, page if page.is_file() else None)


def run(stem: str, arguments: Sequence[str]) -> tuple[str, str]:
    """What a script prints, and what it says in place of it; whatever goes wrong in it is its own."""
    out, err = io.StringIO(), io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = importlib.import_module(f"experiments.{stem}").main(list(arguments))
            except Exception as fault:
                return "", without_paths(f"failed: {type(fault).__name__}: {fault}")
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    # The report may be given away: it says nothing of where it was made.
    return (without_paths(out.getvalue()), "") if code == 0 else ("", without_paths(err.getvalue().strip()))


def _title(stem: str) -> str:
    """The first line of the docstring of its own script, or of what its overlay says."""
    script = FOLDER / f"{stem}.py"
    if script.is_file():
        return script.read_text(encoding="utf-8").splitlines()[0].strip('"').rstrip(".")
    first = next(line for line in (OVERLAYS / f"{stem}.yaml").read_text("utf-8").splitlines() if "run.py" in line)
    return first.partition("  ")[2].strip()


def _order(found: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Studies with results, and those without."""
    there = [part for part in found if part.printed or part.fault or part.page]
    return there, [part for part in found if part not in there]


def as_html(found: Sequence[Part], costs: str, place: Path) -> str:
    """The report as one page that needs nothing beside it but the pages of the studies, to which it links."""
    there, absent = _order(found)
    words = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>Tables and figures</title>']
    words += [f"<style>{STYLE.read_text(encoding='utf-8')}", "pre { overflow-x: auto; font-size: .82rem; }"]
    words += ["img { max-width: 46rem; width: 100%; background: #fff; }</style></head><body>"]
    words += ["<h1>Tables and figures</h1>", '<nav aria-label="Contents"><ol>']
    words += [f'<li><a href="#{html.escape(part.name)}">{html.escape(part.name)}</a></li>' for part in there]
    words += ["</ol></nav>"]
    for part in there:
        words += [f'<h2 id="{html.escape(part.name)}">{html.escape(part.title)}</h2>']
        words += [
            f"<p><code>{html.escape(part.command)}</code></p>",
            *(f'<p class="caution">{s}</p>' for s in _small(part)),
        ]
        words += [f"<pre>{html.escape(part.printed)}</pre>"] if part.printed else []
        words += [f'<p class="caution">{html.escape(part.fault)}</p>'] if part.fault else []
        if part.page is not None:
            link = html.escape(os.path.relpath(part.page, place.parent), quote=True)
            words += [f'<p><a href="{link}">Curves, subgroups, calibration: the page of the study</a></p>']
        for one in part.pictures:
            data = base64.b64encode(one.read_bytes()).decode()
            words += [f'<p><img alt="{html.escape(one.stem)}" src="data:image/png;base64,{data}"></p>']
    words += ['<h2 id="cost">Hours and memory</h2>', f"<pre>{html.escape(costs)}</pre>"] if costs else []
    words += ['<h2 id="absent">Not run yet</h2>', "<ul>"] if absent else []
    words += [f"<li>{html.escape(part.title)}: <code>{html.escape(part.command)}</code></li>" for part in absent]
    words += ["</ul>"] if absent else []
    return "\n".join([*words, "</body></html>", ""])


def as_markdown(found: Sequence[Part], costs: str, place: Path) -> str:
    """The report as Markdown; pictures are linked from where it lies."""
    there, absent = _order(found)
    words = ["# Tables and figures", ""]
    for part in there:
        words += [f"## {part.title}", "", f"`{part.command}`", "", *(f"> {said}\n" for said in _small(part))]
        words += ["```text", part.printed.rstrip(), "```", ""] if part.printed else []
        words += ["```text", part.fault, "```", ""] if part.fault else []
        links = [] if part.page is None else [f"[the page of the study](<{os.path.relpath(part.page, place.parent)}>)"]
        links += [f"![{one.stem}](<{os.path.relpath(one, place.parent)}>)" for one in part.pictures]
        words += [*links, ""] if links else []
    words += ["## Hours and memory", "", "```text", costs.rstrip(), "```", ""] if costs else []
    words += ["## Not run yet", "", *(f"- {part.title}: `{part.command}`" for part in absent), ""] if absent else []
    return "\n".join(words)


def _small(part: Part) -> Iterator[str]:
    if part.name.endswith("_small"):
        yield "size=small: it shows that the study runs. Its numbers say nothing."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and say what is in it; 2 where there is no such folder, or the file is of no known kind."""
    asked = argparse.ArgumentParser(prog="python -m experiments.all", description=__doc__.splitlines()[0])
    asked.add_argument("--output", type=Path, default=Path("outputs"), help="output= of the runs")
    asked.add_argument("--to", type=Path, help="the report, .html or .md; without it <output>/tables.html")
    given = asked.parse_args(arguments)
    output = given.output.expanduser()
    place = (given.to or output / "tables.html").expanduser()
    form = {".html": as_html, ".md": as_markdown}.get(place.suffix)
    wrong = None
    if not output.is_dir():
        wrong = f"there is no folder {output}: nothing was run yet. First, as in: python run.py experiment=lambda_curve"
    elif form is None:
        wrong = f"--to {place}: the report is HTML or Markdown; give a name that ends in .html or .md."
    if wrong is not None:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(wrong)
        return 2
    found = list(parts(output))
    costs, _ = run("cost", ["--output", str(output)])
    text = form(found, costs, place)
    write_atomically(place, lambda aside: aside.write_text(text, encoding="utf-8"))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for part in found:
        state = "not run: " + part.command if part in _order(found)[1] else part.fault or "shown"
        console.print(f"{part.name}: {state}")
    console.print(f"written: {place}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
