import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patientdx.core.errors import UserError
from patientdx.records.splits import check_splits, checked_fractions, divided, position, split_of

SHARES = {"train": 0.3, "pilot": 0.3, "test": 0.4}


def test_a_patient_s_split_is_the_same_everywhere_and_always():
    # Written down once: another process, machine or version must give these very splits.
    splits = [split_of(10_000_000 + n, seed=0, fractions=SHARES) for n in range(12)]
    assert splits == [
        "test", "test", "pilot", "train", "pilot", "test", "test", "test", "test", "test", "test", "train",
    ]  # fmt: skip
    digest = hashlib.sha256(b"split:0:10000000").hexdigest()
    assert position("split", 0, 10_000_000) == int(digest[:16], 16) / 16**16


def test_shares_are_kept_and_seeds_differ():
    subjects = range(20_000)
    for seed in (0, 1):
        splits = [split_of(subject, seed=seed, fractions=SHARES) for subject in subjects]
        for name, share in SHARES.items():
            assert abs(splits.count(name) / len(splits) - share) < 0.01
    pairs = {(split_of(s, seed=0, fractions=SHARES), split_of(s, seed=1, fractions=SHARES)) for s in subjects}
    assert len(pairs) == 9


@given(st.integers(), st.sampled_from([(0.0, 0.5, 0.5), (0.0, 0.0, 1.0), (1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0)]))
def test_an_empty_share_gets_no_patient(subject, parts_of):
    fractions = checked_fractions(dict(zip(SHARES, parts_of, strict=True)))
    assert fractions[split_of(subject, seed=0, fractions=fractions)] > 0


@given(st.integers(0, 10**9), st.floats(0.05, 0.45), st.floats(0.0, 0.05))
def test_a_larger_first_share_only_moves_patients_into_it(subject, share, more):
    small = split_of(subject, seed=0, fractions=checked_fractions({"train": share, "test": 1 - share}))
    large = split_of(subject, seed=0, fractions=checked_fractions({"train": share + more, "test": 1 - share - more}))
    assert large == small or large == "train"


# (subject, label) of stays numbered on: few subjects, so that most have several.
STAYS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=60).map(
    lambda pairs: [(number, subject, label) for number, (subject, label) in enumerate(pairs)]
)


@given(STAYS, st.integers(0, 10**6), st.sampled_from([(0.3, 0.3, 0.4), (0.0, 0.5, 0.5), (0.8, 0.1, 0.1)]))
def test_a_split_by_patient_never_parts_a_patient_s_stays(stays, seed, parts_of):
    fractions = checked_fractions(dict(zip(SHARES, parts_of, strict=True)))
    rows = divided(stays, by="patient", seed=seed, fractions=fractions, limit=None)
    assert sorted(row[:3] for row in rows) == stays
    splits = {}
    for _, subject, _, part in rows:
        splits.setdefault(subject, set()).add(part)
    assert all(len(parts) == 1 for parts in splits.values())


@given(STAYS, st.integers(0, 10**6), st.integers(1, 20), st.sampled_from(["patient", "stay"]), st.randoms())
def test_neither_the_order_of_rows_nor_a_limit_moves_a_stay(stays, seed, limit, by, random):
    rows = divided(stays, by=by, seed=seed, fractions=SHARES, limit=None)
    mixed = random.sample(stays, len(stays))
    assert divided(mixed, by=by, seed=seed, fractions=SHARES, limit=None) == rows
    few = divided(mixed, by=by, seed=seed, fractions=SHARES, limit=limit)
    for name in SHARES:
        assert [row for row in few if row[3] == name] == [row for row in rows if row[3] == name][:limit]


def test_a_split_by_stay_parts_a_patient_s_stays():
    rows = divided([(stay, 7, 0) for stay in range(50)], by="stay", seed=0, fractions=SHARES, limit=None)
    assert {part for *_, part in rows} == set(SHARES)


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.5, "pilot": 0.4},
        {"train": 1.5, "test": -0.5},
        {"training": 1.0},
        {"test": "1"},
        {"test": True},
    ],
)
def test_shares_that_make_no_split_are_refused(fractions):
    with pytest.raises(UserError) as refused:
        checked_fractions(fractions)
    assert str(refused.value) == (
        f"task.fractions={fractions}: the shares of train, pilot, test must each lie in [0, 1] and add up to 1."
    )


def test_a_scored_split_without_both_outcomes_is_refused_with_counts():
    rows = [("train", 0), ("pilot", 0), ("pilot", 0), ("test", 1)]
    with pytest.raises(UserError) as refused:
        check_splits(rows)
    assert str(refused.value) == (
        "AUROC needs both outcomes in every scored split: pilot has 0 positives and 2 negatives; "
        "test has 1 positives and 0 negatives. "
        "Use more stays, another seed, other task.fractions, or a larger task.limit."
    )
    check_splits([*rows, ("pilot", 1), ("test", 0)])
