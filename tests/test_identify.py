"""identify: merges of tiny models are recognised, and what is none of them is not."""

from dataclasses import replace

import pytest
import torch
from identified_merges import best, bits, changed, findings, save_tensors, text, words, write_merge
from merge.test_mergekit_parity import CASES, TENSORS, oracle

from patientdx.cli.identify import main
from patientdx.cli.identify_bits import by_bits, decided_by_bits, equivalent
from patientdx.cli.identify_hypotheses import Hypothesis
from patientdx.merge.identification import ALLOWED
from patientdx.merge.linear import linear
from patientdx.merge.slerp import slerp
from patientdx.merge.task_arithmetic import task_arithmetic


@pytest.fixture(scope="module")
def third(make_tiny):
    """A candidate that takes no part, or an ancestor."""
    return make_tiny(noise_seed=2)


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
    runner_up = result.explanations[1].hypothesis
    assert runner_up.weighted or result.explanations[1].explained < len(result.rows)


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
    assert (summary.low, summary.high) == pytest.approx((0.2, 0.7), abs=1e-5)
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
    assert "weights=[0.2500, 0.6000])" in text(result)


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
    assert said.count("λ=0.333") == 3


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
    (other,) = equivalent(result.explanations, sum(row.elements for row in result.rows))
    assert {best(result)[0], other.hypothesis.method} == {"linear", "slerp"}
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


def test_a_model_made_of_parts_of_the_others_is_a_candidate_too(tiny_base, tiny_pivot, third, tmp_path):
    """In each tensor it equals an earlier candidate, but not the same one in all."""
    from safetensors.torch import load_file

    base = load_file(tiny_base / "model.safetensors")
    mixed = changed(tiny_pivot, tmp_path / "mixed", lambda name, tensor: base[name] if "mlp" in name else tensor)
    merged = write_merge(tmp_path / "merged", [mixed, third], slerp, 0.4, torch.bfloat16)
    result = findings(merged, tiny_base, tiny_pivot, mixed, third)
    assert best(result)[:2] == ("slerp", ("mixed", third.name))
    assert result.exit_code == 0


def test_an_ancestor_that_equals_a_candidate_is_the_ancestor(tiny_base, tiny_pivot, third, tmp_path):
    twin = changed(third, tmp_path / "twin", lambda name, tensor: tensor)
    merged = write_merge(
        tmp_path / "merged", [tiny_base, tiny_pivot], task_arithmetic, 0.4, torch.bfloat16, third, weights=[1.0, 1.0]
    )
    result = findings(merged, tiny_base, tiny_pivot, third, ancestor=twin)
    assert best(result) == ("task_arithmetic", (tiny_base.name, tiny_pivot.name), third.name)


def test_equal_bits_decide_between_explanations_that_fit_as_well(tiny_base, tiny_pivot, tmp_path):
    """Where parents differ by few steps a line can fit better than the arc that was used."""
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    result = findings(merged, tiny_base, tiny_pivot)
    count, arc = sum(row.elements for row in result.rows), result.best
    line = replace(arc, criterion=arc.criterion - 100, bits=(arc.bits[0] - 200, *arc.bits[1:]))
    free = replace(line, hypothesis=Hypothesis("linear", (0, 1, 2), weighted=True), bits=arc.bits)
    assert by_bits([line, free, arc], count) == [arc, line, free]
    assert decided_by_bits([arc, line, free], count) == [line]
    assert equivalent([arc, line, free], count) == []
    close = replace(line, bits=(arc.bits[0] - 9, *arc.bits[1:]))
    assert by_bits([close, arc], count) == [close, arc]
    assert equivalent([close, arc], count) == []
    assert equivalent([arc, close], count) == [close]
