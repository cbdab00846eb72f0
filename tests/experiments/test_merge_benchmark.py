"""The merge benchmark without mergekit: parents, formulas, counting, watching a child, floor, memory, tables."""

import json
import math
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from experiments.benchmarks import harness, merge, merge_children
from experiments.benchmarks.harness import spread
from experiments.benchmarks.merge_parents import FILE, SIZES, Size, make_parents
from experiments.benchmarks.merge_rounding import Count, Exact, misrounded
from experiments.benchmarks.merge_rounding import breadcrumbs as exact_breadcrumbs
from experiments.benchmarks.merge_rounding import ties as exact_ties
from experiments.benchmarks.merge_table import memory_table, quality_table, ratios, speed_table
from experiments.benchmarks.merge_tasks import TASKS, slerp
from experiments.benchmarks.watch import watch
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import REPOSITORY
from patientdx.checkpoints.writer import write_safetensors
from patientdx.cli.mergekit.recipe import read_recipe
from patientdx.core.errors import UserError
from patientdx.merge.curve import evaluate

TINY = Size(hidden=64, layers=2, feed_forward=96, heads=1, groups=1, vocabulary=50)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_parents(TINY, tmp_path_factory.mktemp("parents"))


def merged(task, pair, ancestor):
    """The task's tensor by patientdx.merge, with the numbers that the command line gives."""
    overrides = dict(override.split("=", 1) for override in task.ours)
    numbers = {key.removeprefix("merge."): yaml.safe_load(value) for key, value in overrides.items() if key != "lambda"}
    if "ancestor" in task.inputs:
        numbers["ancestor"] = ancestor
    if task.method in ("ties", "breadcrumbs"):
        numbers["name"] = "x"
    method = getattr(import_module(f"patientdx.merge.{task.method}"), task.method)
    return evaluate(method(pair, **numbers), float(overrides["lambda"]), torch.empty_like(pair[0]))


def test_parents_are_two_models_at_an_angle_from_one_start(folders, tmp_path):
    opened = {model: Checkpoint(folder) for model, folder in folders.items()}
    assert set(opened["base"].tensors) == set(TINY.shapes)
    for name, shape in TINY.shapes.items():
        a, b = (opened[model].read(name) for model in ("base", "pivot"))
        assert a.shape == shape
        assert a.dtype == torch.bfloat16
        assert not torch.equal(a, b)
        cosine = torch.cosine_similarity(a.double().flatten(), b.double().flatten(), 0).item()
        assert cosine > 0.9995 if name.endswith("norm.weight") else cosine == pytest.approx(1 / 1.1225, abs=0.03)
    again = make_parents(TINY, tmp_path)
    assert all((again[model] / FILE).read_bytes() == (folder / FILE).read_bytes() for model, folder in folders.items())


def test_parents_that_are_there_are_not_made_again(folders):
    before = {model: (folder / FILE).stat().st_mtime_ns for model, folder in folders.items()}
    made = []
    assert make_parents(TINY, next(iter(folders.values())).parent, made.append) == folders
    assert made == []
    assert {model: (folder / FILE).stat().st_mtime_ns for model, folder in folders.items()} == before


@pytest.mark.parametrize(
    ("size", "parameters"), [("135M", 134_515_008), ("1.24B", 1_235_814_400), ("8.03B", 8_030_261_248)]
)
def test_sizes_have_the_parameters_of_the_models_they_stand_for(size, parameters):
    assert SIZES[size].parameters == parameters
    assert set(SIZES[size].samples) <= set(SIZES[size].shapes)


def test_misrounded_elements_and_their_distance_by_hand():
    value = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0, 1.0 + 2**-8, 1.0 + 2**-8, 3.0], dtype=torch.float64)
    step = 2**-7  # of bfloat16 above 1
    # right; next; three away; next below zero's side; -0; both neighbours of a middle; not counted
    result = torch.tensor([1.0, 1 + step, 1 + 3 * step, -1 - step, -0.0, 1.0, 1 + step, 9.0]).bfloat16()
    sure = torch.tensor([True] * 7 + [False])
    assert misrounded(result, Exact(value, sure)) == Count(elements=7, wrong=3, steps=3, open=1)
    assert Count(7, 3, 3, 1) + Count(3, 1, 9, 0) == Count(10, 4, 9, 1)
    both = torch.ones(2, dtype=torch.bool)
    around_zero = torch.tensor([-1e-45, 1e-45])  # neighbours of 0 on either side
    assert misrounded(around_zero, Exact(around_zero.abs().double(), both)) == Count(2, 1, 2, 0)
    for left, wrong in ((1e-15, 0), (1e-12, 1)):  # what is left where terms of this size cancel
        exact = Exact(torch.tensor([left, 1.0], dtype=torch.float64), both)
        assert misrounded(torch.tensor([0.0, 1.0]), exact).wrong == wrong
    with pytest.raises(UserError, match=r"^a merged tensor of shape \[3\] should have \[8\]$"):
        misrounded(torch.zeros(3), Exact(value, sure))


