"""The trade-off's tables and picture, from result folders of two tasks."""

import json
import re

import pytest
from graded_studies import ACCURACY, EXACT, one_run
from result_folders import reseal

from experiments import forgetting
from experiments.study import last_sweep

# The share of questions that each model has right: the domain model gains 0.5 in its domain and forgets 0.3.
DOMAIN = {"base": 0.2, "pivot": 0.7, 0.25: 0.5, 0.5: 0.65, 0.75: 0.68}
GENERAL = {"base": 0.9, "pivot": 0.6, 0.25: 0.88, 0.5: 0.85, 0.75: 0.62}
DRAWN = {0.25: {"pilot": 0.5, "test": 0.7}}  # best on test, not on pilot


def run_all(study, domain=DOMAIN, general=GENERAL, *, weights=(0.25, 0.5, 0.75), **more):
    """Every λ of slerp, each task after the other."""
    job = 0
    for weight in weights:
        for task, metrics, shares in (("records", EXACT, domain), ("numbers", ACCURACY, general)):
            models = [("merged", "slerp", weight, shares[weight])]
            models += [("base", None, 0.0, shares["base"]), ("pivot", None, 1.0, shares["pivot"])]
            one_run(study, job, task, metrics, models, domain="records", **more)
            job += 1
    return study


@pytest.fixture
def study(tmp_path):
    return run_all(tmp_path / "forgetting", DOMAIN | DRAWN)


def line(text: str, start: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.strip().startswith(start)).split())


def test_the_table_has_every_model_with_what_it_forgot_and_lambda_is_chosen_on_pilot(study, ask):
    code, text, _ = ask(forgetting, study)
    assert code == 0
    assert "records exact_match numbers accuracy F, numbers" in " ".join(text.split())
    assert line(text, "base ").startswith("base 0.200 [")
    assert line(text, "domain model ").startswith("domain model 0.700 [")
    assert " +0.300 [" in line(text, "domain model ")
    assert line(text, "slerp λ=0.25 ").startswith("slerp λ=0.25 0.700 [")  # as good as any on test
    assert line(text, "slerp λ=0.5 * ").startswith("slerp λ=0.5 * 0.650 [")
    assert " +0.050 [" in line(text, "slerp λ=0.5 * ")


