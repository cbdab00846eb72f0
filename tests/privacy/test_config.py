"""The keys of conf/privacy, each with its check, and what the rest of a config rules out."""

import pytest
from pydantic import ValidationError

from patientdx.evaluation.config.analyses import PrivacyConfig
from patientdx.evaluation.config.conflicts import _of_privacy


def test_all_errors_are_reported_at_once():
    node = {"name": "half", "reference": "mine", "k": 0, "neighbours": -1, "shadows": 2, "canaries": [0],
            "extraction": True}  # fmt: skip
    with pytest.raises(ValidationError) as raised:
        PrivacyConfig.model_validate({"privacy": node}, context={"plain": {"privacy": node}, "sweep": False})
    assert {error["loc"][-1] for error in raised.value.errors()} == set(node)


@pytest.mark.parametrize(("name", "dlt", "mia"), [("none", 0, 0), ("dlt", 1, 0), ("mia", 0, 1), ("all", 1, 1)])
def test_the_name_chooses_the_measures(name, dlt, mia):
    node = {"privacy": {"name": name}}
    config = PrivacyConfig.model_validate(node, context={"plain": node, "sweep": False})
    assert (config.dlt, config.mia, config.enabled) == (dlt, mia, bool(dlt or mia))


def test_without_a_measure_nothing_is_ruled_out():
    assert not list(_of_privacy({"privacy": {"name": "none"}, "task": {"name": "none"}, "parents": False}))
