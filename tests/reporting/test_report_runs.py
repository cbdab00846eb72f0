import json
from pathlib import Path

import pytest
import yaml
from made_studies import rows_in, write_made_run, write_sweep
from result_folders import reseal

from patientdx.core.errors import UserError
from patientdx.core.tables import model_name
from patientdx.evaluation.store import write_sealed_json
from patientdx.reporting.groups import groups
from patientdx.reporting.provenance import command
from patientdx.reporting.runs import Run, Study, read, without_paths


def test_the_last_sweep_is_read_and_the_rest_counted(tmp_path):
    first, second, third = (write_made_run(tmp_path / f"r{place}", "slerp", place, 1) for place in (0.2, 0.4, 0.6))
    write_sweep(tmp_path, [second, third])
    write_sealed_json({"refused": "λ=7 is too much"}, tmp_path / "sweep" / "2.json")
    write_sealed_json({"folder": "gone"}, tmp_path / "sweep" / "3.json")
    (tmp_path / "sweep" / "jobs.txt").write_text("5\n")
    study = read(tmp_path)
    assert [run.folder for run in study.runs] == [second, third]
    assert study.unfinished == (
        (2, "λ=7 is too much"),
        (3, "its results are gone"),
        (4, "its process died without a message"),
    )
    assert study.earlier == 1
    assert first.exists()


def test_without_a_sweep_every_finished_run_is_read_and_one_alone_too(tmp_path):
    folders = [write_made_run(tmp_path / f"r{place}", "slerp", place, 1) for place in (0.2, 0.4)]
    (tmp_path / "unfinished").mkdir()
    assert [run.folder for run in read(tmp_path).runs] == folders
    assert [run.folder for run in read(folders[0]).runs] == folders[:1]
    assert read(folders[0]).name == "r0.2"


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no finished run: a report needs metrics\.json in it \(one run\)"):
        read(tmp_path)


def test_parents_are_there_once_and_rows_keep_every_digit(tmp_path):
    folders = [write_made_run(tmp_path / f"r{place}", "slerp", place, 1) for place in (0.4, 0.2)]
    rows = read(tmp_path).rows
    assert [(row["split"], model_name(row)) for row in rows] == [
        (split, name) for split in ("pilot", "test") for name in ("base", "slerp λ=0.2", "slerp λ=0.4", "pivot")
    ]
    kept = {row["fingerprint"]: row["auroc"] for folder in folders for row in rows_in(folder)}
    assert {row["fingerprint"]: row["auroc"] for row in rows} == kept


def test_numbers_of_a_method_that_differ_are_part_of_its_name_and_other_settings_part_groups(tmp_path):
    write_made_run(tmp_path / "a", "ties", 0.2, 1, arguments={"density": 0.2})
    write_made_run(tmp_path / "b", "ties", 0.2, 1.1, arguments={"density": 0.5})
    write_made_run(tmp_path / "c", "slerp", 0.2, 1.2, task={"template": "paper"})
    found = groups(read(tmp_path))
    assert [group.title for group in found] == [
        "mortality, small + small_numeric, task.template=None",
        "mortality, small + small_numeric, task.template=paper",
    ]
    assert [model_name(row) for row in found[0].merged("test")] == ["ties λ=0.2 density=0.2", "ties λ=0.2 density=0.5"]
    assert [model_name(row) for row in found[1].merged("test")] == ["slerp λ=0.2"]
    assert [one.name for one in found[0].models] == ["ties λ=0.2 density=0.5"]


def test_models_of_one_name_in_several_folders_are_told_apart_without_a_path(tmp_path):
    places = ("/models/one/instruct", "/models/two/instruct", "/models/medical")
    for i, place in enumerate(places):
        folder = write_made_run(tmp_path / f"r{i}", "slerp", 0.2, 1)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"base_model": {"source": place}}))
        reseal(folder)
    titles = [group.title.rpartition(", ")[2] for group in groups(read(tmp_path))]
    assert titles == [f"base_model.source={said}" for said in ("instruct (1)", "instruct (2)", "medical")]


def test_a_model_is_chosen_on_pilot_and_corrected_for_it(made_study):
    (group,) = groups(read(made_study))
    slerp = next(one for one in group.models if one.row["method"] == "slerp")
    assert (slerp.name, slerp.why, slerp.is_chosen) == ("slerp λ=0.6", "best of 2 on pilot", True)
    assert slerp.row["split"] == "test"
    assert slerp.corrected["value"] == slerp.pilot["auroc"]
    assert slerp.corrected["selected"][1] > 0.9
    assert group.reported == "test"


