"""What the configuration refuses, by the table refused_configurations.yaml: all problems at once, nothing opened."""

from pathlib import Path

import pytest
import yaml
from command_line import composed

from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import parse

_TABLE = yaml.safe_load(Path(__file__).with_name("refused_configurations.yaml").read_text(encoding="utf-8"))
REFUSED = [(list(batch), [problem for problem in batch.values() if problem]) for batch in _TABLE["batches"]]
REFUSED += [(command.split(), [problems] if isinstance(problems, str) else problems)
            for command, problems in _TABLE["commands"].items()]  # fmt: skip


@pytest.mark.parametrize(("overrides", "problems"), REFUSED, ids=[" ".join(words)[:80] for words, _ in REFUSED])
def test_every_problem_is_named_word_for_word(overrides, problems):
    with pytest.raises(UserError) as refused:
        parse(composed(*overrides), overrides=overrides)
    head, *lines = str(refused.value).split("\n")
    assert head == f"{len(problems)} problem{'s' * (len(problems) > 1)} in this configuration"
    assert sorted(lines) == sorted(f"  {problem}" for problem in problems)
