import re

from patientdx.privacy.neighbours import neighbours, vocabulary

TEXT = "Heart rate 72 (60-100) bpm\nLactate 2.4 mmol/L. Drugs: Fentanyl, Heparin"


def parts(text):
    return re.findall(r"\d+|[^\W\d_]+", text)


def test_a_neighbour_differs_in_the_share_asked_for_and_nowhere_else():
    words = vocabulary([TEXT, "Drugs: Morphine 7"])
    result = neighbours(TEXT, words, 20, share=0.25)
    for other in result:
        assert re.sub(r"\d+|[^\W\d_]+", "*", other) == re.sub(r"\d+|[^\W\d_]+", "*", TEXT)
        changed = [(a, b) for a, b in zip(parts(TEXT), parts(other), strict=True) if a != b]
        assert len(changed) == 4  # a quarter of 15 parts
        for old, new in changed:
            assert old.isdigit() == new.isdigit()
            assert (len(old) == len(new) and new[0] != "0") if len(old) > 1 and old.isdigit() else new
    assert len(set(result)) > 10


def test_a_raised_figure_is_a_word():
    """No number can be read from it, though Python calls it a digit."""
    result = neighbours("White cells 12 10³/µL", vocabulary(["White cells 12 10³/µL", "Platelets 200 10³/µL"]), 30)
    assert len(set(result)) > 5


def test_neighbours_come_from_the_seed_and_the_text_alone():
    words = vocabulary([TEXT])
    assert neighbours(TEXT, words, 3, seed=1) == neighbours(TEXT, words, 3, seed=1)
    assert neighbours(TEXT, words, 3, seed=1) != neighbours(TEXT, words, 3, seed=2)


def test_every_other_number_of_as_many_digits_is_drawn():
    assert set(neighbours("5", {}, 400)) == set("012346789")


def test_the_vocabulary_counts_words_and_no_numbers():
    assert vocabulary(["b 7 a", "a 7.5"]) == {"a": 2, "b": 1}