def test_ties_and_breadcrumbs_by_hand():
    ancestor = torch.zeros(4)
    pair = [torch.tensor([4.0, -3.0, 2.0, 1.0]), torch.tensor([-8.0, -6.0, 0.5, 7.0])]
    # half of each stays: 4 -3 0 0 and -8 0 0 7; signs of the weighted sums: - - + +
    result = exact_ties(pair, ancestor, weights=(0.6, 0.4), density=0.5)
    assert result.value.tolist() == [-8.0, -3.0, 0.0, 7.0]
    assert result.sure.all()
    # the largest is dropped, the next two stay: -3 2 and -6 7
    result = exact_breadcrumbs(pair, ancestor, weights=(0.5, 0.25), density=0.5, gamma=0.25)
    assert result.value.tolist() == [0.0, -3.0, 1.0, 1.75]
    equal = exact_ties([torch.tensor([2.0, 1.0, -1.0, 0.0])] * 2, ancestor, weights=(1.0, 1.0), density=0.5)
    assert equal.sure.tolist() == [True, False, False, True]


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.formula is not None], ids=lambda t: t.method)
def test_formulas_are_what_our_methods_give(task, folders):
    opened = {model: Checkpoint(folder) for model, folder in folders.items()}
    for name in TINY.samples:
        pair = [opened["base"].read(name), opened["pivot"].read(name)]
        ancestor = opened["ancestor"].read(name)
        count = misrounded(merged(task, pair, ancestor), task.formula(pair, ancestor))
        assert count.wrong == 0
        assert count.elements > 0.9 * pair[0].numel() or name.endswith("norm.weight")


WITH_OVERRIDES = [task for task in TASKS.values() if task.ours is not None and task.in_mergekit]
SHARED_CONFIG = [task for task in TASKS.values() if task.ours is None]


def test_every_method_is_timed():
    yamls = (REPOSITORY / "conf" / "merge").glob("*.yaml")
    assert set(TASKS) == {path.stem for path in yamls} - {"none"}


@pytest.mark.parametrize("task", SHARED_CONFIG, ids=lambda t: t.method)
def test_one_config_serves_both(task, folders, tmp_path):
    command = merge.our_command(task, folders, tmp_path / "merged")
    (recipe,) = (word.removeprefix("mergekit_config=") for word in command if word.startswith("mergekit_config="))
    config = read_recipe(Path(recipe)).config()
    assert config["merge"]["name"] == task.method
    parents = [config["base_model"], config["pivot_model"], *config["extra_models"]]
    assert {Path(parent["source"]).name for parent in parents} >= {"base", "pivot"}


@pytest.mark.parametrize("task", WITH_OVERRIDES, ids=lambda t: t.method)
def test_a_task_gives_the_same_numbers_to_both(task, folders):
    config = task.mergekit(folders)
    assert config["merge_method"] == task.method
    assert [model["model"] for model in config["models"]] == [str(folders["base"]), str(folders["pivot"])]
    assert ("ancestor" in task.inputs) == (config.get("base_model") == str(folders["ancestor"]))
    for model in config["models"]:
        for name, number in model.get("parameters", {}).items():
            assert name == "weight" or f"merge.{name}={number}" in task.ours
    weights = [model.get("parameters", {}).get("weight") for model in config["models"]]
    if "ancestor" in task.inputs:
        assert f"merge.weights=[{weights[0]},{weights[1]}]" in task.ours
    elif task.method != "karcher":
        weight = weights[1] or config["parameters"]["t"]
        assert f"lambda={weight}" in task.ours


def test_a_merged_folder_is_compared_tensor_by_tensor(folders, tmp_path):
    task = slerp(0.3)
    opened = {model: Checkpoint(folder) for model, folder in folders.items()}
    wrong = TINY.samples[1]

    def tensor(name):
        pair = [opened["base"].read(name), opened["pivot"].read(name)]
        result = merged(task, pair, None)
        if name == wrong:
            result.view(-1)[5] *= 2
        return result

    headers = list(opened["base"].tensors.values())
    write_safetensors(tmp_path / FILE, headers, tensor)
    (tmp_path / "config.json").write_bytes((folders["base"] / "config.json").read_bytes())
    count = merge.compare(task, folders, tmp_path, TINY.samples)
    assert (count.wrong, count.steps) == (1, 128)
    assert count.elements == sum(math.prod(TINY.shapes[name]) for name in TINY.samples)


