"""A search for λ from the command line, on tiny models: what it finds, keeps, repeats, refuses and leaves behind."""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import composed, forked, rows_of, settings, small, the_one
from in_process import run, session

from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.kinds.binary import probability
from patientdx.evaluation.store import Store
from patientdx.metrics.ranking import auroc
from patientdx.metrics.selection_bias import winner
from patientdx.selection import find_weight
from patientdx.selection.pilot import Candidate, Choice, Pilot

WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]
POINTS = f"search.points={WEIGHTS}".replace(" ", "")
RACE = ("search=racing", POINTS, "search.budget=0.9", "search.resamples=200")


def result(folder: Path, name: str) -> Path:
    """The only result folder of the study `name` that a search left."""
    return the_one(folder, f"*/{name}/*/search.json").parent


def record(folder: Path, name: str) -> dict:
    """What its search.json holds."""
    return json.loads((result(folder, name) / "search.json").read_text())


def scores_of(output: Path) -> list[pa.Table]:
    """What the store holds."""
    return [pq.read_table(path) for path in (output / "scores").glob("*.parquet")]


@pytest.fixture(scope="module")
def pair(make_tiny) -> tuple[Path, Path]:
    """A base and a pivot."""
    return make_tiny(), make_tiny(noise_seed=1)


@pytest.fixture(scope="module")
def study(pair, tmp_path_factory) -> Path:
    """A sweep and every strategy; a grid after it, and two commands again, which score nothing; a killed race."""
    folder = tmp_path_factory.mktemp("searches")

    def command(name: str, output: str, *more: str) -> list[str]:
        return small(*pair, f"name={name}", f"output={output}", *more)

    alone = command("alone", "fresh", "search=grid", POINTS, "splits=[test]", "parents=false")
    racing = command("racing", "races", *RACE, "splits=[test]")
    torn = command("torn", "torn", *RACE, "splits=[test]")
    asked = [
        (["-m", *command("sweep", "outputs", "lambda=0,0.25,0.5,0.75,1")], None, 0),
        (alone, None, 0),
        (racing, None, 0),
        (command("bayes", "outputs", "search=bayes", "search.budget=4"), None, 0),
        (command("depth", "outputs", "search=depth", POINTS, "search.by=kinds", "search.budget=5"), None, 0),
        *((one, {"kind": "note_scoring", "into": str(folder / "scored")}, 0)
          for one in (command("grid", "outputs", "search=grid", POINTS), alone, racing)),
        *((torn, {"kind": "kill", "below": "torn/scores", "at": at}, -9) for at in (9, 25)),
        (torn, None, 0),
    ]  # fmt: skip
    commands, errors, codes = zip(*asked, strict=True)
    done = forked(folder, commands, first=command("first", "first", "lambda=0.5"), errors=errors)
    assert [one.returncode for one in done] == list(codes), [one.stderr for one in done]
    assert ["already finished" in one.stdout for one in done] == [False] * 6 + [True] * 2 + [False] * 3
    return folder


def test_the_grid_finds_the_best_of_a_sweep_and_after_one_works_nothing_out(study):
    assert not (study / "scored").exists()
    swept = [rows_of(path.parent) for path in (study / "outputs" / "sweep").glob("*/metrics.json")]
    of = {row["lambda"]: {} for rows in swept for row in rows if row["role"] == "merged"}
    for row in (row for rows in swept for row in rows if row["role"] == "merged"):
        of[row["lambda"]][row["split"]] = row
    best = min(of, key=lambda weight: (-of[weight]["pilot"]["auroc"], weight))
    for name in ("grid", "alone"):
        found = record(study, name)
        assert found["chosen"]["lambda"] == best
        assert {one["lambda"]: one["value"] for one in found["candidates"]} == {
            weight: rows["pilot"]["auroc"] for weight, rows in of.items()
        }
        assert found["pilot"]["value"] == of[best]["pilot"]["auroc"]
        assert found["reported"]["value"] == of[best]["test"]["auroc"]
        assert found["forwards"] == found["grid_forwards"] == 5 * found["n"]
        assert (found["looked_at"], found["outcomes"]) == (5, 5)
        assert found["bits"] == pytest.approx(np.log2(5))


def test_what_is_reported_is_the_chosen_weight_on_test_and_the_record_says_how(study):
    for name in ("grid", "racing", "bayes"):
        folder, found = result(study, name), record(study, name)
        (row,) = (row for row in rows_of(folder) if row["role"] == "merged" and row["split"] == "test")
        assert row["lambda"] == found["chosen"]["lambda"]
        assert row["auroc"] == found["reported"]["value"]
        assert (row["auroc_ci_low"], row["auroc_ci_high"]) == (found["reported"]["low"], found["reported"]["high"])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["lambda"], config["search"]["name"]) == (found["chosen"]["lambda"], found["strategy"])
        told = json.loads((folder / "provenance.json").read_text())
        assert told["merge"]["lambda"] == found["chosen"]["lambda"]
        assert told["search"] == {key: value for key, value in found.items() if key != "candidates"}


def test_the_winner_is_corrected_over_all_candidates(study, pair):
    found = record(study, "grid")
    swept = [row for path in (study / "outputs" / "sweep").glob("*/metrics.json") for row in rows_of(path.parent)]
    key = {row["lambda"]: row["fingerprint"] for row in swept if (row["role"], row["split"]) == ("merged", "pilot")}
    store = Store(study / "outputs" / "scores")
    scores = [probability(store.load(key[weight], found["n"])) for weight in WEIGHTS]
    data = session().task_data(settings(*pair, study).task_config.call)
    examples = [one for one in data.examples if one.split == "pilot"]
    label, subject = [one.label for one in examples], [one.subject for one in examples]
    again = winner(auroc, scores, label, subject, resamples=100)
    assert again.pop("selected")[again["chosen"]] == again["stability"]
    assert found["corrected"] == again
    assert found["pilot"]["value"] == again["value"]


