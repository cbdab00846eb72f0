"""The command that makes dashboards: without network, without a key, and against a server in W&B's place."""

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_server import wandb_server

from experiments import dashboard
from patientdx.core.errors import UserError
from patientdx.evaluation.analyses.privacy_tables import ATTACKS, summary

ROOT = Path(__file__).parents[2]
STUDY = ("--study", "lambda_curve")
NO_KEY = {"WANDB_API_KEY": "", "NETRC": "/nonexistent/netrc"}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "experiments.dashboard", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> tuple[str, dict]:
    """What a dry run says and writes, with a key that opens nothing and a network that is none."""
    file = tmp_path_factory.mktemp("dashboard") / "dashboard.json"
    done = command(
        "me/study", *STUDY, "--task", "mortality", "--task", "phenotype", "--leakage", "--dry-run", "--json", str(file),
        **NO_KEY, WANDB_BASE_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(file.read_text())


def test_a_dry_run_says_what_would_be_made(dry):
    assert dry[0].splitlines()[1:] == [
        "λ curves: mortality: 8 panels",
        "Differences from the parents: mortality: 4 panels",
        "Ablations: mortality: 3 panels",
        "Calibration and decision: mortality: 9 panels",
        "λ curves: phenotype: 8 panels",
        "Differences from the parents: phenotype: 4 panels",
        "Ablations: phenotype: 3 panels",
        "Calibration and decision: phenotype: 9 panels",
        "Leakage: 17 panels",
        "a workspace and a report over 4 metrics would be made in me/study; nothing was sent",
    ]


def panels(content: dict, title: str) -> list[dict]:
    (section,) = (one for one in content["spec"]["section"]["panelBankConfig"]["sections"] if one["name"] == title)
    return section["panels"]


def test_a_lambda_curve_is_a_line_a_method_with_its_interval_as_a_band(dry):
    workspace = dry[1]["workspace"]
    curve = panels(workspace, "λ curves: mortality")[0]
    assert curve["viewType"] == "Run History Line Plot"
    config = curve["config"]
    assert (config["xAxis"], config["groupBy"]) == ("lambda", "method.value")
    assert (config["groupAgg"], config["groupArea"], config["aggregate"]) == ("median", "minmax", True)
    assert config["metrics"] == ["mortality/auroc_ci_low", "mortality/auroc", "mortality/auroc_ci_high"]
    assert config["smoothingType"] == "none"
    titles = [one["config"]["chartTitle"] for one in panels(workspace, "λ curves: mortality")]
    assert sum("auprc" in title for title in titles) == sum("auroc" in title for title in titles) == 4


def test_bars_have_the_ends_of_their_intervals_and_leakage_has_its_panel(dry):
    workspace = dry[1]["workspace"]
    assert panels(workspace, "Ablations: phenotype")[1]["config"]["metrics"] == [
        "phenotype/auprc_ci_low",
        "phenotype/auprc",
        "phenotype/auprc_ci_high",
    ]
    drawn = [one["config"].get("metrics", []) for one in panels(workspace, "Leakage")]
    assert ["leakage/delta1_ci_low", "leakage/delta1", "leakage/delta1_ci_high"] in drawn
    assert ["leakage/delta2_ci_low", "leakage/delta2", "leakage/delta2_ci_high"] in drawn
    assert any("mia/loss/auc" in one for one in drawn)


def test_the_leakage_panel_draws_what_a_run_with_privacy_logs(dry):
    """As privacy.json has it where every attack ran: a number with its interval, a number, a count."""
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "dropped": 0}
    attack = {"auc": estimate, "over_base": estimate, "tpr": {"0.01": estimate}}
    model = {
        "dlt": {key: {"loss": estimate, "over_base": estimate} for key in ("delta1", "delta2")},
        "mia": dict.fromkeys(ATTACKS, attack),
        "canaries": {"copies": {str(copies): {"exposure": 2.0} for copies in (1, 4, 16)}},
    }
    told = {"role": "merged", "models": {"merged": model, "finetuned": model}, "members": {"n": 3}}
    told |= {"non_members": {"n": 3}, "blind": {name: {"auc": estimate} for name in ("bag_of_words", "length")}}
    logged = summary(told)
    bars = [one["config"]["metrics"] for one in panels(dry[1]["workspace"], "Leakage") if "metrics" in one["config"]]
    asked = {key for one in bars for key in one}
    assert len(asked) > 60
    assert asked - logged.keys() == set()


