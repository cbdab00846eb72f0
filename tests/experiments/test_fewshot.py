"""Learning curves and the test of non-inferiority, from result folders of trainings."""

import pytest
from graded_studies import ACCURACY, one_run

from experiments import fewshot
from experiments.study import last_sweep

ASKED = {"merged": 16, "base": 64, "margin": 0.1, "level": 0.95}
SHARES = {("base", 0): 0.5, ("merged", 0): 0.55, ("base", 16): 0.6, ("base", 64): 0.8, ("merged", 16): 0.78,
          ("merged", 64): 0.9}  # fmt: skip
STEPS = {16: 6, 64: 24}


def run_all(
    study, shares=None, asked=ASKED, steps=None, given=None, merge=("slerp", 0.5), first=0, left_out=(), **more
):
    """A run for each start and number of examples, numbered from `first`."""
    shares = SHARES | (shares or {})
    trained = [key for key in shares if key[1] and key not in left_out]
    method, weight = merge
    for job, (start, examples) in enumerate(trained, first):
        of = start if start == "base" else f"{method} λ={weight}"
        told = f"lora({of}) {examples}" + (f" {given} steps" if given else "")
        models = [("merged", method, weight, shares["merged", 0]), ("base", None, 0.0, shares["base", 0]),
                  ("finetuned", told, None, shares[start, examples])]  # fmt: skip
        tuned = {
            "name": "lora",
            "init_from": start,
            "examples": examples,
            "epochs": 3,
            "seed": 0,
            "steps": given,
        } | more
        taken = given or (steps or STEPS)[examples]
        one_run(study, job, "numbers", ACCURACY, models, finetune=tuned, non_inferiority=asked,
                told={"training": {"steps": taken}})  # fmt: skip
    return study


@pytest.fixture
def study(tmp_path):
    return run_all(tmp_path / "fewshot")


