"""The examination of a pivot on a tiny model: every part of the questions, the angle, and the card."""

import json
import math

import pytest
import torch

from experiments import pivot_card
from experiments.low_rank import write_adapter
from patientdx.checkpoints.reader import Checkpoint
from patientdx.tasks import biomedical_generator, numeric_generator

LOG = "step,stage,loss,accuracy,answers,tokens,seconds\n0,0,0.7,0.5,10,100,1\n1,0,0.6,0.6,10,200,2\n"


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """An adapter that turns one matrix by a known angle: a change of its own norm at a right angle to it."""
    base = Checkpoint(tiny_base)
    name = next(n for n, h in base.tensors.items() if n.endswith("q_proj.weight"))
    matrix = base.read(name).float()
    difference = torch.outer(torch.randn(matrix.shape[0]), torch.randn(matrix.shape[1]))
    difference -= matrix * (difference * matrix).sum() / matrix.square().sum()
    u, s, vt = torch.linalg.svd(difference * matrix.norm() / difference.norm(), full_matrices=False)
    write_adapter({name: (s[:, None] * vt, u)}, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("pivot", "generator", "parts"),
    [("numeric", numeric_generator, ["intervals", "brief"]), ("biomedical", biomedical_generator, ["new_both"])],
)
def test_the_card_has_every_kind_of_every_part(tiny_base, adapter, tmp_path, capsys, pivot, generator, parts):
    work = tmp_path / "work"
    work.mkdir()
    for stage in ("full", "cut"):
        (work / f"{stage}.csv").write_text(LOG)
    words = [
        "--pivot",
        pivot,
        "--adapter",
        str(adapter),
        "--source",
        str(tiny_base),
        "--cache",
        str(tmp_path / "cache"),
    ]
    words += ["--per-kind", "4", "--lambdas", "0", "1", "--seed", "9", "--parts", *parts]
    assert pivot_card.main([*words, "--card", "--work", str(work)]) == 0
    printed = capsys.readouterr().out
    measured = json.loads((adapter / "evaluation.json").read_text())
    assert measured["questions"] == f"{pivot}, version {generator.VERSION}"
    assert measured["seed"] == 9
    assert list(measured["parts"]) == parts
    assert measured["angle_degrees"]["tensors"] == 1
    assert math.isclose(measured["angle_degrees"]["largest"], 45, abs_tol=0.5)
    assert "angle between base and pivot: median 4" in printed
    for rows in measured["parts"].values():
        assert [row["lambda"] for row in rows] == [0, 1]
        for row in rows:
            assert row["questions"] == 4 * len(generator.KINDS)
            by_kind = [row[kind] for kind in generator.KINDS]
            assert math.isclose(row["accuracy"], sum(by_kind) / len(by_kind))
            assert 0 <= row["option_mass"] <= 1
        assert pivot_card.card(rows) in printed
    assert (adapter / "loss.png").stat().st_size > 1000


def test_what_is_not_there_is_refused(tmp_path, capsys):
    for words, message in (
        (["--pivot", "numeric", "--parts", "narrative"], "--parts narrative: choose from intervals, brief"),
        (["--adapter", str(tmp_path)], "holds no adapter: give its folder by --adapter"),
    ):
        with pytest.raises(SystemExit):
            pivot_card.main(words)
        assert message in capsys.readouterr().err