def test_a_child_is_watched(tmp_path):
    held, written = tmp_path / "model.safetensors", tmp_path / "written"
    held.write_bytes(b"x" * 4096)
    code = (
        "import sys, time, mmap\n"
        f"with open({str(held)!r}, 'rb') as file:\n    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "room = b'x' * (64 << 20)\n"
        "time.sleep(0.3)\n"
        f"open({str(written)!r}, 'wb').write(bytes(2 << 20))\n"
        "end = time.process_time() + 0.2\n"
        "while time.process_time() < end: pass\n"
        "print('done')\n"
    )
    result = watch([sys.executable, "-c", code], [tmp_path], tmp_path, os.environ)
    assert result.output == "done\n"
    assert 64 << 20 < result.peak < 256 << 20
    assert result.cpu >= 0.2
    assert 0 < result.opened <= result.wrote <= result.wall
    assert result.wrote >= 0.3


def test_a_child_that_fails_is_refused_with_its_last_words(tmp_path):
    with pytest.raises(UserError, match=r"(?s)-c raise SystemExit\('no disk'\)\nended with 1:\nno disk"):
        watch([sys.executable, "-c", "raise SystemExit('no disk')"], [], tmp_path, os.environ)


def test_the_floor_reads_all_and_writes_the_first(folders, tmp_path, capsys):
    files = [str(folders[model] / FILE) for model in ("base", "pivot")]
    merge_children.main(["floor", str(tmp_path / FILE), *files])
    assert json.loads(capsys.readouterr().out)["wall"] > 0
    (tmp_path / "config.json").write_bytes((folders["base"] / "config.json").read_bytes())
    written, base = Checkpoint(tmp_path), Checkpoint(folders["base"])
    assert all(torch.equal(written.read(name), base.read(name)) for name in TINY.shapes)


@pytest.mark.parametrize("copies", [[], ["copies"]])
def test_points_in_memory_are_timed_one_by_one(folders, capsys, copies):
    merge_children.main(["points", str(folders["base"]), str(folders["pivot"]), "0.0,0.4,1.0", *copies])
    seconds = json.loads(capsys.readouterr().out)
    assert [len(seconds[part]) for part in ("curve", "points", "copies")] == [1, 3, 3 if copies else 0]


def _row(way, number, wall, **rest):
    start = {"part": "disk", "size": "135M", "method": "ties", "way": way, "round": number, "wall": wall}
    return start | {"cpu": 2 * wall, "peak": 3 << 20, "opened": 0.5, "wrote": None} | rest


def _shown(table) -> list[str]:
    """The rows of a table, blank cells left out."""
    return [" ".join(cell.text for cell in row if cell.text) for row in table.rows]


def test_ratios_are_taken_within_a_round_and_the_table_shows_them():
    rows = [_row("floor", 0, 1.0), _row("ours", 0, 2.0, elements=1000, wrong=5, steps=2), _row("mergekit", 0, 8.0)]
    rows += [_row("floor", 1, 2.0), _row("ours", 1, 3.0), _row("mergekit", 1, 9.0), _row("floor", 2, 2.0)]
    assert ratios(rows, "ours", "floor", "wall") == [2.0, 1.5]
    assert ratios(rows, "mergekit", "ours", "cpu") == [4.0, 3.0]
    shown = _shown(speed_table(rows))
    assert "135M ties ours 2.5 (2 - 3) 5 (4 - 6) 1.75 (1.5 - 2)" in shown
    assert "135M ties mergekit 8.5 (8 - 9) 17 (16 - 18) 6.25 (4.5 - 8) 3.5 (3 - 4) 3.5 (3 - 4)" in shown
    assert "135M ties floor 2 (1 - 2) 4 (2 - 4)" in shown
    shown = _shown(quality_table(rows))
    assert "135M ties ours 3 0.50 0.5000 % 2" in shown
    assert "135M ties mergekit 3 0.50" in shown
    assert [spread([]), spread([0.12345]), spread([3.0, 1.0, 2.0])] == ["", "0.123", "2 (1 - 3)"]