def test_without_pilot_nothing_is_chosen(tmp_path):
    for place in (0.2, 0.4):
        write_made_run(tmp_path / f"r{place}", "slerp", place, 1, splits=("test",))
    write_made_run(tmp_path / "r", "linear", 0.2, 1, splits=("test",))
    (group,) = groups(read(tmp_path))
    assert [(one.name, one.why) for one in group.models] == [
        ("linear λ=0.2", "the only one of its method"),
        ("slerp λ=0.2", "not chosen on pilot"),
        ("slerp λ=0.4", "not chosen on pilot"),
    ]


def commanded(*jobs, **files) -> list[str]:
    return command(Study(Path("name"), tuple(Run(None, tuple(job)) for job in jobs)))


@pytest.mark.parametrize(
    ("jobs", "lines"),
    [
        ([["merge=slerp", "lambda=0.2"]], ["patientdx run merge=slerp lambda=0.2"]),
        (
            [[f"merge={m}", f"lambda={w}"] for m in ("slerp", "linear") for w in (0.1, 0.2)],
            ["patientdx run -m merge=slerp,linear lambda=0.1,0.2"],
        ),
        (
            [["merge=slerp", "lambda=0.1"], ["merge=linear", "lambda=0.2"]],  # not every combination: two lines
            ["patientdx run merge=slerp lambda=0.1", "patientdx run merge=linear lambda=0.2"],
        ),
        (
            [["lambda=[0.1,0.2]", "splits=[test]"], ["lambda=[0.3,0.4]", "splits=[test]"]],  # commas of their own
            ["patientdx run 'lambda=[0.1,0.2]' 'splits=[test]'", "patientdx run 'lambda=[0.3,0.4]' 'splits=[test]'"],
        ),
        (
            [["output=/home/me/o", "task.mimic_root=/data/mimic", "base_model.source='~/m'", "cache=x", "name=a"]],
            ["patientdx run task.mimic_root=PATH base_model.source=PATH name=a"],
        ),
        (
            [
                [
                    "--config-dir=/home/me/conf",
                    "hydra.searchpath=[file:///home/me/b,pkg://lab.conf]",
                    "task=mine",
                    "task.path='/data/my notes, new/x'",
                    "data=notes.csv",
                    "task.mimic_root=['/a b/c',/d]",
                ]
            ],
            [
                "patientdx run --config-dir=PATH 'hydra.searchpath=[file://PATH,pkg://lab.conf]' task=mine "
                "task.path=PATH data=PATH 'task.mimic_root=[PATH,PATH]'"
            ],
        ),
        ([["+experiment=lambda_curve"]], ["patientdx run +experiment=lambda_curve"]),
    ],
)
def test_the_command_names_exactly_these_runs_and_no_path(jobs, lines, monkeypatch):
    monkeypatch.setattr(Run, "result", lambda self, name: None)
    assert commanded(*jobs) == lines


def test_the_command_of_a_single_run_is_read_from_its_folder_and_never_made_up(tmp_path):
    folder = write_made_run(tmp_path / "r", "slerp", 0.2, 1)
    assert command(read(folder)) == []
    (folder / "command.json").write_text(json.dumps({"overrides": ["merge=slerp", "lambda=0.2"]}))
    reseal(folder)
    assert command(read(folder)) == ["patientdx run merge=slerp lambda=0.2"]


def test_what_was_trained_is_called_by_its_method_and_a_tabular_model_once():
    assert model_name({"role": "finetuned", "method": "lora(base)"}) == "finetuned lora(base)"
    assert model_name({"role": "tabular_gbm", "method": "tabular_gbm"}) == "tabular_gbm"
    assert model_name({"role": "base", "method": None}) == "base"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("['/data/mimic', '~/more']", "['PATH', 'PATH']"),
        ("owner/name of the hub and 3/4 stay", "owner/name of the hub and 3/4 stay"),
        ("no file ../a/b.csv, or ./c: stop", "no file PATH, or PATH: stop"),
        ("https://example.org/a stays", "https://example.org/a stays"),
    ],
)
def test_a_place_on_a_machine_is_not_shown(text, said):
    assert without_paths(text) == said
