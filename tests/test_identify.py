"""python -m patientdx.cli identify: merges of tiny models are recognised, and what is none of them is not."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import ROOT, environment
from identified_merges import changed, save_tensors, write_merge
from merge.test_mergekit_parity import CASES, TENSORS, oracle

from patientdx.cli.identify import Options, identify, main, options
from patientdx.cli.identify_search import RUN, Sampling, runs, sample_names
from patientdx.cli.identify_tables import Findings, verdict
from patientdx.merge.identification import ALLOWED
from patientdx.merge.linear import linear
from patientdx.merge.slerp import slerp
from patientdx.merge.task_arithmetic import task_arithmetic


@pytest.fixture(scope="module")
def third(make_tiny):
    """A candidate that takes no part, or an ancestor."""
    return make_tiny(noise_seed=2)


def words(merged: Path, *candidates: Path, **more) -> list[str]:
    listed = ",".join(map(str, candidates))
    return [f"merged={merged}", f"candidates=[{listed}]", *(f"{key}={value}" for key, value in more.items())]


def findings(merged: Path, *candidates: Path, **more) -> Findings:
    return identify(options(words(merged, *candidates, **more)), Path("/nowhere"))


def text(result: Findings) -> str:
    return " ".join(verdict(result))


def best(result: Findings) -> tuple[str, tuple[str, ...], str | None]:
    """Method, names of the parents and of the ancestor."""
    entry, names = result.best.hypothesis, result.models
    ancestor = None if entry.ancestor is None else names[entry.ancestor]
    return entry.method, tuple(names[parent] for parent in entry.parents), ancestor


def bits(result: Findings) -> float:
    return sum(result.best.bits) / sum(row.elements for row in result.rows)


MERGES = [
    (method, weight, dtype)
    for method, weights in ((linear, (0.3, 0.4, 0.85)), (slerp, (0.3, 0.4, 0.85)), (task_arithmetic, (0.3, 0.4, 0.85)))
    for weight in weights
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if dtype != torch.float16 or weight == 0.4
]


@pytest.mark.parametrize(("method", "weight", "dtype"), MERGES)
def test_our_merges_are_recognised_beside_a_wrong_candidate(
    method, weight, dtype, tiny_base, tiny_pivot, third, tmp_path
):
    ancestor = third if method is task_arithmetic else None
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], method, weight, dtype, ancestor)
    result = findings(merged, tiny_base, third, tiny_pivot)
    expected = (method.__name__, (tiny_base.name, tiny_pivot.name), ancestor and ancestor.name)
    assert best(result) == expected
    assert result.exit_code == 0
    assert result.best.weights[0].median == pytest.approx(weight, abs=1e-3)
    assert result.best.values == (weight,)
    assert bits(result) == 1.0
    assert result.best.excess < ALLOWED
    runner_up = result.ranked[1].hypothesis
    assert runner_up.weighted or result.ranked[1].explained < len(result.rows)


def test_the_order_of_the_candidates_is_that_of_the_parents(tiny_base, tiny_pivot, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    result = findings(merged, tiny_pivot, tiny_base)
    assert best(result) == ("slerp", (tiny_pivot.name, tiny_base.name), None)
    assert result.best.values == (0.6,)
    assert f"λ is the share of {tiny_base.name}; slerp(base={tiny_base.name}, pivot={tiny_pivot.name}, λ=0.4)" in text(
        result
    )


def test_a_gradient_of_weights_is_reported_as_such(tiny_base, tiny_pivot, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, (0.2, 0.7), torch.float32)
    result = findings(merged, tiny_base, tiny_pivot)
    assert best(result)[0] == "slerp"
    summary = result.best.weights[0]
    assert (summary.low, summary.high) == pytest.approx((0.2, 0.7), abs=1e-6)
    assert result.best.values == ()
    assert "λ is not the same in all tensors: from 0.2 to 0.7" in text(result)
    assert bits(result) == 1.0
    assert result.exit_code == 0


@pytest.mark.parametrize("weight", [1.5, -0.5])
def test_a_weight_beyond_an_end_is_task_arithmetic(weight, tiny_base, tiny_pivot, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], linear, weight, torch.float32)
    result = findings(merged, tiny_base, tiny_pivot)
    pair = (tiny_base.name, tiny_pivot.name)
    start, end = pair if weight > 1 else pair[::-1]
    assert best(result) == ("task_arithmetic", (end,), start)
    assert result.best.values == (1.5,)
    assert bits(result) > 0.999


def test_task_vectors_of_different_weights_from_a_known_ancestor(tiny_base, tiny_pivot, third, tmp_path):
    merged = write_merge(
        tmp_path / "merged", [tiny_base, tiny_pivot], task_arithmetic, 1.0, torch.bfloat16, third, weights=[0.25, 0.6]
    )
    result = findings(merged, tiny_base, tiny_pivot, ancestor=third)
    assert best(result) == ("task_arithmetic", (tiny_base.name, tiny_pivot.name), third.name)
    assert result.best.hypothesis.weighted
    assert result.best.values == (0.25, 0.6)
    assert bits(result) == 1.0
    assert f"weights=[0.2500, 0.6000]) in {third.name}" not in text(result)


def test_a_linear_merge_of_three_has_its_weights(tiny_base, tiny_pivot, third, tmp_path):
    merged = write_merge(
        tmp_path / "merged", [tiny_base, tiny_pivot, third], linear, 0.5, torch.bfloat16, weights=[0.7, 0.3]
    )
    result = findings(merged, tiny_base, tiny_pivot, third)
    assert best(result) == ("linear", (tiny_base.name, tiny_pivot.name, third.name), None)
    assert result.best.values == (0.35, 0.15)
    assert "weights=[0.3500, 0.1500])" in text(result)


def test_an_average_of_three_has_no_ancestor_that_weights_could_tell(tiny_base, tiny_pivot, third, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot, third], linear, 2 / 3, torch.bfloat16)
    said = text(findings(merged, tiny_base, tiny_pivot, third))
    assert said.count("explains it as well") == 2
    assert said.count("λ=0.3333") == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_in_the_stored_type_is_still_explained(dtype, tiny_base, tiny_pivot, third, tmp_path):
    """Products and sum rounded, and the weights themselves: what torch leaves where nothing is cast."""
    from safetensors.torch import load_file

    other = load_file(tiny_pivot / "model.safetensors")
    share, rest = torch.tensor(0.4, dtype=dtype), torch.tensor(0.6, dtype=dtype)
    merged = changed(
        tiny_base, tmp_path / "merged", lambda name, base: base.to(dtype) * rest + other[name].to(dtype) * share
    )
    result = findings(merged, tiny_base, third, tiny_pivot)
    assert best(result)[:2] == ("linear", (tiny_base.name, tiny_pivot.name))
    assert result.exit_code == 0
    assert result.best.weights[0].median == pytest.approx(0.4, abs=2e-3)
    assert bits(result) < 1


def test_a_float32_folder_that_holds_bfloat16_numbers_has_their_rounding(tiny_base, tiny_pivot, third, tmp_path):
    narrow = write_merge(tmp_path / "narrow", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    merged = changed(narrow, tmp_path / "merged", lambda name, tensor: tensor.float())
    result = findings(merged, tiny_base, tiny_pivot, third)
    assert best(result)[0] == "slerp"
    assert result.exit_code == 0
    assert bits(result) == 1.0
    assert "expected in bfloat16 (" in text(result)


def test_a_candidate_itself(tiny_base, tiny_pivot, third, tmp_path, capsys):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.0, torch.bfloat16)
    assert main(words(merged, third, tiny_pivot, tiny_base)) == 0
    assert f"merged is {tiny_base.name} itself (λ=0 of" in " ".join(capsys.readouterr().out.split())
    wider = changed(tiny_pivot, tmp_path / "wider", lambda name, tensor: tensor.float())
    assert best(findings(wider, tiny_base, tiny_pivot)) == ("copy", (tiny_pivot.name,), None)


def test_a_candidate_that_merging_hardly_moved_is_no_copy(tiny_base, tiny_pivot, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], linear, 0.01, torch.bfloat16)
    result = findings(merged, tiny_base, tiny_pivot)
    assert best(result)[0] == "linear"
    assert result.best.values == (0.01,)
    assert result.exit_code == 0


def test_an_unrelated_model_is_explained_by_none(make_tiny, tiny_base, tiny_pivot, tmp_path, capsys):
    assert main(words(make_tiny(seed=9), tiny_base, tiny_pivot)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "None of these candidates explains" in said
    assert "a parent is not among the candidates" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merge_with_noise_is_explained_by_none(dtype, tiny_base, tiny_pivot, third, tmp_path):
    """The noise is 10 times what rounding leaves; a trained merge differs by more."""
    clean = write_merge(tmp_path / "clean", [tiny_base, tiny_pivot], slerp, 0.4, dtype)
    step = max(torch.finfo(dtype).eps, 4 * torch.finfo(torch.float32).eps)
    generator = torch.Generator().manual_seed(0)

    def add(name, tensor):
        return (tensor.double() * (1 + 3 * step * torch.randn(tensor.shape, generator=generator))).to(dtype)

    result = findings(changed(clean, tmp_path / "merged", add), tiny_base, tiny_pivot, third)
    assert result.exit_code == 1
    assert best(result)[0] == "slerp"
    assert ALLOWED < result.best.excess < 20
    assert findings(clean, tiny_base, tiny_pivot, third).exit_code == 0


def test_a_missing_parent_is_explained_by_none(tiny_base, tiny_pivot, third, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], linear, 0.4, torch.bfloat16)
    result = findings(merged, tiny_base, third)
    assert result.exit_code == 1
    assert "a parent is not among the candidates" in text(result)


def test_a_tensor_from_elsewhere_is_named(make_tiny, tiny_base, tiny_pivot, tmp_path):
    clean = write_merge(tmp_path / "clean", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    name = "model.layers.1.mlp.up_proj.weight"
    merged = changed(clean, tmp_path / "merged", lambda other, tensor: tensor + 0.1 * (other == name))
    result = findings(merged, tiny_base, tiny_pivot)
    assert result.exit_code == 1
    assert result.best.explained == len(result.rows) - 1
    assert f"It does not explain {name}." in text(result)


def test_identical_candidates_stand_for_each_other(tiny_base, tiny_pivot, tmp_path):
    twin = changed(tiny_base, tmp_path / "twin", lambda name, tensor: tensor)
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    result = findings(merged, tiny_base, twin, tiny_pivot)
    assert best(result)[:2] == ("slerp", (tiny_base.name, tiny_pivot.name))
    assert f"twin and {tiny_base.name} are identical in every sampled tensor" in text(result)
    result = findings(tiny_base, tiny_base, twin)
    assert best(result)[0] == "copy"
    assert "method and λ are undetermined" in text(result)
    assert result.exit_code == 0
    assert findings(tiny_pivot, tiny_base, twin).exit_code == 1


def test_tensors_that_candidates_share_say_nothing_unless_the_merge_differs(tiny_base, tiny_pivot, tmp_path):
    from safetensors.torch import load_file

    base = load_file(tiny_base / "model.safetensors")
    half = changed(
        tiny_pivot, tmp_path / "half", lambda name, tensor: base[name] if "mlp" in name or "norm" in name else tensor
    )
    merged = write_merge(tmp_path / "merged", [tiny_base, half], slerp, 0.4, torch.bfloat16)
    result = findings(merged, tiny_base, half)
    assert (best(result)[0], result.exit_code, len(result.shared)) == ("slerp", 0, 11)
    other = changed(merged, tmp_path / "other", lambda name, tensor: tensor + 0.1 * (".0.mlp.up" in name))
    result = findings(other, tiny_base, half)
    assert result.exit_code == 1
    assert "All candidates are the same in model.layers.0.mlp.up_proj.weight, and other differs there" in text(result)


def test_slerp_of_nearly_parallel_parents_is_linear_and_is_called_both(tiny_base, tiny_pivot, tmp_path):
    from safetensors.torch import load_file

    base = load_file(tiny_base / "model.safetensors")
    near = changed(tiny_pivot, tmp_path / "near", lambda name, tensor: base[name] + 0.05 * (tensor - base[name]))
    merged = write_merge(tmp_path / "merged", [tiny_base, near], slerp, 0.4, torch.float32)
    result = findings(merged, tiny_base, near)
    assert result.exit_code == 0
    assert {best(result)[0], "linear"} <= {"linear", "slerp"}
    assert "explains it as well" in text(result)
    assert result.best.values == (0.4,)


def test_tensors_of_other_shapes_are_skipped_and_named(make_tiny, tiny_base, tiny_pivot, tmp_path, capsys):
    larger = make_tiny(noise_seed=2, extra_tokens=("<|more|>",), vocab_size=440)
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    assert main(words(merged, tiny_base, larger, tiny_pivot)) == 0
    assert "not compared, of different shapes: 1 tensors (model.embed_tokens.weight)" in " ".join(
        capsys.readouterr().out.split()
    )


def test_elements_that_are_not_finite_are_not_compared(tiny_base, tiny_pivot, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.float32)
    broken = changed(merged, tmp_path / "broken", lambda name, tensor: tensor / (0.0 if "embed" in name else 1.0))
    result = findings(broken, tiny_base, tiny_pivot)
    assert result.skipped == {"with elements that are not finite": ["model.embed_tokens.weight"]}
    assert result.exit_code == 0


MERGEKIT = {  # number of a case: our λ
    "0": [0.31416],
    "1": [0.31416],
    "2": [0.80902],
    "3": [0.80902],
    "4": [0.61803 / 2.07934, 0.41421 / 2.07934],
    "19": [0.61803, 0.91287],
    "20": [0.61803 * 0.70711, 0.91287 * 0.70711],
}


@pytest.mark.parametrize("number", MERGEKIT)
def test_what_mergekit_writes_is_recognised(number, tmp_path):
    """Its float32 results for the same tensors, stored in tests/merge."""
    method, parents = CASES[number]["method"], tuple(CASES[number]["models"])
    tensors = oracle()[1]
    names = ("base", "pivot", "third", *(["ancestor"] if method == "task_arithmetic" else []))
    folders = [save_tensors(tmp_path / name, {part: tensors[f"{name}/{part}"] for part in TENSORS}) for name in names]
    merged = save_tensors(tmp_path / "merged", {part: tensors[f"{number}/float32/{part}"] for part in TENSORS})
    more = {"ancestor": folders[-1]} if method == "task_arithmetic" else {}
    result = findings(merged, *folders[:3], **more)
    assert best(result)[:2] == (method, parents)
    assert result.exit_code == 0
    assert [summary.median for summary in result.best.weights] == pytest.approx(MERGEKIT[number], abs=1e-6)


def test_large_tensors_are_read_in_part_and_the_angle_is_that_of_all(tmp_path):
    """The sampled elements of these parents have another angle than the complete tensors."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64 * RUN, generator=generator)
    pivot = base + torch.linspace(0, 2, base.numel()) * torch.randn(base.shape, generator=generator)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3)]
    parents = [save_tensors(tmp_path / name, dict.fromkeys(names, x)) for name, x in (("a", base), ("b", pivot))]
    merged = write_merge(tmp_path / "merged", parents, slerp, 0.4, torch.bfloat16)
    result = findings(merged, *parents, elements=4 * RUN, tensors=2)
    assert [row.name for row in result.rows] == [names[0], names[2]]
    assert {row.elements for row in result.rows} == {4 * RUN}
    assert (best(result)[0], result.best.values, bits(result)) == ("slerp", (0.4,), 1.0)


