import re

import numpy as np

from patientdx.privacy.resample import resampled

DRUGS = ["Aspirin", "Fentanyl", "Heparin", "Insulin", "Morphine", "Propofol"]


def records(n=60, seed=0):
    random = np.random.default_rng(seed)
    result = []
    for _ in range(n):
        age, rate, sodium = random.integers(20, 90), random.integers(50, 130), random.integers(120, 160)
        drugs = ", ".join(drug for drug in DRUGS if random.random() < 0.5) or "none"
        lines = [f"Age {age}, {random.choice(['male', 'female'])}.", f"Heart rate {rate} (60-100) bpm"]
        lines += [f"Sodium {sodium} (135-145) mmol/L"] * int(random.random() < 0.7)
        result.append("\n".join([*lines, f"Drugs: {drugs}"]))
    return result


def test_fresh_records_have_the_form_of_the_given_ones_and_are_none_of_them():
    original = records()
    result = resampled(original, 200)
    assert len(result) == 200
    assert not set(result) & set(original)
    form = r"Age \d+, (fe)?male\.\nHeart rate \d+ \(60-100\) bpm\n(Sodium \d+ \(135-145\) mmol/L\n)?Drugs(: [\w, ]+)?"
    assert all(re.fullmatch(form, item) for item in result)


def test_numbers_come_from_many_records_each_on_its_own():
    original = records()
    pairs = {tuple(re.findall(r"Age (\d+).*?rate (\d+)", text, re.DOTALL)) for text in original}
    result = [tuple(re.findall(r"Age (\d+).*?rate (\d+)", text, re.DOTALL)) for text in resampled(original, 200)]
    assert {age for ((age, _),) in result} <= {age for ((age, _),) in pairs}
    assert np.mean([item in pairs for item in result]) < 0.1


def test_what_few_records_say_never_comes_back():
    original = [*records(), *(text.replace("Drugs: ", "Drugs: Raremab, ") for text in records(4, seed=9))]
    assert "Raremab" not in "".join(resampled(original, 300))


def test_the_draws_come_from_the_seed_and_not_from_the_order():
    original = records()
    assert resampled(original, 20, seed=3) == resampled(original[::-1], 20, seed=3)
    assert resampled(original, 20, seed=3) != resampled(original, 20, seed=4)
