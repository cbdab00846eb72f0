"""python -m patientdx.cli compare: its numbers beside plain ones, its files, its picture, its words."""

import csv
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patientdx.checkpoints.reader import Checkpoint
from patientdx.cli import compare as program
from patientdx.cli.compare import BLOCK, Row, Sums, cells, heatmaps, kind_of, main, measure, pooled, tables
from patientdx.merge.slerp import slerp
from patientdx.reporting.angles import ORDER
from patientdx.reporting.charts import OUTSIDE, layer_map
from patientdx.reporting.terminal import text

ROOT = Path(__file__).resolve().parents[1]


def overrides(base: Path, pivot: Path, output: Path, *more: str) -> list[str]:
    models = [f"base_model.source={base}", f"pivot_model.source={pivot}", "pivot_model.adapter=null"]
    return [*models, f"output={output}", *more]


def csv_of(output: Path) -> list[dict[str, str]]:
    (file,) = output.glob("compare/*/tensors.csv")
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def printed(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def row(layer: int | None, kind: str, distance: float) -> Row:
    found = measure(torch.tensor([1.0, 0.0]), torch.tensor([1.0, distance]))
    return Row(f"{layer}.{kind}", layer, kind, (2,), found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_measures_are_the_plain_ones(dtype):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(BLOCK // 2 + 5, 3, generator=generator)
    b = (a + 0.5 * torch.randn(a.shape, generator=generator)).to(dtype)
    a = a.to(dtype)
    kept = a.clone(), b.clone()
    found = measure(a, b)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])
    x, y = a.double().flatten(), b.double().flatten()
    assert found.elements == a.numel()
    assert found.turned == pytest.approx(1 - (x @ y / (x.norm() * y.norm())).item(), rel=1e-12)
    assert found.ratio == pytest.approx((y.norm() / x.norm()).item(), rel=1e-12)
    assert found.distance == pytest.approx(((y - x).norm() / x.norm()).item(), rel=1e-12)
    assert found.compared == int(((x != 0) & (y != 0)).sum())
    assert found.conflicts == int((x * y < 0).sum())
    assert found.conflict == found.conflicts / found.compared


def test_signs_are_those_of_the_changes_since_the_ancestor():
    ancestor = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    base, pivot = torch.tensor([2.0, 0.0, 2.0, 1.0, 2.0]), torch.tensor([3.0, 2.0, 0.5, 5.0, 1.0])
    found = measure(base, pivot, ancestor)
    assert (found.conflicts, found.compared) == (2, 3)  # two places were left alone by one of the two
    assert found.conflict == pytest.approx(2 / 3)
    assert measure(base, pivot).conflicts == 0
    assert math.isnan(measure(ancestor, pivot, ancestor).conflict)


def test_a_small_angle_is_exact_where_the_cosine_is_1_to_every_digit():
    a = torch.zeros(1000, dtype=torch.float64)
    a[0] = 1.0
    b = a.clone()
    b[1] = 1e-10
    assert measure(a, b).turned == pytest.approx(0.5e-20, rel=1e-6, abs=0)
    assert measure(a, a).turned == 0.0
    assert measure(a, 3 * a).turned == 0.0


@pytest.mark.parametrize("angle", [0.0, 0.01, 0.0315, 0.0317, 0.1, 1.5, 3.0, math.pi])
def test_slerp_is_a_line_where_slerp_says_so(angle):
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = 2 * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert (measure(a, b).straight == 2) == (slerp((a, b)).diagnostics["branch"] == "line")


def test_threads_change_no_bit():
    generator, before, found = torch.Generator().manual_seed(0), torch.get_num_threads(), []
    a, b = torch.randn(2, 1_000_003, generator=generator)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(measure(a, b, 0.5 * a))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_zeros_have_no_angle_and_are_joined_by_a_line():
    zeros, ones = torch.zeros(3), torch.ones(3)
    for found in (measure(zeros, zeros), measure(zeros, ones), measure(ones, zeros)):
        assert math.isnan(found.turned)
        assert found.straight == 3
    assert math.isnan(measure(zeros, ones).distance)
    assert measure(ones, zeros).distance == 1.0


def test_pooled_tensors_are_one_long_tensor():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator)
    parts = pooled([measure(a[:20], b[:20]), measure(a[20:], b[20:])])
    whole = measure(a, b)
    for name in Sums.__dataclass_fields__:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