def test_a_sample_follows_the_seed_and_stays_within_its_bounds():
    sampling = Sampling(elements=8 * RUN, seed=1)
    first = runs("x", 100 * RUN + 5, sampling)
    assert first == runs("x", 100 * RUN + 5, sampling)
    assert first != runs("y", 100 * RUN + 5, sampling)
    assert first != runs("x", 100 * RUN + 5, Sampling(elements=8 * RUN, seed=2))
    assert len({part.start for part in first}) == 8
    assert all(part.start >= 0 and part.stop - part.start == RUN and part.stop <= 100 * RUN for part in first)
    assert runs("x", 8 * RUN, sampling) == [slice(0, 8 * RUN)]
    layers = [f"model.layers.{layer}.mlp.{kind}_proj.weight" for layer in range(32) for kind in ("up", "down")]
    chosen = sample_names([*layers, "lm_head.weight"], 3)
    assert chosen == [*(layers[2 * at + kind] for at in (0, 16, 31) for kind in (0, 1)), "lm_head.weight"]


def test_the_command_line_with_a_file_of_each_kind(tiny_base, tiny_pivot, third, tmp_path):
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    arguments = words(merged, tiny_base, third, tiny_pivot, output=tmp_path / "out" / "tensors.csv")
    done = subprocess.run(
        [sys.executable, "-m", "patientdx.cli", "identify", *arguments],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"slerp(base={tiny_base.name}, pivot={tiny_pivot.name}, λ=0.4000)" in done.stdout
    with (tmp_path / "out" / "tensors.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    name = f"slerp(base={tiny_base.name}, pivot={tiny_pivot.name})"
    chosen = [row for row in rows if row["hypothesis"] == name]
    assert len(chosen) == 20
    assert all(row["explained"] == "True" and float(row["bits_equal"]) == 1 for row in chosen)
    matrix = next(row for row in chosen if row["kind"] == "up")
    assert float(matrix["lambda"]) == pytest.approx(0.4, abs=3e-3)
    assert float(matrix[f"coefficient_{third.name}"]) == 0
    assert main([*arguments[:2], f"output={tmp_path / 'tensors.json'}"]) == 0
    written = json.loads((tmp_path / "tensors.json").read_text(encoding="utf-8"))
    assert written["explained"] is True
    assert len(written["tensors"]) == len(rows)


def test_models_by_yaml_hub_id_and_folder(tiny_base):
    opts = options([f"merged={tiny_base}", "candidates=[mistral_7b_v0_1,org/some.model-1]", "ancestor=mistral_7b_v0_1"])
    assert isinstance(opts, Options)
    assert [model.source for model in opts.models] == ["mistralai/Mistral-7B-v0.1", "org/some.model-1"]
    assert opts.models.index(opts.ancestor) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "identify needs merged and candidates"),
        (["merged=BASE"], "identify needs candidates"),
        (["merged=BASE", "candidates=BASE"], "is no list of models: give them in brackets"),
        (["merged=BASE", "candidates=[BASE]"], "1 models to choose parents from: give from 2 to 8"),
        (["merged=BASE", "candidates=[BASE,BASE]"], "more than once"),
        (["merged=BASE", "candidates=[BASE,nowhere]"], "candidates: nowhere is no model: there is no such folder"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "tensors=0"], "tensors=0 is not valid: give a whole number of at"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "elements=many"], "elements=many is not valid"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "output=x.txt"], "ends in .csv or .json"),
        (
            ["merged=BASE", "candidates=[BASE,PIVOT]", "lambda=0.4"],
            "lambda=0.4 is no option of identify: identify takes",
        ),
        (["merged=BASE", "candidates=[BASE,PIVOT"], "cannot be read"),
        (["merged=BASE", "candidates=[BASE,gatortron_llama]"], "gatortron_llama has no public weights"),
    ],
)
def test_what_is_not_valid_is_refused_in_a_few_words(arguments, message, tiny_base, tiny_pivot, capsys):
    filled = [word.replace("BASE", str(tiny_base)).replace("PIVOT", str(tiny_pivot)) for word in arguments]
    assert main(filled) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_models_without_a_common_tensor_are_refused(make_tiny, tiny_base, tiny_pivot, capsys):
    assert main(words(tiny_base, tiny_pivot, make_tiny(hidden_size=64, intermediate_size=96))) == 2
    error = capsys.readouterr().err
    assert "no tensor of the same name and shape in all candidates" in error
    assert f"- {tiny_pivot.name}: 20" in error


def test_help_is_the_first_words_of_the_file(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Which candidates, merged how")
