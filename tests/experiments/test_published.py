"""paper.yaml: what was published, and how it is shown."""

import pytest
import yaml

from experiments.published import ABSENT, MARKS, PAPER, published
from patientdx.core.errors import UserError

BLOCKS = yaml.safe_load(PAPER.read_text())


@pytest.mark.parametrize("stem", BLOCKS)
def test_every_number_has_a_source_and_every_gap_says_so(stem):
    block = published(stem)
    assert "arXiv" in block.paper
    for cell in block.cells.values():
        assert cell.mark in MARKS
        assert (cell.text == ABSENT) == (cell.value is None)
        assert cell.unit in cell.text or cell.value is None


def test_numbers_as_a_reader_meets_them():
    cells = published("lambda_curve").cells
    assert cells["slerp_gain"].text == "up to 7 % AUROC"
    assert cells["slerp_over_linear"].text == "9 to 17.4 % AUROC"
    assert cells["base"].text == "not recovered"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, "a number needs a source"),
        ({"value": None}, "a number needs a source and a mark other than U"),
        ({"mark": "X"}, "mark X does not exist; it is one of V, S, U"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_cell_that_says_too_much_or_too_little_is_refused(tmp_path, change, message):
    cell = {"value": 7, "unit": "%", "mark": "V", "source": "abstract", "conflict": None, "direction": 1} | change
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump({"x": {"paper": "p", "setting": "s", "numbers": {"gain": cell}}}))
    with pytest.raises(UserError, match=message) as caught:
        published("x", path)
    assert "paper.yaml, x.gain" in str(caught.value)


def test_an_unknown_stem_is_refused():
    with pytest.raises(UserError, match=r"paper.yaml has no block tabel; it has .*lambda_curve"):
        published("tabel")
