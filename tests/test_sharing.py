"""What the jobs of a sweep share, counted: a product of everything loads what it must and no more."""

import gc
import weakref
from collections import Counter
from pathlib import Path

import pytest
from command_line import ROOT, settings
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from patientdx.cli import sweep_order
from patientdx.evaluation import merge_inputs, session
from patientdx.evaluation.runner import run

SHARED = (
    session.accelerator,
    merge_inputs.parents,
    merge_inputs.curves,
    session.task_data,
    session.prompts,
    session.live,
)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for one in SHARED:
        one.cache_clear()
    yield
    session.live.cache_clear()


@pytest.fixture
def counted(monkeypatch) -> Counter:
    """How often each costly step was taken, and how many live models there were when one more was loaded."""
    count: Counter = Counter()
    models: list[weakref.ref] = []

    def watch(module, name: str) -> None:
        original = getattr(module, name)

        def step(*args, **kwargs):
            count[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, step)

    load_model = session.load_model

    def loaded(*args, **kwargs):
        gc.collect()
        count["beside one another"] += sum(model() is not None for model in models)
        model = load_model(*args, **kwargs)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(session, "load_model", loaded)
    watch(session, "load_model")
    watch(session, "tokenise")
    watch(merge_inputs, "locate")
    original = session.Recipe.weight_of  # asked once for each tensor of a pass

    def weight_of(self, name: str) -> float:
        count["fill"] += name == "model.embed_tokens.weight"
        return original(self, name)

    monkeypatch.setattr(session.Recipe, "weight_of", weight_of)
    return count


def jobs(*words: str) -> list[list[str]]:
    """The jobs of a sweep over these overrides, as they run."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        found = sweep_order.parsed(sweep_order.ordered(words))
        return BasicSweeper.split_arguments(found, None)[0]


def test_a_product_of_everything_loads_each_thing_once(tiny_base, tiny_pivot, make_tiny, tmp_path, counted):
    other: Path = make_tiny(noise_seed=5)
    words = (
        "task=mortality,mortality_hospital",
        "lambda=0.2,0.4",
        "merge=slerp,linear",
        f"base_model.source={tiny_base},{other}",
    )
    asked = jobs(*words)
    assert len(asked) == 16
    found = [run(settings(tiny_base, tiny_pivot, tmp_path / "outputs", *job)) for job in asked]
    assert len({outcome.folder for outcome in found}) == 16
    assert counted["load_model"] == 2  # one for each base, whatever the method and the task
    assert counted["beside one another"] == 0
    assert counted["locate"] == 4
    assert counted["tokenise"] == 4  # two tasks by two bases
    assert session.task_data.cache_info().misses == 2
    assert merge_inputs.curves.cache_info().misses == 6  # two methods and the pair of parents, for each base
    # For each base 2 methods x 2 λ, each filled once for both tasks; and in the first job of each task the parents,
    # after which the second task fills the first point anew: 4 + 2 x 2 + 1.
    assert counted["fill"] == 2 * 9


def test_the_third_decimal_of_a_range_is_no_new_point(tiny_base, tiny_pivot, tmp_path, counted):
    """range() gives 0.7000000000000001: the same point, fingerprint, folder and row as 0.7."""
    words = [next(iter(job)) for job in jobs("lambda=range(0,0.8,0.1)")]
    assert words[7] == "lambda=0.7000000000000001"
    first, second = (
        run(settings(tiny_base, tiny_pivot, tmp_path / "outputs", "parents=false", word))
        for word in ("lambda=0.7", words[7])
    )
    assert second.reused
    assert second.folder == first.folder
    assert first.folder.name.startswith("mortality_slerp_lambda=0.7_")
    assert {row["lambda"] for row in second.rows} == {0.7}
    assert settings(tiny_base, tiny_pivot, tmp_path, words[7]).composed["lambda"] == 0.7
