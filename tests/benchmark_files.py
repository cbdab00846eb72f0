"""Files of questions that tests write."""

import json
from pathlib import Path

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