def test_a_task_that_asks_for_no_risk_has_no_panel_for_one(tmp_path):
    file = tmp_path / "dashboard.json"
    assert dashboard.main(["me/study", *STUDY, "--task", "medqa", "--dry-run", "--json", str(file)]) == 0
    text = file.read_text()
    assert '"medqa/acc"' in text
    assert '"medqa_pilot/acc_norm_ci_low"' in text
    for absent in ("calibration", "abstention", "events", "auroc"):
        assert f"medqa/{absent}" not in text, absent
    for absent in ("medqa/test/", "leakage/", "mia/"):
        assert absent not in text, absent


def test_only_the_runs_that_were_chosen_are_shown(tmp_path):
    file = tmp_path / "dashboard.json"
    words = [
        "--base",
        "llama",
        "--pivot",
        "dart",
        "--seed",
        "0",
        "--data",
        "0123",
        "--dtype",
        "bfloat16",
        "--name",
        "Ours",
    ]
    assert dashboard.main(["me/study", *STUDY, *words, "--dry-run", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    expected = {"group": "lambda_curve", "base": "llama", "pivot": "dart", "seed": 0, "data_id": "0123"}
    expected["dtype"] = "bfloat16"
    runsets = content["workspace"]["spec"]["section"]["runSets"]
    runsets += [
        one for block in content["report"]["spec"]["blocks"] for one in block.get("metadata", {}).get("runSets", [])
    ]
    assert len(runsets) == 8
    for runset in runsets:
        filters = {one["key"]["name"]: one["value"] for one in runset["filters"]["filters"]}
        assert {key: value for key, value in filters.items() if key != "method"} == expected
    assert (content["workspace"]["displayName"], content["report"]["displayName"]) == ("Ours", "Ours")


def test_the_report_shows_each_methods_run_that_is_best_on_pilot(tmp_path):
    file = tmp_path / "dashboard.json"
    assert dashboard.main(["me/study", *STUDY, "--method", "ties", "--dry-run", "--json", str(file)]) == 0
    blocks = json.loads(file.read_text())["report"]["spec"]["blocks"]
    at = next(i for i, one in enumerate(blocks) if one.get("children", [{}])[0].get("text") == "Best λ: mortality")
    grid = blocks[at + 1]["metadata"]
    (runset,), (panel,) = grid["runSets"], grid["panelBankSectionConfig"]["panels"]
    assert runset["sort"]["keys"] == [
        {"key": {"section": "summary", "name": "mortality_pilot/auroc"}, "ascending": False}
    ]
    assert {"method": "ties"}.items() <= {
        one["key"]["name"]: one["value"] for one in runset["filters"]["filters"]
    }.items()
    ends = ["mortality/auroc_ci_low", "mortality/auroc", "mortality/auroc_ci_high"]
    assert panel["config"]["metrics"] == ["lambda", *ends]
    assert panel["config"]["limit"] == 1


def test_a_task_of_ones_own_is_shown_by_its_metrics(tmp_path, capsys):
    file = tmp_path / "dashboard.json"
    words = [*STUDY, "--dry-run", "--json", str(file)]
    assert dashboard.main(["me/study", "--task", "ours=auroc,brier", *words]) == 0
    text = file.read_text()
    assert '"ours/minus_pivot/brier_ci_high"' in text
    assert "ours/calibration" not in text
    capsys.readouterr()
    assert dashboard.main(["me/study", "--task", "ours", *words]) == 2
    assert "give its metrics too, as in --task ours=auroc,auprc" in capsys.readouterr().err


def test_the_report_has_the_same_panels_and_a_run_table(dry):
    blocks = dry[1]["report"]["spec"]["blocks"]
    headings = [one["children"][0]["text"] for one in blocks if one["type"] == "heading"]
    sections = dry[1]["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    best = ["Best λ: mortality", "Best λ: phenotype"]
    assert headings == [*best, *(one["name"] for one in sections), "Runs"]
    grids = [one["metadata"] for one in blocks if one["type"] == "panel-grid"][4:]  # two methods a task before
    for section, grid in zip(sections, grids, strict=False):
        shown = grid["panelBankSectionConfig"]["panels"]
        assert [one["config"] for one in shown] == [one["config"] for one in section["panels"]]
        places = [(one["layout"]["x"], one["layout"]["y"]) for one in shown]
        assert len(set(places)) == len(places)
    assert [one["viewType"] for one in grids[-1]["panelBankSectionConfig"]["panels"]] == ["Run Comparer"]
    assert "config:method.value" in grids[-1]["runSets"][0]["runFeed"]["columnPinned"]


def test_the_same_command_writes_the_same_file(dry, tmp_path):
    command(
        "me/study", *STUDY, "--task", "mortality", "--task", "phenotype", "--leakage", "--dry-run",
        "--json", str(tmp_path / "again.json"),
        PYTHONHASHSEED="7",
    )  # fmt: skip
    assert json.loads((tmp_path / "again.json").read_text()) == dry[1]


def test_what_is_made_is_what_the_file_says(tmp_path):
    file = tmp_path / "dashboard.json"
    with wandb_server() as (url, sent):
        done = command("me/p", *STUDY, "--json", str(file), WANDB_BASE_URL=url, WANDB_API_KEY="a" * 40)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        f"{url}/me/p?nw=v",
        f"{url}/me/p/reports/PatientDx,-lambda_curve:-mortality--r",
    ]
    content = json.loads(file.read_text())
    (workspace,), (report,) = sent.variables("UpsertView2"), sent.variables("upsertView")
    assert (workspace["entityName"], workspace["projectName"]) == ("me", "p")
    assert json.loads(workspace["spec"]) == content["workspace"]["spec"]
    assert json.loads(report["spec"]) == content["report"]["spec"]


def test_a_project_without_runs_is_refused_before_anything_is_made():
    with wandb_server(runs=0) as (url, sent):
        done = command("me/p", *STUDY, WANDB_BASE_URL=url, WANDB_API_KEY="a" * 40)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("me/p holds no run yet. Send some first: python run.py tracking=wandb")
    assert not sent.variables("UpsertView2")
    assert not sent.variables("upsertView")


def test_no_key_is_one_message():
    done = command("me/p", *STUDY, **NO_KEY)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("W&B did not take the dashboard of me/p: No API key configured.")
    assert "It needs a key (wandb login, or WANDB_API_KEY), the network, and a project that holds runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_one_message(monkeypatch, capsys):
    import wandb

    wandb.teardown()  # it looks at the environment once
    monkeypatch.setattr(dashboard, "_SECONDS", 1)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert dashboard.main(["me/p", *STUDY]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("W&B did not take the dashboard of me/p: Failed to verify credentials")
    wandb.teardown()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "--dry-run"], "study is no project at W&B: give ENTITY/PROJECT, as in my-team/patientdx\n"),
        (["a/b/c", "--dry-run"], "a/b/c is no project at W&B"),
        (["me/p", "--task", "none"], "--task none: there is no such task to show; there are "),
        (["me/p", "--dry-run", "--json", "/nonexistent/x.json"], "[Errno 2] No such file or directory: '/nonexistent"),
    ],
)
def test_what_cannot_be_is_one_message(arguments, said, capsys):
    assert dashboard.main([*arguments, *STUDY]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("wandb_workspaces"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError) as refused:
        dashboard._needed()
    assert str(refused.value) == (
        "python -m experiments.dashboard needs the package wandb_workspaces, which is not installed: "
        "pip install 'patientdx[dashboards]', or in a clone pip install '.[dashboards]'."
    )
