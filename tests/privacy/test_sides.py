from patientdx.privacy.sides import sides

TEXTS = ["a b", "c", "a  b", "d", "e", "c"]
PATIENTS = ["1", "2", "3", "4", "5", "6"]


def test_texts_that_stand_on_both_sides_are_taken_out_of_both_and_counted():
    result = sides(TEXTS, PATIENTS, [0, 1, 3], [2, 4, 5])
    assert result.rows.tolist() == [3, 4]
    assert result.member.tolist() == [True, False]
    assert result.duplicates == 4


def test_a_text_twice_on_one_side_stays():
    result = sides(["a", "a", "b"], ["1", "2", "3"], [0, 1], [2])
    assert (result.rows.tolist(), result.duplicates) == ([0, 1, 2], 0)
