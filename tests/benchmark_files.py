"""Files of questions that tests write, and runs of tiny models on them."""

import json
from pathlib import Path

from command_line import ROOT
from hydra import compose, initialize_config_dir

from patientdx.evaluation.config.run_config import RunConfig, parse

WORDS = ("heart rate", "sodium", "the interval 60 to 100", "lactate of 2.4 mmol/L", "a quick fox", "No")


def questions(folder: Path, **counts: int) -> Path:
    """A folder with <split>.jsonl of so many questions each; the right option is the number of the line modulo 4."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        lines = []
        for i in range(count):
            options = {letter: WORDS[(i + k) % len(WORDS)] for k, letter in enumerate("ABCD")}
            asked = f"{split} question {i}: what is it?" + " Is the heart rate above the interval?" * (i % 3)
            lines.append(json.dumps({"question": asked, "options": options, "answer_idx": "ABCD"[i % 4]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def overrides(base: Path, pivot: Path, *more: str) -> list[str]:
    """The overrides of a run of tiny models on a task of any kind, which takes a second."""
    return [
        f"base_model.source={base}",
        f"pivot_model.source={pivot}",
        "pivot_model.adapter=null",
        "dtype=float32",
        "bootstrap.resamples=100",
        "tracking=none",
        "splits=[test]",
        *more,
    ]


def settings(base: Path, pivot: Path, output: Path, *more: str) -> RunConfig:
    """The same run for use in this process."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return parse(compose("config", overrides(base, pivot, f"output={output}", *more)))
