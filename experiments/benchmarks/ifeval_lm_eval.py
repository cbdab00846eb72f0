"""The harness' half of ifeval.py: its own checkers' verdicts. It runs in lm-eval's environment."""

from __future__ import annotations

import sys
from typing import Any

import nltk
from langdetect import DetectorFactory
from lm_eval.tasks.ifeval import instructions_util
from lm_eval.tasks.ifeval.utils import InputExample, test_instruction_following_loose, test_instruction_following_strict

from experiments.benchmarks import harness
from patientdx.tasks.sentences import splitter


def verdicts(cases: list[dict[str, Any]]) -> list[list[bool]]:
    """[strict, loose] of every case."""
    tokenizer = splitter()
    instructions_util._get_sentence_tokenizer = lambda: tokenizer
    nltk.tokenize._get_punkt_tokenizer = lambda language="english": tokenizer
    return [[_judged(check, case) for check in _CHECKS] for case in cases]


_CHECKS = (test_instruction_following_strict, test_instruction_following_loose)


def _judged(check, case: dict[str, Any]) -> bool:
    DetectorFactory.seed = 0  # the language detector draws
    example = InputExample(0, [case["kind"]], "", [case["arguments"]])
    return bool(check(example, case["answer"]).follow_all_instructions)


if __name__ == "__main__":
    harness.serve(sys.argv[1:], verdicts)
