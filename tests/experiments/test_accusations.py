"""The benchmark of accusations on one seed: what is in the docs for forty comes from the same command."""

import pytest

from experiments.benchmarks import accusations


@pytest.fixture(scope="module")
def shown() -> dict[tuple[str, str], str]:
    """What one seed's models are accused of, by kind of model and way of reading."""
    return {(kind, way): count for kind, way, count, _ in accusations.lines(1, ("clean",))}


def test_a_model_that_saw_no_record_is_not_accused(shown):
    assert shown.keys() == {("clean", way) for way in accusations.READINGS}
    assert {shown["clean", way] for way in ("fresh", "resampled")} == {"0 of 1"}


def test_the_sets_share_no_record_and_resampled_ones_have_the_words_of_train():
    made = accusations.records(0)
    names = ("train", "test", "fresh", "elsewhere", "further")
    patients = [set(made.subjects[name]) for name in names]
    assert sum(map(len, patients)) == len(set().union(*patients))
    assert not set(made.texts["resampled"]) & set(made.texts["train"])
    assert all(text.startswith("heart rate: ") for text in made.texts["resampled"])
    assert max(map(len, made.ids("train"))) <= 64