OF_KIND = {
    "q": ["model.layers.0.self_attn.q_proj.weight"],
    "k": ["model.layers.0.self_attn.k_proj.bias"],
    "v": ["model.layers.0.self_attn.v_proj.weight"],
    "o": ["model.layers.0.self_attn.o_proj.weight"],
    "gate": ["model.layers.0.mlp.gate_proj.weight"],
    "up": ["model.layers.0.mlp.experts.3.up_proj.weight"],
    "down": ["model.layers.0.mlp.down_proj.weight"],
    "norms": ["model.layers.0.self_attn.q_norm.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight",
              "transformer.h.0.ln_1.weight"],
    "embedding": ["model.embed_tokens.weight", "transformer.wte.weight"],
    "head": ["lm_head.weight"],
    "other": ["model.layers.0.self_attn.qkv_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"],
}  # fmt: skip


@pytest.mark.parametrize("kind", OF_KIND)
def test_kinds_are_told_by_name(kind):
    assert {name: kind_of(name) for name in OF_KIND[kind]} == dict.fromkeys(OF_KIND[kind], kind)


def test_two_checkpoints_give_one_line_a_tensor_and_a_picture(tiny_base, tiny_pivot, tmp_path, capsys):
    said = printed(capsys, overrides(tiny_base, tiny_pivot, tmp_path))
    folder = tmp_path / "compare" / "unknown_base_unknown_pivot"
    assert sorted(path.name for path in folder.iterdir()) == ["heatmap.png", "tensors.csv"]
    assert said.replace("\n", "").endswith(f"written: {folder}")
    base, pivot = Checkpoint(tiny_base), Checkpoint(tiny_pivot)
    found = {one["tensor"]: one for one in csv_of(tmp_path)}
    assert list(found) == list(base.tensors)
    for name, one in found.items():
        a, b = base.read(name).double().flatten(), pivot.read(name).double().flatten()
        cosine = (a @ b / (a.norm() * b.norm())).item()
        assert float(one["cosine"]) == pytest.approx(cosine, rel=1e-12)
        assert float(one["relative_distance"]) == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-12)
        assert one["slerp_is_line"] == str(cosine > 0.9995)
        assert int(one["weights"]) == a.numel()
    assert found["model.layers.1.mlp.up_proj.weight"]["shape"] == "64x32"
    assert found["model.layers.1.mlp.up_proj.weight"]["layer"] == "1"
    assert found["model.embed_tokens.weight"]["layer"] == ""
    assert min(size_of(folder / "heatmap.png")) > 600


def test_the_tables_show_every_layer_and_kind_and_the_whole(tiny_base, tiny_pivot, tmp_path, capsys):
    said = printed(capsys, overrides(tiny_base, tiny_pivot, tmp_path))
    assert max(map(len, said.splitlines()[:-1])) <= 80
    kinds = ["q", "k", "v", "o", "gate", "up", "down", "norms"]
    long = re.findall(r"^(\d|–) +([a-z]+) +[\d.]+ ", said, re.MULTILINE)
    assert long == [(str(layer), kind) for layer in (0, 1) for kind in kinds] + [("–", "norms"), ("–", "embedding")]
    rows = csv_of(tmp_path)
    total = sum(int(one["weights"]) for one in rows)
    (line,) = re.findall(r"^all +([\d ]+?) {2,}([\d.]+) +([\d.]+) +([\d.]+)% +([\d.]+)% +([\d.]+)%", said, re.MULTILINE)
    assert int(line[0].replace(" ", "")) == total
    straight = sum(int(one["weights"]) for one in rows if one["slerp_is_line"] == "True") / total
    assert 0 < straight < 1
    assert float(line[5]) == pytest.approx(100 * straight, abs=0.051)
    distance = math.sqrt(
        sum((float(one["relative_distance"]) * float(one["norm_base"])) ** 2 for one in rows)
        / sum(float(one["norm_base"]) ** 2 for one in rows)
    )
    assert float(line[3]) == pytest.approx(100 * distance, abs=0.0051)
    assert "opposite signs among the weights" in said


def test_an_ancestor_gives_the_signs_of_changes(make_tiny, tiny_base, tiny_pivot, tmp_path, capsys):
    other = make_tiny(noise_seed=2)
    ancestor = ["base_model@ancestor=smollm2_135m_instruct", f"ancestor.source={tiny_base}", "ancestor.name=root"]
    said = printed(capsys, overrides(other, tiny_pivot, tmp_path, *ancestor))
    assert "opposite signs among the changes since root" in " ".join(said.split())
    name = "model.layers.0.mlp.up_proj.weight"
    a, b, origin = (Checkpoint(folder).read(name).double() for folder in (other, tiny_pivot, tiny_base))
    signs = (a - origin) * (b - origin)
    (one,) = (one for one in csv_of(tmp_path) if one["tensor"] == name)
    assert float(one["sign_conflicts"]) == pytest.approx(((signs < 0).sum() / (signs != 0).sum()).item(), rel=1e-6)
    assert 0.3 < float(one["sign_conflicts"]) < 0.7  # noise against noise
    assert float(one["signs_compared"]) == pytest.approx((signs != 0).double().mean().item())