def test_what_is_gained_kept_and_won_back_stands_beside_what_was_published(study, ask):
    _, text, _ = ask(forgetting, study)
    for start, value in {
        "domain gained": "+0.500", "forgotten, numbers": "+0.300", "slerp λ=0.5: domain over base": "+0.450",
        "slerp λ=0.5: won back, numbers": "+0.250",
    }.items():  # fmt: skip
        assert line(text, start).startswith(f"{start} {value} [")
        assert line(text, start).endswith("not recovered U same")
    said = re.search(
        r"slerp λ=0.5 keeps (.+?) of what the domain gained and wins back (.+?) of what was forgotten", text
    )
    for share, value in zip(said.groups(), (90, 83), strict=True):
        own, low, high = map(int, re.fullmatch(r"(\d+)% \[(\d+)%, (\d+)%\]", share).groups())
        assert own == value
        assert low < own < high
    assert "arXiv 2604.01538" in text
    assert (study / forgetting.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_share_is_of_the_same_resamples_as_its_parts(study):
    found = forgetting.curves(last_sweep(study, "x", by=("task",)))
    model = found.chosen("slerp")
    for whole, value in ((found.domain_model, 1.0), (found.base, 0.0)):
        own = found.share("records", whole, found.base, found.domain_model)
        assert (own.value, own.low, own.high) == (value, value, value)  # of every resample, or they were other rows
    kept = found.share("records", model, found.base, found.domain_model)
    left = found.share("records", model, found.domain_model, found.base)
    assert kept.value + left.value == pytest.approx(1)
    assert (kept.low, kept.high) == pytest.approx((1 - left.high, 1 - left.low))


def test_dialogue_against_instructions_and_mathematics_shows_each_score_of_ifeval(tmp_path, ask):
    study, job = tmp_path / "forgetting_dialogue", 0
    overlap, right, parts = (
        f"patientdx.metrics.{name}" for name in ("text_overlap.mean", "accuracy.accuracy", "accuracy.share")
    )
    tasks = {
        "dialogue_to_section": ({"rouge1": overlap, "rougeL": overlap}, DOMAIN),
        "ifeval": ({"prompt_level_strict_acc": right, "inst_level_strict_acc": parts}, GENERAL),
        "gsm8k": ({"exact_match_strict": right}, dict.fromkeys(GENERAL, 0.3)),
    }
    for weight in (0.25, 0.5, 0.75):
        for task, (metrics, shares) in tasks.items():
            models = [("merged", "slerp", weight, shares[weight])]
            models += [("base", None, 0.0, shares["base"]), ("pivot", None, 1.0, shares["pivot"])]
            one_run(study, job, task, metrics, models, domain="dialogue_to_section")
            job += 1
    code, text, _ = ask(forgetting, study)
    assert code == 0
    named = "dialogue_to_section rouge1 ifeval prompt_level_strict_acc gsm8k exact_match_strict F, ifeval F, gsm8k"
    assert " ".join(named.split()) in " ".join(text.split())
    assert line(text, "forgotten, ifeval").startswith("forgotten, ifeval +0.300 [")
    assert line(text, "slerp λ=0.5: won back, ifeval").startswith("slerp λ=0.5: won back, ifeval +0.250 [")
    assert "ifeval: slerp λ=0.5 keeps 90% [" in text
    assert "gsm8k: no forgetting is shown (F +0.000 [+0.000, +0.000])" in text
    values = [word for word in line(text, "inst_level_strict_acc").split() if re.fullmatch(r"\d\.\d{3}", word)]
    assert values == ["0.950", "0.650", "0.900"]  # base, domain model, the λ that pilot chose
    assert "ifeval: all metrics" in text
    assert "dialogue_to_section: all metrics" in text
    assert "gsm8k: all metrics" not in text  # it has one


def test_where_nothing_was_forgotten_nothing_is_won_back(tmp_path, ask):
    _, text, _ = ask(forgetting, run_all(tmp_path / "same", general=dict.fromkeys(GENERAL, 0.6)))
    assert "numbers: no forgetting is shown (F +0.000 [+0.000, +0.000])" in text
    assert "keeps" not in text
    _, text, _ = ask(forgetting, run_all(tmp_path / "none", dict.fromkeys(DOMAIN, 0.3)))
    assert "The domain model is not shown to be better in its domain (+0.000 [+0.000, +0.000])" in text
    assert "keeps" not in text


def test_a_task_that_no_parent_can_do_has_no_say_in_lambda(tmp_path, ask):
    study = run_all(tmp_path / "forgetting", general=dict.fromkeys(GENERAL, 0.0) | {0.25: 0.4})
    found = forgetting.curves(last_sweep(study, "x", by=("task",)))
    assert found.chosen("slerp").weight == 0.75  # by the domain alone
    assert "Neither parent's is known to a factor of two in numbers, which has no say." in ask(forgetting, study)[1]


def test_one_right_answer_is_no_share_of_what_a_parent_can_do(tmp_path, capsys):
    # Of 120 pilot rows one is right: its interval goes beyond twice the score.
    # The merge that lost it is as good as another.
    study = run_all(tmp_path / "forgetting", general=dict.fromkeys(GENERAL, 0.0) | {"base": 1 / 120})
    found = forgetting.curves(last_sweep(study, "x", by=("task",)))
    assert found.beyond == ("numbers",)
    assert found.score(found.base, "numbers", "pilot") > 0
    assert found.chosen("slerp").weight == 0.75


def test_answers_that_were_cut_off_are_told_of(tmp_path, ask):
    study = run_all(tmp_path / "forgetting")
    for path in study.glob("*/metrics.json"):
        told = json.loads(path.read_text())
        for row in told["rows"]:
            row |= {"ended": 0.35 if row["role"] == "base" else 0.55, "mean_tokens": 300.0}
        reseal(path.parent, told)
    text = ask(forgetting, study)[1]
    assert line(text, "ended by itself").split()[-3:] == ["0.35", "0.55", "0.55"]
    assert line(text, "tokens, mean").split()[-3:] == ["300", "300", "300"]


def test_a_chosen_parent_is_called_one(tmp_path, ask):
    shares = [
        {**one, 0.0: one["base"], 1.0: one["pivot"]}
        for one in (dict.fromkeys(DOMAIN, 0.1), dict.fromkeys(GENERAL, 0.1))
    ]
    for one, ends in zip(shares, ((0.2, 0.7), (0.9, 0.6)), strict=True):
        one |= dict(zip(("base", "pivot"), ends, strict=True)) | dict(zip((0.0, 1.0), ends, strict=True))
    study = run_all(tmp_path / "ends", *shares, weights=(0.0, 0.5, 1.0))
    assert "numbers: slerp λ=1 is a parent; of slerp no merge between did better on pilot." in ask(forgetting, study)[1]


def test_a_single_task_is_no_trade_off(study, tmp_path, ask):
    code, out, err = ask(forgetting, study, "--domain", "poems")
    assert (code, out) == (2, "")
    assert "asked records, numbers; a trade-off needs the domain's task (poems) and another" in err
    for job in (1, 3, 5):
        (study / "sweep" / f"{job}.json").unlink()
    assert "asked records; a trade-off needs the domain's task (records) and another" in ask(forgetting, study)[2]


def test_gaps_few_weights_and_shared_patients_are_refused(study, tmp_path, ask):
    (study / "sweep" / "5.json").unlink()
    assert "have other models each: a table has no gaps" in ask(forgetting, study)[2]
    (study / "sweep" / "4.json").unlink()
    for job in (2, 3):
        (study / "sweep" / f"{job}.json").unlink()
    assert "has fewer than two λ: there is no curve" in ask(forgetting, study)[2]
    shared = run_all(tmp_path / "shared", shared=True)
    assert "60 of 60 patients of the test split are in the pilot split too" in ask(forgetting, shared)[2]


def test_the_runs_say_which_task_is_the_domains(study):
    assert {json.dumps(run.config["domain"]) for run in last_sweep(study, "x", by=("task",)).runs} == {'"records"'}
