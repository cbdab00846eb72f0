import re

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.privacy.resample import resampled

DRUGS = ["Aspirin", "Fentanyl", "Heparin", "Insulin", "Morphine", "Propofol"]


def records(n=60, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        age, rate, sodium = random.integers(20, 90), random.integers(50, 130), random.integers(120, 160)
        drugs = ", ".join(drug for drug in DRUGS if random.random() < 0.5) or "none"
        lines = [f"Age {age}, {random.choice(['male', 'female'])}.", f"Heart rate {rate} (60-100) bpm"]
        lines += [f"Sodium {sodium} (135-145) mmol/L"] * int(random.random() < 0.7)
        found.append("\n".join([*lines, f"Drugs: {drugs}"]))
    return found


def test_fresh_records_have_the_form_of_the_given_ones_and_are_none_of_them():
    given = records()
    found = resampled(given, 200)
    assert len(found) == 200
    assert not set(found) & set(given)
    form = r"Age \d+, (fe)?male\.\nHeart rate \d+ \(60-100\) bpm\n(Sodium \d+ \(135-145\) mmol/L\n)?Drugs(: [\w, ]+)?"
    assert all(re.fullmatch(form, one) for one in found)


def test_numbers_come_from_many_records_each_on_its_own():
    given = records()
    pairs = {tuple(re.findall(r"Age (\d+).*?rate (\d+)", text, re.DOTALL)) for text in given}
    found = [tuple(re.findall(r"Age (\d+).*?rate (\d+)", text, re.DOTALL)) for text in resampled(given, 200)]
    assert {age for ((age, _),) in found} <= {age for ((age, _),) in pairs}
    assert np.mean([one in pairs for one in found]) < 0.1


def test_what_few_records_say_never_comes_back():
    given = [*records(), *(text.replace("Drugs: ", "Drugs: Raremab, ") for text in records(4, seed=9))]
    assert "Raremab" not in "".join(resampled(given, 300))


def test_the_draws_come_from_the_seed_and_not_from_the_order():
    given = records()
    assert resampled(given, 20, seed=3) == resampled(given[::-1], 20, seed=3)
    assert resampled(given, 20, seed=3) != resampled(given, 20, seed=4)


def test_texts_that_do_not_fall_apart_are_refused():
    random = np.random.default_rng(0)
    one_line = [" ".join(random.choice(list("abcdefgh"), 12)) for _ in range(20)]
    with pytest.raises(UserError, match="do not fall apart into pieces"):
        resampled(one_line, 5)
    with pytest.raises(UserError, match="0 records do not fall apart"):
        resampled([], 5)
    with pytest.raises(UserError, match="so alike that no fresh ones"):
        resampled(["Age 5"] * 9, 5)
