"""The story of a run, in this process: what is made once, what is worked out again, and what a fingerprint covers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import rows_of
from in_process import plan, run, session

from patientdx.core.errors import UserError
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.language_systems import Merge
from patientdx.evaluation.seal import read_sealed

pytestmark = pytest.mark.usefixtures("fresh_session")


def scores(tmp_path: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "outputs/scores").glob("*.parquet")}


def by_role(rows: list[dict], metric: str = "auroc") -> dict[tuple[str, str], float]:
    return {(row["role"], row["split"]): row[metric] for row in rows}


def test_later_points_load_nothing_and_parents_are_scored_once(make, counted):
    run(make("lambda=0.1"))
    first = counted.copy()
    assert first["load_model"] == first["load_tokenizer"] == first["tokenise"] == 1
    assert first["content_hash"] == 2
    assert (first["score"], first["write"]) == (6, 3)  # three models on two splits
    for weight in (0.2, 0.4):
        run(make(f"lambda={weight}"))
    assert counted["score"] == 10
    assert counted["write"] == 5
    for loaded in ("load_model", "load_tokenizer", "tokenise", "content_hash", "locate"):
        assert counted[loaded] == first[loaded]


def test_the_ends_are_the_parents_and_are_not_scored_again(make, counted, tmp_path):
    parents = run(make("merge=slerp", "lambda=0.4"))
    told, kept = by_role(parents.rows, "fingerprint"), scores(tmp_path)
    for method in ("slerp", "linear"):
        for weight, parent in ((0, "base"), (1, "pivot")):
            outcome = run(make(f"merge={method}", f"lambda={weight}"))
            for split in ("pilot", "test"):
                assert by_role(outcome.rows, "fingerprint")["merged", split] == told[parent, split]
                for metric in ("auroc", "auroc_ci_low", "auprc", "abstention_mass", "distinct_scores"):
                    assert (
                        by_role(outcome.rows, metric)["merged", split] == by_role(parents.rows, metric)[parent, split]
                    )
    assert counted["score"] == 6
    assert scores(tmp_path) == kept
    assert len(list((tmp_path / "outputs/default").glob("mortality_*"))) == 5  # each has its own result all the same


def test_an_end_scored_as_a_merge_is_the_parent(make, counted, tmp_path):
    """Without the short cut: the model at λ=1 of SLERP's own curve gives the pivot's scores bit for bit."""
    asked = make("merge=slerp", "lambda=1")
    planned = plan(asked)
    context, parent = planned.context, next(system for system in planned.systems if system.role == "pivot")
    merge = Merge("merged", "slerp", 1.0, {"merge": "not the parent"}, asked.merge_config.spec)
    first, second = (
        system.respond(session(), asked, context, "test", system.role, Timer()) for system in (merge, parent)
    )
    assert np.array_equal(first, second)
    assert counted["write"] == 2  # two passes over the weights: neither was taken for the other


def test_a_parent_that_is_the_base_of_none(make, counted):
    rows = by_role(run(make("merge=none")).rows)
    assert rows["merged", "test"] == rows["base", "test"]


def test_a_damaged_score_file_counts_as_absent(make, counted, tmp_path):
    before = run(make())
    kept = sorted((tmp_path / "outputs/scores").glob("*.parquet"))
    whole = kept[0].read_bytes()
    kept[0].write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(before.folder)
    again = run(make())
    assert (counted["score"], again.reused) == (7, False)
    assert again.rows == before.rows
    assert kept[0].read_bytes() == whole


@pytest.mark.parametrize("harm", ["{", "[]", '{"fingerprint": "of another run", "rows": []}'])
def test_a_folder_with_another_fingerprint_is_not_reused(make, harm):
    first = run(make("parents=false"))
    rows = rows_of(first.folder)
    (first.folder / "metrics.json").write_text(harm)
    again = run(make("parents=false"))
    assert again.folder == first.folder
    assert not again.reused
    assert rows_of(again.folder) == rows


def test_a_finished_run_is_found(make, counted):
    first = run(make("parents=false"))
    again = run(make("parents=false", "name=default", "tracking.project=other"))
    assert again.reused
    assert (again.rows, again.folder) == (first.rows, first.folder)
    assert counted["score"] == 2


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["metrics.json", "provenance.json", "predictions.parquet", "config.yaml"])
@pytest.mark.parametrize("harm", [Path.unlink, _flip])
def test_a_folder_that_was_changed_is_not_shown_as_finished(make, name, harm):
    first = run(make("parents=false"))
    before = read_sealed(first.folder)
    harm(first.folder / name)
    with pytest.raises(UserError, match=f"is not as its run left it: .*{name}"):
        read_sealed(first.folder)
    again = run(make("parents=false"))
    assert not again.reused
    assert read_sealed(again.folder)["rows"] == before["rows"]


def test_studies_share_scores_but_not_folders(make, counted):
    first, other = run(make("parents=false")), run(make("parents=false", "name=other"))
    assert counted["score"] == 2
    assert not other.reused
    assert (other.folder.name, other.rows) == (first.folder.name, first.rows)
    assert other.folder.parent.name == "other"


CHANGES = {
    "dtype": ["dtype=bfloat16"],
    "template": ["task.template=paper"],
    "question": ["task.question='Does this patient die?'"],
    "seed": ["seed=1"],
    "records cut": ["scoring.max_tokens=300"],
    "batches": ["scoring.batch_tokens=4096"],
    "limit": ["task.limit=20"],
    "hospital": ["task.synthetic.seed=3"],
    "λ": ["lambda=0.5"],
    "method": ["merge=linear", "lambda=0.4"],
    "method's number": ["merge.collinear=0.9"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_an_answer_changes_its_fingerprint(make, change):
    before, after = plan(make("lambda=0.4")), plan(make("lambda=0.4", *CHANGES[change]))
    assert after.key != before.key
    for split in ("pilot", "test"):
        assert after.keys["merged", split] != before.keys["merged", split]
    same_parents = change in ("λ", "method", "method's number")
    assert (after.keys["base", "test"] == before.keys["base", "test"]) is same_parents


@pytest.mark.parametrize(
    "words", [["bootstrap.resamples=200"], ["bootstrap.level=0.9"], ["parents=false"], ["pivot_model.name=other"]]
)
def test_what_changes_only_the_report_changes_the_run_but_no_answer(make, words):
    before, after = plan(make()), plan(make(*words))
    assert after.key != before.key
    assert after.keys.items() <= before.keys.items()


@pytest.mark.parametrize(
    "words",
    [
        ["name=other"],
        ["output=elsewhere"],
        ["tracking=wandb_offline"],
        ["task.memory_limit=1GB"],
        ["task.threads=2"],
    ],
)
def test_what_is_beside_the_point_changes_no_fingerprint(make, words):
    assert plan(make()).key == plan(make(*words)).key


@pytest.mark.parametrize("place", ["base", "pivot"])
def test_other_weights_change_every_fingerprint_of_theirs(make, make_tiny, place):
    before, after = plan(make()), plan(make(**{place: make_tiny(noise_seed=5)}))
    changed = {role for role, split in before.keys if before.keys[role, split] != after.keys[role, split]}
    # The base lends its architecture and tokenizer, so with another base all answers are others.
    assert changed == ({"merged", "base", "pivot"} if place == "base" else {"merged", "pivot"})
    assert after.key != before.key


def test_scores_that_are_no_numbers_are_refused_and_not_kept(make, monkeypatch, tmp_path):
    def broken(model, prompts, rows, **rest):
        values = np.zeros((len(rows), 2))
        values[3, 1] = np.nan
        return list(range(len(rows))), values

    monkeypatch.setattr("patientdx.lm.binary.score", broken)
    with pytest.raises(UserError) as refused:
        run(make("dtype=float16"))
    assert str(refused.value) == (
        "the merged model gives 1 of 17 prompts a score that is not a number in dtype=float16. Use dtype=float32; if "
        "that does not help, a parent's weights are damaged."
    )
    assert scores(tmp_path) == {}


def test_a_full_disk_ends_in_a_refusal(make, monkeypatch, tmp_path):
    import errno
    import os

    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\. Free space or set output="):
        run(make("parents=false"))
    assert list((tmp_path / "outputs/scores").iterdir()) == []


def test_runs_after_one_another_do_not_share_an_answer(make, make_tiny, tmp_path):
    """The live model is refilled for other parents, another dtype and another method."""
    rows = {}
    for name, words, parents in (
        ("slerp", ["merge=slerp", "lambda=0.4"], {}),
        ("linear", ["merge=linear", "lambda=0.4"], {}),
        ("bfloat16", ["merge=slerp", "lambda=0.4", "dtype=bfloat16"], {}),
        ("pivot", ["merge=slerp", "lambda=0.4"], {"pivot": make_tiny(noise_seed=5)}),
    ):
        rows[name] = by_role(run(make(*words, "parents=false", **parents)).rows, "abstention_mass")["merged", "test"]
    assert len(set(rows.values())) == 4
    shutil.rmtree(tmp_path / "outputs")
    again = run(make("merge=slerp", "lambda=0.4", "parents=false"))
    assert by_role(again.rows, "abstention_mass")["merged", "test"] == rows["slerp"]
