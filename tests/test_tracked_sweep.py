"""A small sweep as a user starts it: what its tracked runs hold is what is on disk, and what dashboards ask for."""

import csv
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, forked, rows_of, small
from tracked_runs import final_state, log_records, run_id_of
from wandb_server import wandb_server

from experiments import dashboard
from patientdx.cli.report import main as report_command
from patientdx.evaluation.results import NAMES
from patientdx.tracking import wandb_run

COLUMNS = {title for axes in wandb_run.AXES.values() for title in axes}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, tiny_base, tiny_pivot) -> tuple[Path, list[subprocess.CompletedProcess]]:
    """Where the runs were started, and how they ended: two methods with all that a run records; one for trackio whose λ
    is a schedule; and one that is to be online, with a closed port in W&B's place.
    """
    folder = tmp_path_factory.mktemp("tracked")
    given = [one for one in small(tiny_base, tiny_pivot) if "tracking" not in one and "clinical" not in one]
    plain = [one for one in small(tiny_base, tiny_pivot) if "tracking" not in one]
    commands = [
        ["-m", *given, "name=sweep", "clinical=true", "merge=slerp,linear", "lambda=0.2"],
        [*plain, "name=local", "tracking=trackio", "lambda=[0.2,0.8]"],
        [*plain, "name=outage", "tracking=wandb", "lambda=0.2"],
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        patched.setenv("WANDB_API_KEY", "a" * 40)
        return folder, forked(folder, commands, pictures=True)


@pytest.fixture(scope="module")
def place(ended) -> Path:
    folder, done = ended
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    return folder


@pytest.fixture(scope="module")
def runs(place) -> list[tuple[Path, dict, dict]]:
    """Of each run of the sweep: its result folder, its end state and the records of its log."""
    folders = sorted((place / "outputs/sweep").glob("mortality_*"))
    found = [
        (folder, final_state(folder, run_id_of(folder)), log_records(folder, run_id_of(folder))) for folder in folders
    ]
    assert len(found) == 2
    return found


def numbers(row: dict) -> dict:
    """What of a row of metrics.json is measured."""
    return {key: value for key, value in row.items() if key not in NAMES and value is not None}


def test_every_number_is_the_one_on_disk_to_the_last_digit(runs):
    for folder, state, logged in runs:
        expected = {}
        for row in rows_of(folder):
            stem = "mortality" if row["split"] == "test" else f"mortality_{row['split']}"
            few = {f"{metric}_few_events": row["events"] for metric in ("auroc", "auprc")}
            if row["role"] == "merged":
                expected |= {f"{stem}/{key}": value for key, value in (numbers(row) | few).items()}
            else:
                metrics = {key: value for key, value in row.items() if re.fullmatch(r"(auroc|auprc)(_ci_\w+)?", key)}
                expected |= {f"{stem}/{row['role']}/{key}": value for key, value in (metrics | few).items()}
        (merged,) = {row["lambda"] for row in rows_of(folder) if row["role"] == "merged"}
        expected["lambda"] = merged
        told = json.loads((folder / "clinical.json").read_text())["models"]["merged"]["calibration"]["raw"]
        for name in ("brier", "ece", "intercept", "slope", "observed_minus_expected"):
            ends = zip(("", "_ci_low", "_ci_high"), ("value", "low", "high"), strict=True)
            expected |= {f"mortality/calibration/{name}{end}": told[name][key] for end, key in ends}
        pairs = json.loads((folder / "clinical.json").read_text())["comparisons"]
        for pair in (pair for pair in pairs if pair["b"] in ("base", "pivot")):
            for measure in pair.keys() - {"a", "b", "delong"}:
                ends = zip(("", "_ci_low", "_ci_high"), ("value", "low", "high"), strict=True)
                stem = f"mortality/minus_{pair['b']}/{measure}"
                expected |= {f"{stem}{end}": pair[measure][key] for end, key in ends if pair[measure][key] is not None}
        assert {f"mortality/minus_{role}/auroc_ci_low" for role in ("base", "pivot")} < expected.keys()
        assert len(expected) > 60
        found = {key: value for key, value in state["summary"].items() if not isinstance(value, dict)}
        found = {key: value for key, value in found.items() if not key.startswith("_")}
        assert found == expected
        (row,) = logged["history"]
        assert {key: row["item"][key] for key in expected} == expected


def test_method_and_lambda_can_be_grouped_and_drawn_by(runs):
    found = {(state["config"]["method"], state["config"]["lambda"]) for _, state, _ in runs}
    assert found == {("slerp", 0.2), ("linear", 0.2)}


def asked_for(content: dict) -> dict[str, set[str]]:
    """The keys of every panel and column of a dashboard, by where a run must have them."""
    found: dict[str, set[str]] = {"history": set(), "summary": set(), "config": set(), "table": set(), "column": set()}

    def walk(node):
        if isinstance(node, list):
            for one in node:
                walk(one)
        if not isinstance(node, dict):
            return
        kind, config = node.get("viewType"), node.get("config")
        if kind == "Run History Line Plot":
            found["history"] |= {config["xAxis"], *config["metrics"]}
            found["config"].add(config["groupBy"])
        elif kind == "Bar Chart":
            found["summary"] |= set(config["metrics"])
        elif kind == "Scatter Plot":
            found["column"] |= {config["xAxis"], config["yAxis"]}
        elif kind == "Vega2":
            found["table"] |= set(re.findall(r'"tableKey", "value": "([^"]+)"', json.dumps(config)))
            found["table columns"] = found.get("table columns", set()) | set(config["fieldSettings"].values())
        elif kind is not None:
            assert kind == "Run Comparer", kind
        for order in node.get("sort", {}).get("keys", []) if isinstance(node.get("sort"), dict) else []:
            found["column"].add(f"{order['key']['section']}:{order['key']['name']}")
        found["column"] |= set(node.get("columnPinned", ()))
        for below in node.values():
            walk(below)

    walk(content)
    return found


def in_config(config: dict, path: str) -> bool:
    """Whether the config has what W&B names `a.value.b`."""
    first, value, *rest = path.split(".")
    assert value == "value"
    for part in (first, *rest):
        if part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize("what", ["workspace", "report"])
def test_every_panel_of_a_dashboard_draws_a_key_that_a_run_logs(runs, what):
    shown = dashboard.Shown("sweep", ("mortality",))
    asked = asked_for(dashboard.content(*dashboard.built("me", "study", shown))[what])
    assert len(asked["history"]) >= 17
    assert len(asked["table"]) == 4
    for _, state, logged in runs:
        (row,) = logged["history"]
        tables = {key for key in state["summary"] if key.endswith("_table")}
        assert asked["history"] - row["item"].keys() == set()
        assert asked["summary"] - state["summary"].keys() == set()
        assert asked["table"] - tables == set()
        assert asked["table columns"] <= COLUMNS
        assert [path for path in asked["config"] if not in_config(state["config"], path)] == []
        for column in asked["column"] - {"run:displayName"}:
            section, name = column.split(":", 1)
            there = in_config(state["config"], name) if section == "config" else name in state["summary"]
            assert there, column


def test_a_missing_key_would_be_seen(runs):
    """The test above, on a dashboard that asks for what no run logs."""
    _, state, _ = runs[0]
    assert not in_config(state["config"], "merge.value.lambda")
    assert in_config(state["config"], "base.value")
    content = {"viewType": "Bar Chart", "config": {"metrics": ["mortality/accuracy"]}}
    assert asked_for({"panels": [content]})["summary"] - state["summary"].keys() == {"mortality/accuracy"}


def test_all_runs_of_a_folder_that_was_moved_are_sent_by_one_command(runs, place, tmp_path):
    """To a server that stands in for W&B's: files, numbers, predictions arrive, and nothing of this machine."""
    moved = shutil.copytree(place / "outputs", tmp_path / "elsewhere")
    shutil.rmtree(moved / "outage")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with wandb_server() as (url, sent):
        ours = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "a" * 40, "PATH": path, "HOME": str(tmp_path / "home")}
        done = subprocess.run(
            ["sh", "-c", wandb_run.SYNC],
            cwd=moved,
            env=os.environ | ours | {"WANDB_ERROR_REPORTING": "false", "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert len(list(moved.glob("*/*/wandb/*/*.wandb.synced"))) == 2
    expected = sorted((folder / "predictions.parquet").read_bytes() for folder, _, _ in runs)
    assert sorted(sent.files["artifact/predictions.parquet"]) == expected
    arrived = [json.loads(one) for one in sent.files["run/wandb-summary.json"]]
    for _, state, _ in runs:
        told = {key: value for key, value in state["summary"].items() if key.startswith("mortality/")}
        assert told in [{key: one.get(key) for key in told} for one in arrived]
    assert {one["project"] for one in sent.variables("UpsertBucket")} == {"patientdx"}
    assert {one["program"] for one in sent.variables("UpsertBucket")} == {"run.py", None}
    assert {one["host"] for one in sent.variables("UpsertBucket")} <= {"-", None}
    names = [str(place), str(tmp_path), str(ROOT), "elsewhere"]
    assert [name for name in names if name.encode() in sent.everything] == []
    for name in {socket.gethostname(), Path.home().name} - {""}:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)".encode(), sent.everything)


def test_trackio_holds_the_same_numbers(place):
    with sqlite3.connect(place / "outputs/trackio/patientdx.db") as database:
        ((content,),) = database.execute("select metrics from metrics")
        ((told,),) = database.execute("select config from configs")
    database.close()
    (folder,) = (place / "outputs/local").glob("mortality_*")
    logged, config = json.loads(content), json.loads(told)
    (row,) = [one for one in rows_of(folder) if (one["role"], one["split"]) == ("merged", "test")]
    assert {key: logged[f"mortality/{key}"] for key in numbers(row)} == numbers(row)
    assert (config["method"], config["lambda"]) == ("slerp", [0.2, 0.8])
    assert "lambda" not in logged  # several λ are no place on an axis
    assert not (folder / "wandb").exists()


def test_an_outage_costs_one_warning_and_no_result(place, ended):
    done = ended[1][-1]
    assert (done.stdout + done.stderr).count("W&B online failed (") == 1
    assert (done.stdout + done.stderr).count("recorded offline, send them with") == 1
    (there,) = (place / "outputs/outage").glob("mortality_*")
    (other,) = (place / "outputs/sweep").glob("mortality_slerp_*")
    assert rows_of(there) == rows_of(other)
    assert final_state(there, run_id_of(there))["summary"]["lambda"] == 0.2


def test_page_latex_csv_and_tracker_agree_to_the_last_digit(place, capsys):
    """From the command line to paper: they all say what metrics.json says."""
    study = place / "outputs" / "sweep"
    page = (study / "report.html").read_text(encoding="utf-8")
    assert report_command([str(study), "--format", "latex"]) == 0
    latex = capsys.readouterr().out
    with (study / "sweep.csv").open(newline="") as file:
        table = {line["fingerprint"]: line for line in csv.DictReader(file)}
    folders = [path.parent for path in study.glob("*/metrics.json")]
    assert len(folders) == 2
    for folder in folders:
        tracked = final_state(folder, run_id_of(folder))["summary"]
        for row in rows_of(folder):
            stem = "mortality" if row["split"] == "test" else f"mortality_{row['split']}"
            for metric in ("auroc", "auprc"):
                value, low, high = (row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high"))
                assert float(table[row["fingerprint"]][metric]) == value
                assert f'data-value="{value}" data-low="{low}" data-high="{high}"' in page
                assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in latex
                if row["role"] == "merged":
                    seen = [tracked[f"{stem}/{metric}{end}"] for end in ("", "_ci_low", "_ci_high")]
                    assert seen == [value, low, high]


def test_the_page_holds_the_command_that_made_it_and_no_place_of_this_machine(place, tiny_base):
    page = (place / "outputs" / "sweep" / "report.html").read_text(encoding="utf-8")
    (command,) = re.findall(r"<code>(patientdx run .*?)</code>", page, re.DOTALL)
    assert command.startswith("patientdx run -m base_model.source=PATH pivot_model.source=PATH")
    for part in ("merge=slerp,linear", "lambda=0.2", "name=sweep", "&#39;splits=[pilot,test]&#39;"):
        assert part in command
    assert str(tiny_base) not in page
    assert str(place) not in page
