"""python -m patientdx.cli identify: what it reads, its files, its words and its refusals."""

import csv
import json

import pytest
import torch
from command_line import CONSOLE, forked
from identified_merges import best, bits, findings, save_tensors, words, write_merge

from patientdx.cli.identify import Options, main, options
from patientdx.cli.identify_search import RUN, Sampling, runs, sample_names
from patientdx.merge.slerp import slerp


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


def test_the_command_line_with_a_file_of_each_kind(tiny_base, tiny_pivot, make_tiny, tmp_path):
    third = make_tiny(noise_seed=2)
    merged = write_merge(tmp_path / "merged", [tiny_base, tiny_pivot], slerp, 0.4, torch.bfloat16)
    arguments = words(merged, tiny_base, third, tiny_pivot, output=tmp_path / "out" / "tensors.csv")
    (done,) = forked(tmp_path, [["identify", *arguments]], program=CONSOLE)
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
        (["merged=BASE", "candidates=[BASE,.org/m]"], "candidates: .org/m is no model: there is no such folder"),
        (["merged=BASE", "candidates=[BASE,ørg/m]"], "candidates: ørg/m is no model: there is no such folder"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "tensors=0"], "tensors=0 is not valid: give a whole number of at"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "elements=many"], "elements=many is not valid"),
        (["merged=BASE", "candidates=[BASE,PIVOT]", "output=x.txt"], "ends in .csv or .json"),
        (
            ["merged=BASE", "candidates=[BASE,PIVOT]", "lambda=0.4"],
            "lambda=0.4 is no option of identify: identify takes",
        ),
        (["merged=BASE", "candidates=[BASE,PIVOT"], "cannot be read"),
        (
            ["merged=BASE", "candidates=[BASE,smollm2_135m_noise]"],
            "is made on your machine, and is not at CACHE/pivots",
        ),
        (["merged=BASE", "candidates=[BASE,gatortron_llama]"], "gatortron_llama has no public weights"),
    ],
)
def test_what_is_not_valid_is_refused_in_a_few_words(arguments, message, tiny_base, tiny_pivot, session_cache, capsys):
    filled = [word.replace("BASE", str(tiny_base)).replace("PIVOT", str(tiny_pivot)) for word in arguments]
    assert main(filled) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message.replace("CACHE", str(session_cache)) in printed.err
    assert "Traceback" not in printed.err


def test_models_without_a_common_tensor_are_refused(make_tiny, tiny_base, tiny_pivot, capsys):
    assert main(words(tiny_base, tiny_pivot, make_tiny(hidden_size=64, intermediate_size=96))) == 2
    error = capsys.readouterr().err
    assert "no tensor of the same name and shape in all candidates" in error
    assert f"- {tiny_pivot.name}: 20" in error


def test_help_is_the_first_words_of_the_file(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Which candidates, merged how")
