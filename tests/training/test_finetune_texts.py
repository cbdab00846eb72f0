"""Which records are drawn, and when each is shown."""

import random

import pytest

from patientdx.training.texts import Text, digest, drawn, order, text

UIDS = [f"stay-{i}" for i in range(90)]
LABELS = [int(i % 9 == 0) for i in range(90)]


def test_the_loss_is_of_the_answer_or_of_the_whole_record():
    assert text((5, 6, 7), 9, "answer") == Text((5, 6, 7, 9), 3)
    assert text((5, 6, 7), 9, "record") == Text((5, 6, 7, 9), 1)


def test_draws_are_nested_and_hold_both_outcomes_in_proportion():
    all_of_them = drawn(UIDS, LABELS, seed=0)
    assert sorted(all_of_them) == list(range(90))
    for k in (9, 18, 36, 90):
        assert sum(LABELS[i] for i in all_of_them[:k]) == pytest.approx(k / 9, abs=1)


def test_a_draw_hangs_on_uid_and_seed_and_not_on_the_order_of_rows():
    first = [UIDS[i] for i in drawn(UIDS, LABELS, seed=0)]
    pairs = list(zip(UIDS, LABELS, strict=True))
    random.Random(1).shuffle(pairs)
    uids, labels = zip(*pairs, strict=True)
    assert [uids[i] for i in drawn(uids, labels, seed=0)] == first
    assert [UIDS[i] for i in drawn(UIDS, LABELS, seed=1)] != first


def test_every_pass_shows_every_text_once_and_in_an_order_of_its_own():
    shown = order(5, 2, 0, epochs=3, steps=None)
    passes = [shown[:5], shown[5:10], shown[10:]]
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert passes[0] != passes[1]
    assert shown == order(5, 2, 0, epochs=3, steps=None)
    assert shown != order(5, 2, 1, epochs=3, steps=None)


def test_a_part_of_a_pass_and_a_number_of_steps_are_taken_at_their_word():
    assert len(order(10, 4, 0, epochs=0.5, steps=None)) == 5
    assert len(order(3, 4, 0, epochs=1, steps=5)) == 20
    assert order(10, 4, 0, epochs=9, steps=2) == order(10, 4, 0, epochs=1, steps=None)[:8]


def test_the_digest_knows_tokens_places_and_order():
    one, other = Text((1, 2, 3), 1), Text((4, 5), 1)
    found = {digest(texts) for texts in ([one, other], [other, one], [one], [Text((1, 2, 3), 2), other], [one, one])}
    assert len(found) == 5


def test_an_answer_may_have_several_tokens():
    assert text((5, 6, 7), (9, 8, 2), "answer") == Text((5, 6, 7, 9, 8, 2), 3)
    assert text((5, 6, 7), (9, 8, 2), "record") == Text((5, 6, 7, 9, 8, 2), 1)