def test_a_model_beside_itself_shows_no_difference(tiny_base, tmp_path, capsys):
    said = printed(capsys, overrides(tiny_base, tiny_base, tmp_path))
    assert re.search(r"^all .* 1\.000000 +1\.0000 +0\.00% +0\.00% +100\.0%", said, re.MULTILINE)
    assert {one["one_minus_cosine"] for one in csv_of(tmp_path)} == {"0.0"}


def test_the_same_command_writes_the_same_bytes(tiny_base, tiny_pivot, tmp_path, capsys):
    for place in ("first", "second"):
        printed(capsys, overrides(tiny_base, tiny_pivot, tmp_path / place))
    first, second = (sorted((tmp_path / place).rglob("*.*")) for place in ("first", "second"))
    assert len(first) == 2
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def size_of(png: Path) -> tuple[int, int]:
    """Width and height."""
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def squares(chart, mark: str) -> list[dict]:
    """The data of the layer whose colour follows a value, or (`grey`) of the one with a colour of its own."""
    layers = [layer for layer in chart.to_dict()["layer"] if ("color" in layer["encoding"]) == (mark == "value")]
    return [value for layer in layers for value in layer["data"]["values"]]


def test_the_map_shows_no_difference_in_grey_and_differences_in_colour():
    same = [{"layer": str(layer), "kind": kind, "value": 0.0} for layer in (0, 1) for kind in ("q", "norms")]
    more = [*same, {"layer": OUTSIDE, "kind": "head", "value": 0.5}, {"layer": "10", "kind": "q", "value": 0.1}]
    chart = layer_map(more, ORDER, legend="1 − cosine", log=True)
    assert len(squares(chart, "grey")) == 4
    assert [square["value"] for square in squares(chart, "value")] == [0.5, 0.1]
    x = chart.to_dict()["layer"][0]["encoding"]["x"]
    assert x["sort"] == ["0", "1", "10", OUTSIDE]


@pytest.mark.parametrize("layers", [1, 2, 32, 126])
def test_any_depth_is_drawn(layers, tmp_path):
    rows = [row(layer, kind, 1e-3 * (1 + layer)) for layer in range(layers) for kind in ("q", "other")]
    heatmaps([*rows, row(None, "embedding", 4.0)], tmp_path / "map.png", "a → b")
    assert 600 < size_of(tmp_path / "map.png")[0] <= 2400
    heatmaps([row(layer, "q", 0.0) for layer in range(layers)], tmp_path / "same.png", "a → a")


def test_cells_join_the_tensors_of_a_layer_and_kind_in_order():
    rows = [row(1, "norms", 0.1), row(None, "norms", 0.3), row(1, "norms", 0.2), row(0, "up", 0.1), row(0, "q", 0.1)]
    found = cells(rows)
    assert list(found) == [(0, "q"), (0, "up"), (1, "norms"), (None, "norms")]
    assert found[1, "norms"].dd == pytest.approx(0.05)


def test_what_cannot_be_compared_is_a_dash():
    nothing = Row("x", 0, "q", (2,), measure(torch.zeros(2), torch.zeros(2)))
    shown = text(*tables([nothing], "a", "the weights"))
    assert re.search(r"^0 +q +– +– +– +– +100\.0%", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["base_model=gpt"], "Could not find 'base_model/gpt'"),
        (["lamda=1"], "Could not override 'lamda'"),
        (["-m"], "-m"),
        (["+base_model.quant=q4"], "base_model.quant: ModelSource has no such parameter"),
        (
            ["base_model@ancestor=smollm2_135m_instruct", "+ancestor.quant=q4"],
            "ancestor has no key quant: give a yaml of conf/models.",
        ),
        (["pivot_model.source=/nowhere"], "there is nothing at /nowhere"),
    ],
)
def test_what_will_not_do_is_refused_in_a_few_words(more, words, tiny_base, tiny_pivot, tmp_path, capsys):
    assert main(overrides(tiny_base, tiny_pivot, tmp_path, *more)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert "Traceback" not in told.err


def test_models_that_do_not_fit_are_refused_before_anything_is_read(
    make_tiny, tiny_base, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(program, "measure", lambda *tensors: pytest.fail("weights were read"))
    assert main(overrides(tiny_base, make_tiny(hidden_size=64), tmp_path)) == 2
    assert "cannot be merged tensor by tensor" in capsys.readouterr().err


def test_help_is_the_first_words_of_the_file(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Distances between two models")


def test_the_command_starts_without_transformers(tiny_base, tiny_pivot, tmp_path):
    code = (
        "import sys; from patientdx.cli.compare import main; code = main(sys.argv[1:]); "
        "print([name for name in ('transformers', 'accelerate') if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *overrides(tiny_base, tiny_pivot, tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""  # no bar where there is no terminal
