"""What the leakage statistics cannot be computed from, with the reason."""

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.privacy.blind import blind_scores
from patientdx.privacy.canaries import canaries
from patientdx.privacy.lira import halves, lira
from patientdx.privacy.neighbours import neighbours
from patientdx.privacy.resample import resampled
from patientdx.privacy.sides import sides

RANDOM = np.random.default_rng(0)
ONE_LINE = [" ".join(RANDOM.choice(list("abcdefgh"), 12)) for _ in range(20)]
TEXTS, PATIENTS = ["a b", "c", "a  b", "d", "e", "c"], ["1", "2", "3", "4", "5", "6"]
FEW = [str(i) for i in range(10)] + [str(i % 4) for i in range(10)]
COPIES = "numbers of copies are integers of at least 1"
ERRORS = [
    (lambda: canaries((0,), 1), COPIES),
    (lambda: canaries((1, -4), 1), COPIES),
    (lambda: canaries((True,), 1), COPIES),
    (lambda: canaries((1,), 0), COPIES),
    (lambda: blind_scores(["a"] * 20, [1] * 20, [0] * 10 + [1] * 10, FEW), "one side has 4 patients"),
    (lambda: halves(["a"], 3), "at least 4 shadow models"),
    (lambda: lira([0.0], [[1.0], [2.0]], [[1], [0]]), "has 1 shadow models that were trained without it"),
    (lambda: neighbours("Age 5", {}, 1, share=0), "share=0 of the words exchanged is not valid"),
    (lambda: neighbours("...", {}, 1), "without words or numbers"),
    (lambda: resampled(ONE_LINE, 5), "do not split into pieces"),
    (lambda: resampled([], 5), "0 records do not split"),
    (lambda: resampled(["Age 5"] * 9, 5), "so alike that no fresh ones"),
    (lambda: sides(TEXTS, PATIENTS, [], [1]), "has no members"),
    (lambda: sides(TEXTS, PATIENTS, [1], []), "has no non-members"),
    (lambda: sides(TEXTS, PATIENTS, [1, 3], [3, 1]), "are the same 2 records"),
    (lambda: sides(TEXTS, PATIENTS, [0], [2]), "every record of one side is on the other too"),
    (lambda: sides(TEXTS, ["1", "2", "3", "4", "1", "6"], [0, 1], [3, 4]), "1 patients have records among members and"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_cannot_be_computed_is_an_error_with_the_reason(call, message):
    with pytest.raises(UserError, match=message):
        call()