@pytest.mark.parametrize(("runs", "note"), [(11, ""), (2, ", scaled from 2")])
def test_the_memory_table_notes_what_was_scaled(runs, note):
    rows = [
        _row("ours", 0, 9.0, points=[0.4, 0.6, 0.5], copies=[0.1, 0.1, 0.1], curve=[1.0]),
        _row("mergekit", 0, 9.0, points=[2.0, 2.0]),
        _row("ours, sweep", 0, 5.0),
        *(_row("mergekit, sweep", number, 2.0) for number in range(runs)),
    ]
    lines = _shown(memory_table(rows))
    expected = (
        f"11 runs to disk{note} mergekit 22 4.40",
        "a further λ ours 0.5 (0.4 - 0.6) 5.00 1.00",
        "a further λ mergekit's in-memory API 2 (2 - 2) 20.00 4.00",
        "the same bytes once more copy 0.1 (0.1 - 0.1) 1.00 0.20",
        "once for all λ ours 1 10.00 2.00",
        "sweep of 11, one process ours 5 1.00",
    )
    for line in expected:
        assert f"135M {line}" in lines, line


def test_commands_name_the_same_models_and_the_place_to_write(folders, tmp_path):
    out, task = tmp_path / "merged", TASKS["ties"]
    ours = [str(word) for word in merge.our_command(task, folders, out)]
    assert ours[1:3] == ["run.py", "merge=ties"]
    sources = {f"base_model.source={folders['base']}", f"ancestor.source={folders['ancestor']}"}
    assert sources | {f"save={out}"} <= set(ours)
    theirs = merge.mergekit_command(Path("venv/bin/python"), task, folders, out, "--async-write")
    assert theirs[0] == Path.cwd() / "venv/bin/mergekit-yaml"
    assert theirs[2] == out
    assert theirs[-1] == "--async-write"
    dtypes = {"dtype": "bfloat16", "out_dtype": "bfloat16"}
    assert yaml.safe_load(theirs[1].read_text()) == task.mergekit(folders) | dtypes
    merge.mergekit_command(Path("venv/bin/python"), task, folders, out, dtype="float32")
    assert yaml.safe_load(theirs[1].read_text())["dtype"] == "float32"
    floor = merge.floor_command(task, folders, out)
    assert floor[3:] == ["floor", out / FILE, *(folders[model] / FILE for model in ("ancestor", "base", "pivot"))]


def test_arguments_are_parsed_and_runs_counted(monkeypatch):
    words = "--mergekit-python p --sizes 135M --methods slerp ties --rounds 2 --no-async --sweep-runs 3"
    monkeypatch.setattr(sys, "argv", ["merge", *words.split()])
    args = merge._arguments()
    assert args.sizes == ["135M"]
    assert args.methods == ["slerp", "ties"]
    assert merge._runs(args) == 2 * 2 * 3 + 2 * 3 + 3


def test_an_environment_without_mergekit_is_an_error_with_the_recipe():
    message = r"is not a python with mergekit, torch. Make one: python -m venv .venv-mergekit; .*mergekit==0.1.5"
    with pytest.raises(UserError, match=message):
        harness.check_environment(Path(sys.executable), {"mergekit": "0.1.5", "torch": None}, merge.__doc__)
    with pytest.raises(UserError, match=r"has numpy .*; this benchmark needs numpy 0.1\."):
        harness.check_environment(Path(sys.executable), {"numpy": "0.1"}, merge.__doc__)


def test_ways_are_measured_in_every_round_and_compared():
    calls = []
    seconds = harness.measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert sorted(calls) == ["a"] * 3 + ["b"] * 3
    assert all(len(times) == 3 for clocks in seconds.values() for times in clocks.values())
    seconds = {"a": {"cpu": [1.0, 2.0, 3.0]}, "b": {"cpu": [2.0, 8.0, 3.0]}}
    assert harness.fastest(seconds, seconds) == "a"
    assert harness.ratio_of_medians(seconds, "b", "a") == {"ratio": 1.5, "ratio_rounds": [1.0, 4.0]}


def test_a_half_in_another_python_gets_the_job_and_returns_the_result(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text(
        "import sys\nfrom experiments.benchmarks import harness\nharness.serve(sys.argv[1:], lambda job: job + [2])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert harness.run_half("half", [1], Path(sys.executable)) == [1, 2]


NAMES = ("bootstrap", "coverage", "ifeval", "merge", "multiple_choice", "privacy", "records", "records_pandas",
         "records_stages", "scoring", "search", "selection_bias")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_help(name, monkeypatch, capsys):
    module = import_module(f"experiments.benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main(sys.argv[1:]) if name == "search" else module.main()
    assert ended.value.code == 0
    assert module.__doc__.splitlines()[0] in capsys.readouterr().out
