"""The order of a sweep's jobs."""

import itertools
import json
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from patientdx.cli import sweep_order


@pytest.fixture(autouse=True)
def conf():
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        yield


def test_the_order_of_the_overrides_does_not_matter():
    """Hydra's own sweeper makes the same jobs of every order: models outermost, then merge, λ, and task innermost."""
    words = ["task=mortality,mortality_hospital", "lambda=0.1,0.2", "merge=slerp,linear", "base_model.source=x,y"]
    made = set()
    for given in itertools.permutations(words):
        sorted_ = sweep_order.ordered([*given, "seed=1"])
        batch = sweep_order.points(sorted_)
        assert len(batch) == 16
        made.add(json.dumps([[one for one in job if one != "seed=1"] for job in batch]))
    (jobs,) = map(json.loads, made)
    assert jobs[:3] == [
        ["base_model.source=x", "merge=slerp", "lambda=0.1", "task=mortality"],
        ["base_model.source=x", "merge=slerp", "lambda=0.1", "task=mortality_hospital"],
        ["base_model.source=x", "merge=slerp", "lambda=0.2", "task=mortality"],
    ]
    assert jobs == [[f"base_model.source={a}", f"merge={b}", f"lambda={c}", f"task={d}"]
                    for a, b, c, d in itertools.product("xy", ("slerp", "linear"), ("0.1", "0.2"),
                                                        ("mortality", "mortality_hospital"))]  # fmt: skip


def test_a_range_and_a_choice_are_counted():
    assert len(sweep_order.points(["lambda=range(0,1.01,0.1)", "merge=slerp,linear", "seed=3"])) == 22
    assert len(sweep_order.points(["lambda=0.1,0.2", "lambda=0.4"])) == 1  # the last of a key counts
    assert sweep_order.choices(["+merge.x=choice(1,2,3)", "~tracking"]) == {"+merge.x": 3}
