"""Train, pilot and test: by patient, or by stay as in the paper's data."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from patientdx.core.errors import UserError

SPLITS = ("train", "pilot", "test")
SCORED = ("pilot", "test")
WITHHELD = "pilot"  # no check that can end a command counts its rows: a private search ends alike whoever is in it
EXTERNAL = "external"  # the patients of another hospital, or of later years: nothing is fitted or chosen on them
ALL_SPLITS = (*SPLITS, EXTERNAL)
UNITS = ("patient", "stay")
FRACTIONS = MappingProxyType({"train": 0.3, "pilot": 0.3, "test": 0.4})
OF_SOURCE = "as the source has its patients split"
Row = tuple[int, int, int, str]  # stay_id, subject_id, label, split


def position(*key: object, secret: bytes = b"") -> float:
    """A number in [0, 1) that depends on the key alone: not on the process, the machine or other patients.

    secret: what nobody else has; without it, whoever has ids can work their positions out.
    """
    text = ":".join(map(str, key)).encode()
    digest = hashlib.blake2b(text, key=secret).digest() if secret else hashlib.sha256(text).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def checked_fractions(fractions: Mapping[str, float] | None) -> dict[str, float]:
    """The fractions, None: FRACTIONS, in the order train, pilot, test. Raises UserError unless they add up to 1."""
    values = dict(FRACTIONS if fractions is None else fractions)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in values.values())
    if not set(values) <= set(SPLITS) or not numbers or not math.isclose(sum(values.values()), 1, abs_tol=1e-9):
        raise UserError(
            f"task.fractions={values}: the shares of {', '.join(SPLITS)} must each lie in [0, 1] and add up to 1."
        )
    return {name: float(values.get(name, 0)) for name in SPLITS}


def split_of(unit: object, *, seed: int, fractions: Mapping[str, float], secret: bytes = b"") -> str:
    """The split of a patient, and so of all stays of that patient; or the split of a single stay.

    secret: keys the draw of data that are not open: who has ids and the seed could say who is in which split.
    """
    point, edge = position("split", seed, unit, secret=secret), 0.0
    for name, share in fractions.items():
        edge += share
        if share and point < edge:
            return name
    return next(name for name in reversed(list(fractions)) if fractions[name])  # edge short of 1 by a rounding


def divided(
    stays: Iterable[tuple[int, int, int]],
    *,
    by: str,
    seed: int,
    fractions: Mapping[str, float],
    limit: int | None,
    of_patients: Mapping[int, str] | None = None,
    external: Collection[int] = (),
    secret: bytes = b"",
) -> list[Row]:
    """Stays, given as (stay_id, subject_id, label), split after split; within a split in an order by stay and seed.

    `by` is patient or stay: with stay, a patient's stays may be in several splits. `limit` keeps the first so many of
    each split. of_patients: the split of each patient, where the source has splits; none is drawn then. The stays of
    the subjects in `external` are in the split external, whatever else is said. secret: keys the splits and the order
    of data that are not open: rows in an order that ids give are named by it, hashed ids or not.
    """
    parts: dict[str, list[Row]] = {name: [] for name in ALL_SPLITS}
    for stay, subject, label in sorted(stays, key=lambda row: position("order", seed, row[0], secret=secret)):
        if subject in external:
            part = EXTERNAL
        elif of_patients is None:
            part = split_of(subject if by == "patient" else stay, seed=seed, fractions=fractions, secret=secret)
        else:
            part = of_patients[subject]
        parts[part].append((stay, subject, label, part))
    return [row for rows in parts.values() for row in rows[:limit]]


def check_splits(rows: Iterable[tuple[str, int]], scored: Iterable[str] = SCORED) -> None:
    """Raises UserError when a scored split has no positives or no negatives. `rows`: (split, label)."""
    rows, errors = list(rows), []
    for name in scored:
        labels = [label for split, label in rows if split == name]
        positives = sum(labels)
        if positives == 0 or positives == len(labels):
            errors.append(f"{name} has {positives} positives and {len(labels) - positives} negatives")
    if errors:
        raise UserError(
            f"AUROC needs both outcomes in every scored split: {'; '.join(errors)}. "
            "Use more stays, another seed, other task.fractions, or a larger task.limit."
        )
