"""The verdict on each claim of the papers, from result folders of sweeps."""

from types import SimpleNamespace

import pytest
from graded_studies import ACCURACY, EXACT
from graded_studies import one_run as graded_run
from swept_runs import one_run, strengths

from experiments import claims, leakage
from experiments.published import published
from experiments.reading import stems
from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Interval

PARENTS = {"base": 0.2, "numeric": 0.6, "noise": 0.1}


@pytest.fixture(autouse=True)
def wider(wide, monkeypatch):
    """A terminal in which no claim breaks."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def study(tmp_path):
    """SLERP is best at 0.4 on pilot and at 0.7 on test; a pivot of noise gives nothing."""
    folder = tmp_path / "claims"
    job = 0
    for pivot, scale in (("numeric", 1.0), ("noise", 0.1)):
        for method, weight, pilot, test in (
            ("slerp", 0.4, 1.5, 1.9), ("slerp", 0.7, 0.9, 2.0), ("linear", 0.4, 0.3, 1.8), ("linear", 0.7, 0.8, 1.6),
        ):  # fmt: skip
            both = strengths(scale * pilot, scale * test)
            both |= {("pivot", split): PARENTS[pivot] for split in ("pilot", "test")}
            one_run(folder, job, method, weight, both, pivot=pivot)
            job += 1
    return folder


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 100, 20, 100, 0.95)


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def below(text: str, start: str) -> list[str]:
    """The line of a claim and those of its comparisons."""
    every = text.splitlines()
    first = next(n for n, line in enumerate(every) if line.strip().startswith(start))
    last = next(n for n in range(first + 1, len(every)) if not every[n].startswith("   "))
    return lines("\n".join(every[first:last]))


@pytest.mark.parametrize(
    ("ends", "no_worse", "words"),
    [
        ([(0.01, 0.05)], False, "shown"),
        ([(0.01, 0.05), (-0.01, 0.05)], False, "not shown"),
        ([(0.001, 0.01)], False, "shown, and smaller than what matters"),
        ([(-0.01, 0.019)], False, "refuted"),
        ([(0.01, 0.05), (-0.05, 0.01)], False, "refuted"),
        ([(-0.01, 0.021)], False, "not shown"),
        ([(-0.019, 0.0)], True, "shown"),
        ([(-0.03, 0.01)], True, "not shown"),
        ([(-0.05, -0.021)], True, "refuted"),
    ],
)
def test_a_verdict_follows_from_the_ends_and_what_matters(ends, no_worse, words):
    claim = claims.Claim("c", "claims", "over_parents", 0.02, no_worse, None)
    assert claims.verdict(claim, [("", interval(*pair)) for pair in ends]) == words


@pytest.mark.parametrize("name", claims.claims())
def test_every_claim_names_a_study_a_comparison_and_a_published_cell(name):
    claim = claims.claims()[name]
    assert claim.study in stems()
    assert claim.compare in claims.COMPARISONS
    assert claim.smallest > 0
    if claim.published is not None:
        stem, cell = claim.published.split(".")
        assert claim.cell == published(stem).cells[cell].text


def test_a_sweep_answers_its_claims_and_the_others_name_their_command(study, ask):
    code, text, err = ask(claims, study)
    assert (code, err) == (0, "")
    parents = below(text, "A merge beats both of its parents")
    assert " 0.02 shown up to 7 % AUROC" in parents[0]
    assert [line.split(" +")[0] for line in parents[1:]] == ["slerp λ=0.4 − base", "slerp λ=0.4 − pivot"]
    pivots = below(text, "What the pivot learnt matters")
    assert " shown " in pivots[0]
    assert pivots[1].startswith("with numeric − without a pivot +")
    assert pivots[2].startswith("with numeric − with noise +")
    held = below(text, "λ chosen on pilot is as good on test")
    assert " -0.02 " in held[0]
    assert held[1].startswith("λ=0.4 − λ=0.7, best on test -0.")
    assert below(text, "SLERP beats linear")[1].startswith("slerp λ=0.4 − linear λ=0.7 +")
    assert below(text, "A λ between the parents")[1].startswith("base − slerp λ=")
    for start, command in (("A merge wins back", "experiment=forgetting"), ("The merge on few", "experiment=fewshot")):
        assert "not answered" in below(text, start)[0]
        assert any(line.startswith(start) and line.endswith(command) for line in lines(text))


def test_the_studies_beside_it_answer_the_others(study, ask):
    parents = [("base", None, 0.0, 0.9), ("pivot", None, 1.0, 0.6)]
    for job, (task, metrics) in enumerate((("records", EXACT), ("numbers", ACCURACY)) * 2):
        models = [("merged", "slerp", (0.25, 0.5)[job // 2], 0.85), *parents]
        graded_run(study.parent / "forgetting", job, task, metrics, models, domain="records")
    for job, (start, examples, share) in enumerate((("base", 64, 0.7), ("merged", 16, 0.8))):
        models = [
            ("merged", "slerp", 0.5, 0.7),
            ("base", None, 0.0, 0.6),
            ("finetuned", f"lora({start}) {examples}", None, share),
        ]
        graded_run(
            study.parent / "fewshot", job, "numbers", ACCURACY, models,
            finetune={"name": "lora", "init_from": start, "examples": examples, "epochs": 1, "seed": 0},
            non_inferiority={"merged": 16, "base": 64, "margin": 0.1, "level": 0.95}, told={"training": {"steps": 4}},
        )  # fmt: skip
    for job, task in enumerate(("mortality", "readmission_30d")):
        one_run(study.parent / "transfer", job, "slerp", 0.4, strengths(1.0, 1.0), task=task)
    text = ask(claims, study)[1]
    for start, line in (
        ("A merge wins back", "numbers: slerp λ=0.25 − domain model +0.250 ["),
        ("The merge on few", "merged@16 − base@64 +0.100 ["),
        ("λ chosen on mortality", "readmission_30d: λ=0.4 − own +0.000 ["),
    ):
        head, *rest = below(text, start)
        assert " shown " in head
        assert rest[0].startswith(line)


def test_only_a_fine_tuned_model_that_learnt_as_much_is_compared(monkeypatch):
    def model(name: str, role: str, area: float, attack: tuple[float, float, float]) -> leakage.Model:
        auc = dict(zip(("value", "low", "high"), attack, strict=True))
        row = {"role": role, "method": name, "auroc": area, "n": 80, "events": 20, "patients": 40}
        return leakage.Model(name, row, {"mia": {leakage.ATTACK: {"auc": auc}}}, {})

    merge = model("slerp", "merged", 0.7, (0.5, 0.45, 0.55))
    weak, strong = (model(f"lora {area}", "finetuned", area, (0.8, 0.7, 0.9)) for area in (0.6, 0.75))
    study = SimpleNamespace(runs=[SimpleNamespace(config={"bootstrap": {"level": 0.95}})])
    monkeypatch.setattr(leakage, "models", lambda study: [merge, weak, strong])
    ((name, found),) = claims.less_than_finetuned(study)
    assert name == "lora 0.75 − slerp, AUC of the attack"
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.15, 0.45))
    monkeypatch.setattr(leakage, "models", lambda study: [merge, weak])
    with pytest.raises(UserError, match="no fine-tuned model of the study reaches"):
        claims.less_than_finetuned(study)


def test_without_its_sweep_it_names_the_command(tmp_path, ask):
    code, _, err = ask(claims, tmp_path / "claims")
    assert code == 2
    assert "python run.py experiment=claims" in err
