import pytest

from patientdx.core.errors import UserError
from patientdx.privacy.sides import sides

TEXTS = ["a b", "c", "a  b", "d", "e", "c"]
PATIENTS = ["1", "2", "3", "4", "5", "6"]


def test_texts_that_stand_on_both_sides_are_taken_out_of_both_and_counted():
    found = sides(TEXTS, PATIENTS, [0, 1, 3], [2, 4, 5])
    assert found.rows.tolist() == [3, 4]
    assert found.member.tolist() == [True, False]
    assert found.duplicates == 4


def test_a_text_twice_on_one_side_stays():
    found = sides(["a", "a", "b"], ["1", "2", "3"], [0, 1], [2])
    assert (found.rows.tolist(), found.duplicates) == ([0, 1, 2], 0)


@pytest.mark.parametrize(
    ("members", "others", "words"),
    [
        ([], [1], "found no members"),
        ([1], [], "found no non-members"),
        ([1, 3], [3, 1], "are the same 2 records"),
        ([0], [2], "every record of one side stands on the other too"),
    ],
)
def test_sides_that_tell_nothing_are_refused(members, others, words):
    with pytest.raises(UserError, match=words):
        sides(TEXTS, PATIENTS, members, others)


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(UserError, match="1 patients have records among members and non-members"):
        sides(TEXTS, ["1", "2", "3", "4", "1", "6"], [0, 1], [3, 4])