def test_racing_pays_for_fewer_rows_and_keeps_what_it_scored_beside_the_whole(study):
    found = record(study, "racing")
    assert found["forwards"] == sum(one["rows"] for one in found["candidates"]) < found["grid_forwards"]
    assert found["share"] == found["forwards"] / found["grid_forwards"]
    assert {one["rows"] for one in found["candidates"] if one["dropped"] is None} == {found["n"]}
    assert any(one["dropped"] for one in found["candidates"])
    of_pilot = [table.column(0).to_numpy() for table in scores_of(study / "races") if len(table) == found["n"]]
    test = len(of_pilot) - len(WEIGHTS)  # pilot and test have the same number of rows: chosen, base and pivot on test
    scored = sum(int((~np.isnan(one)).sum()) for one in of_pilot)
    assert scored == found["forwards"] + test * found["n"]


def test_depth_is_compared_with_the_single_weight_on_test(study):
    found = record(study, "depth")
    assert found["looked_at"] == 5 + 5
    assert found["outcomes"] == 5 + 21**3
    single = found["single"]
    assert single["lambda"] == record(study, "grid")["chosen"]["lambda"]
    difference = single["difference"]
    assert difference["value"] == pytest.approx(found["reported"]["value"] - single["reported"]["value"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert 0 < difference["p_value"] <= 1


def test_a_race_killed_again_and_again_ends_as_if_it_had_not_been(study):
    assert record(study, "torn") == record(study, "racing")
    assert rows_of(result(study, "torn")) == rows_of(result(study, "racing"))
    held, whole = (
        sorted(int((~np.isnan(table.column(0).to_numpy())).sum()) for table in scores_of(study / name))
        for name in ("torn", "races")
    )
    assert held == whole


def test_a_recipe_that_gives_the_weight_is_refused(tmp_path):
    path = tmp_path / "recipe.yml"
    models = [{"model": name} for name in ("base", "pivot")]
    recipe = {
        "merge_method": "slerp",
        "models": models,
        "base_model": "base",
        "parameters": {"t": 0.3},
        "dtype": "float32",
    }
    path.write_text(yaml.safe_dump(recipe))
    words = ["search=grid", f"mergekit_config={path}"]
    with pytest.raises(UserError) as refused:
        parse(composed(*words), overrides=words)
    assert "search=grid finds λ, and a mergekit recipe gives it" in str(refused.value)


def test_a_pilot_of_one_class_is_refused_before_scoring(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("patientdx.lm.binary.score", None)
    few = ["search=grid", "task.synthetic.stays=12", "task.fractions={train: 0.1, pilot: 0.1, test: 0.8}"]
    with pytest.raises(UserError, match="pilot"):
        run(settings(*pair, tmp_path / "outputs", *few, "splits=[test]"))
    assert not list(tmp_path.glob("outputs/scores/*.parquet"))


@pytest.fixture
def follower(monkeypatch):
    """Runs a step as the first process would, while another follows; gives what each had, or how it ended."""
    box: queue.Queue = queue.Queue()
    leader = threading.get_ident()

    def broadcast(value):
        if threading.get_ident() == leader:
            box.put(value)
            return value
        return box.get(timeout=20)

    monkeypatch.setattr(find_weight.distributed, "broadcast", broadcast)

    def both(lead, answers):
        with ThreadPoolExecutor(1) as other:
            follows = other.submit(find_weight._follow, answers)
            ends = []
            for one in (lead, follows.result):
                try:
                    ends.append(one())
                except Exception as error:
                    ends.append(error)
        return ends

    return both


def led(pilot, points) -> Choice:
    """The grid's choice as the first process makes it."""
    call = Call("patientdx.selection.grid.grid", json.dumps({"points": points}))
    return find_weight._lead(SimpleNamespace(search_config=SimpleNamespace(call=call, seeded=False), seed=0), pilot)


def asking(answers) -> Pilot:
    """A pilot whose questions every process hears."""

    def score(candidate, rows):
        find_weight.distributed.broadcast(("score", candidate, rows))
        return answers(candidate, rows)

    return Pilot([0, 1, 0, 1], [0, 1, 2, 3], auroc, score)


def test_every_process_answers_what_the_first_asks_and_hears_its_choice(follower):
    heard = []

    def answers(candidate, rows):
        heard.append((candidate.weight, rows.size))
        return np.array([0.1, candidate.weight, 0.3, 0.5])[rows]

    first, second = follower(lambda: led(asking(answers), [0.0, 1.0]), answers)
    assert first == second
    assert first.chosen == Candidate(1.0)
    assert sorted(heard) == [(0.0, 4), (0.0, 4), (1.0, 4), (1.0, 4)]


def test_a_search_that_fails_in_the_first_process_ends_in_all(follower):
    def answers(candidate, rows):
        raise UserError("no model today")

    first, second = follower(lambda: led(asking(answers), [0.0, 1.0]), answers)
    assert str(first) == str(second) == "no model today"

    def broken(candidate, rows):
        raise KeyError("odd")

    first, second = follower(lambda: led(asking(broken), [0.0, 1.0]), lambda candidate, rows: rows)
    assert isinstance(first, KeyError)
    assert isinstance(second, UserError)
