"""The harness' half of ifeval.py: its own checkers' verdicts. It runs in lm-eval's environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import nltk
from langdetect import DetectorFactory
from lm_eval.tasks.ifeval import instructions_util
from lm_eval.tasks.ifeval.utils import InputExample, test_instruction_following_loose, test_instruction_following_strict

from patientdx.tasks.sentences import splitter


def main(argv: Sequence[str]) -> None:
    """Reads cases and writes [strict, loose] of each, both JSON, named in argv."""
    own = splitter()
    instructions_util._get_sentence_tokenizer = lambda: own
    nltk.tokenize._get_punkt_tokenizer = lambda language="english": own
    verdicts = []
    for one in json.loads(Path(argv[0]).read_text()):
        asked = InputExample(0, [one["kind"]], "", [one["arguments"]])
        judged = []
        for check in (test_instruction_following_strict, test_instruction_following_loose):
            DetectorFactory.seed = 0  # the language detector draws
            judged.append(bool(check(asked, one["answer"]).follow_all_instructions))
        verdicts.append(judged)
    Path(argv[1]).write_text(json.dumps(verdicts))


if __name__ == "__main__":
    main(sys.argv[1:])