def plain(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_curves_begin_with_the_models_as_they_are(study, ask):
    code, text, _ = ask(fewshot, study)
    assert code == 0
    lines = plain(text)
    assert "accuracy on test, equal epochs" in lines
    assert next(line for line in lines if line.startswith("0 –")).startswith("0 – 0.500 [")
    assert " 0.550 [" in next(line for line in lines if line.startswith("0 –"))
    assert next(line for line in lines if line.startswith("16 6 ")).startswith("16 6 0.600 [")
    assert next(line for line in lines if line.startswith("64 24 ")).startswith("64 24 0.800 [")
    assert (study / fewshot.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert any(line.startswith("examples, merged 16 64 examples V") for line in lines)
    assert "Equal epochs alone" in text
    assert "to be as good says little" not in text


def test_to_be_as_good_as_a_base_that_learnt_nothing_says_little(tmp_path, ask):
    dull = run_all(tmp_path / "dull", {("base", 64): 0.5, ("merged", 16): 0.5})
    text = ask(fewshot, dull)[1]
    assert "merged@16 is non-inferior to base@64" in text
    assert (
        "But base@64 is not shown to be better than base@0 (+0.000 [+0.000, +0.000]): to be as good says little."
        in text
    )


def test_the_margin_decides_and_not_whether_the_difference_is_zero(study, tmp_path, ask):
    (said,) = fewshot.verdicts(fewshot.curves(last_sweep(study, "x")))
    assert said.interval.value == pytest.approx(-0.0167, abs=0.01)
    assert -0.1 < said.bound < said.interval.value
    assert said.interval.level == 0.9  # as the run has it; the bound is one-sided at 0.95
    assert said.shown
    assert "merged@16 is non-inferior to base@64: difference -0.017 [" in ask(fewshot, study)[1]
    strict = run_all(tmp_path / "strict", asked=ASKED | {"margin": 0.01})
    assert "merged@16 is not shown to be non-inferior to base@64" in ask(fewshot, strict)[1]
    worse = run_all(tmp_path / "worse", {("merged", 16): 0.6})
    assert "is not shown to be non-inferior to base@64: difference -0.200" in ask(fewshot, worse)[1]


def test_a_one_sided_bound_is_the_end_of_a_two_sided_interval(study):
    found = fewshot.curves(last_sweep(study, "x"))
    pair = found.points[fewshot.Start("merged", "slerp", 0.5), 16], found.points[fewshot.BASE, 64]
    assert fewshot.verdicts(found)[0].bound == found.change(*pair, level=0.9).low


def test_two_merges_are_two_curves_each_with_its_own_beginning_and_test(tmp_path, ask):
    study = tmp_path / "fewshot"
    run_all(study)
    run_all(study, {("merged", 0): 0.4, ("merged", 16): 0.6, ("merged", 64): 0.7}, merge=("linear", 0.3), first=4)
    code, text, _ = ask(fewshot, study)
    assert code == 0
    lines = plain(text)
    assert "examples steps base slerp λ=0.5 linear λ=0.3" in lines

    def scores(start: str) -> list[str]:
        words = next(line for line in lines if line.startswith(start)).split()
        return [words[place - 1] for place, word in enumerate(words) if word.startswith("[")]

    assert scores("0 – ") == ["0.500", "0.550", "0.400"]
    assert scores("16 6 ") == ["0.600", "0.783", "0.600"]
    assert scores("64 24 ") == ["0.800", "0.900", "0.700"]
    told = [line for line in lines if line.startswith("equal epochs: ")]
    assert told[0].startswith("equal epochs: slerp λ=0.5@16 is non-inferior to base@64: difference -0.017 [")
    assert told[1].startswith("equal epochs: linear λ=0.3@16 is not shown to be non-inferior to base@64: ")
    assert len([line for line in lines if line.startswith("bound, margin -0.100")]) == 2
    assert "Each merge's test stands alone" in text
    assert "merged: slerp λ=0.5 and linear λ=0.3" in text
    few = run_all(tmp_path / "few")
    run_all(few, {("merged", 16): 0.7}, merge=("linear", 0.3), first=4, left_out=[("merged", 16)])
    assert "the study has no linear λ=0.3@16, which the test" in ask(fewshot, few)[2]


def test_equal_steps_are_a_second_run_with_what_the_first_had_already(study, ask):
    run_all(study.with_name("fewshot_steps"), {("merged", 16): 0.82, ("base", 16): 0.7}, given=24)
    code, text, _ = ask(fewshot, study)
    assert code == 0
    lines = plain(text)
    assert "accuracy on test, equal steps" in lines
    assert any(line.startswith("16 24 0.700 [") for line in lines)
    assert any(
        line.startswith("equal steps: merged@16 is non-inferior to base@64: difference +0.025") for line in lines
    )
    assert any(line.startswith("equal epochs: merged@16 ") for line in lines)


def test_a_second_run_of_other_rows_or_of_several_lengths_is_refused(study, ask):
    run_all(study.with_name("fewshot_steps"), {("base", 0): 0.4}, given=24)
    assert "fewshot_steps asked other rows than the first run" in ask(fewshot, study)[2]
    assert (
        "fewshot_steps is the second run of fewshot and stands in its table: --name fewshot"
        in ask(fewshot, study.with_name("fewshot_steps"))[2]
    )
    run_all(study.with_name("other"))
    assert "has trainings of ['24', '6'] steps: give finetune.steps=" in ask(fewshot, study, "--steps-name", "other")[2]


def test_gaps_mixtures_and_margins_that_change_are_refused(study, tmp_path, ask):
    few = run_all(tmp_path / "few", asked=ASKED | {"merged": 8})
    assert "the study has no merged@8, which the test of non-inferiority compares" in ask(fewshot, few)[2]
    mixed = run_all(tmp_path / "mixed", learning_rate=1e-4)
    run_all(mixed, {("base", 16): 0.6}, learning_rate=1e-4)
    one_run(mixed, 9, "numbers", ACCURACY, [("finetuned", "lora(base) 8", None, 0.5)], non_inferiority=ASKED,
            finetune={"name": "lora", "init_from": "base", "examples": 8, "epochs": 9, "seed": 0})  # fmt: skip
    assert "trained in more than one way" in ask(fewshot, mixed)[2]
    none = run_all(tmp_path / "none", asked=None)
    assert "name no margin, or several" in ask(fewshot, none)[2]
    untrained = tmp_path / "untrained"
    one_run(untrained, 0, "numbers", ACCURACY, [("base", None, 0.0, 0.5)], finetune={"name": "none"})
    assert "fine-tuned nothing on so many examples" in ask(fewshot, untrained)[2]
