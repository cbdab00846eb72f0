"""The pivots that studies need: scaled differences, and noise of the same size."""

import json
from pathlib import Path

import pytest
import torch
from command_line import composed, parsed
from safetensors.torch import load_file

from experiments import pivots

PREFIX = "base_model.model.layers.0."


@pytest.fixture(scope="module")
def adapter():
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (3, 40, 30), "up": (5, 64, 40)}
    return {
        f"{PREFIX}{name}{end}": torch.randn(size, generator=generator).bfloat16()
        for name, (r, out, into) in shapes.items()
        for end, size in ((pivots._A, (r, into)), (pivots._B, (out, r)))
    }


def change(adapter, name: str) -> torch.Tensor:
    return adapter[f"{PREFIX}{name}{pivots._B}"].double() @ adapter[f"{PREFIX}{name}{pivots._A}"].double()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def test_a_scaled_pivot_is_so_many_times_as_far_in_the_same_direction(adapter):
    found = dict(pivots.made(adapter, 1))
    assert list(found)[:4] == ["numeric_x0.25", "numeric_x1", "numeric_x4", "numeric_x16"]
    for name in ("q", "up"):
        assert torch.equal(change(found["numeric_x1"], name), change(adapter, name))
        assert torch.equal(change(found["numeric_x16"], name), 16 * change(adapter, name))
        assert torch.equal(change(found["noise_x64"], name), 64 * change(found["noise_x1"], name))


@pytest.mark.parametrize("name", ["q", "up"])
def test_noise_has_the_singular_values_of_the_pivot_and_no_direction_of_it(adapter, name):
    noise, own = change(dict(pivots.made(adapter, 1))["noise_x1"], name), change(adapter, name)
    rank = 3 if name == "q" else 5
    values, wanted = torch.linalg.svdvals(noise), torch.linalg.svdvals(own)
    torch.testing.assert_close(values[:rank], wanted[:rank], rtol=0.01, atol=0)
    assert float(values[rank]) < 1e-9 * float(values[0])
    assert abs(cosine(noise, own)) < 0.1


def test_the_same_seed_draws_the_same_noise(adapter):
    one, two, other = (pivots.drawn(adapter, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in adapter)
    assert abs(cosine(change(one, "up"), change(other, "up"))) < 0.1
    assert {tensor.dtype for tensor in one.values()} == {torch.bfloat16}


def test_the_command_writes_adapters_where_the_configs_look(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pivots, "SCALES", {"numeric": (4.0,), "noise": (1.0,)})
    assert pivots.main(["--cache", str(tmp_path)]) == 0
    places = [tmp_path / "pivots" / name for name in ("numeric_x4", "noise_x1")]
    assert capsys.readouterr().out.split() == [str(place) for place in places]
    shipped = load_file(pivots.SHIPPED / "adapter_model.safetensors")
    for place in places:
        written = load_file(place / "adapter_model.safetensors")
        assert {name: one.shape for name, one in written.items()} == {name: one.shape for name, one in shipped.items()}
        config = json.loads((place / "adapter_config.json").read_text())
        assert config["lora_alpha"] == config["r"]  # scale 1, as `made` has it


def test_every_pivot_that_the_configs_look_for_is_made(adapter):
    made = {f"pivots/{name}" for name, _ in pivots.made(adapter, 1)}
    study = composed("experiment=slerp_pairs", return_hydra_config=True)
    names = study.hydra.sweeper.params["pivot_model.name"].split(",")
    asked = [parsed("experiment=slerp_pairs", f"pivot_model.name={name}") for name in names]
    asked.append(parsed("pivot_model=smollm2_135m_noise"))
    cache = asked[0].cache
    found = {Path(one.merge.pivot.adapter).expanduser().relative_to(cache).as_posix() for one in asked}
    assert found <= made
    assert len(found) == len(names)  # the pivot of noise is one of them
