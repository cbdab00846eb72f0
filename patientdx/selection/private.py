"""λ chosen with differential privacy: the exponential mechanism on the pilot's AUROC. `search=private`

The weights of a merge are a function of public parents and of λ, so all that a patient of the pilot can have left in
them is the choice of λ. Here that choice is ε-differentially private, δ = 0: for every λ of the grid, and every pilot
D' that is D with one patient more or less (all stays),

    P(λ | D)  ≤  exp(ε) P(λ | D').

A patient exchanged for another is one less and one more: exp(2ε).

**Why not the AUROC itself.** Let the pilot have P stays with the event, Q without, n = P + Q. A patient with e and f of
them is in all pairs but (P - e)(Q - f), so that taking the patient away moves the AUROC by at most
1 - (1 - e/P)(1 - f/Q) (`auroc_moves`), and this is reached. It is 1 for a patient who has all events: the AUROC has no
bound that holds for every pilot, and one that presumes so many events is void where they are missing.

**The utility** is the number of rightly ordered pairs per stay, ties counting one half:

    u = W / n = AUROC · P · Q / n.

On one pilot it orders the candidates as the AUROC does; where events are few it flattens by itself.

**What a patient can do to it.** One more event adds w pairs, 0 ≤ w ≤ Q, to W, 0 ≤ W ≤ P Q, and u moves by

    (W + w) / (n + 1) - W / n  =  (n w - W) / (n (n + 1)),

for one candidate by at most Q / (n + 1), for another by no less than -P Q / (n (n + 1)). What two candidates can be
moved apart is the difference, (n² - P²) / (n² + n) < 1; likewise (n² - Q²) / (n² + n) < 1 for one more non-event. A
patient has at most `max_stays` = m stays, added one after the other, and moves two candidates apart by less than m,
whatever the pilot; `moves_apart` has the exact value for given P, Q, e and f. The mechanism

    P(λ) ∝ exp(ε u(λ) / m)

needs no more. With a(λ) the move from D to D', P(λ | D') / P(λ | D) is exp(ε a(λ) / m) over the mean of the same
exponential under P(· | D). That mean lies between its smallest and its largest value, so the ratio is within exp(±ε)
(bounded range: Durfee and Rogers 2019; Dong, Durfee and Rogers 2020. The proof of McSherry and Talwar 2007 asks for
twice the largest move of one candidate).

**What is public**: the parents, the grid, ε, m, the task's settings. **What is assumed**: a stay's score depends on
the model and on that stay alone, but for the rounding of float arithmetic (batches, and the prompts' common
beginning, worked out once for all); nobody times the draw. Cohort tables, test metrics and all else that a run prints
are exact and not covered: what is covered is λ, and so the weights.

**The randomness** is the operating system's, and then the same command cannot give the same λ by itself: the draw is
remembered in the cache (`private_search`), so that the command started again finds it and spends no second ε; where it
was deleted there, the next draw is another one and adds to the account (`patientdx.privacy.ledger`). A λ that
was drawn from a seed (`draw_seed`) can be drawn again anywhere, for research. Who knows the seed can rule pilots out:
it is no release, and is marked as none.

**The draw** is exact: utilities are fractions of whole numbers, and a candidate is accepted with probability
exp(-fraction) by whole random numbers alone (Canonne, Kamath and Steinke 2020, algorithm 1). Floating-point
exponentials would give other probabilities than those proved, where an attacker can look for them (Mironov 2012).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.core.cache import write_json
from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.core.paths import plain_name
from patientdx.metrics.ranking import auroc
from patientdx.privacy import ledger
from patientdx.selection.pilot import Candidate, Choice, Pilot, Trial, candidates, point_errors

log = logging.getLogger(__name__)

RELEASES_SCORES = False  # nothing of the pilot but λ may be released: see patientdx.selection.pilot
FOLDER = "private_search"  # in the cache


def private(
    pilot: Pilot,
    *,
    points: Sequence[float],
    epsilon: float,
    max_stays: int = 1,
    draw_seed: int | None = None,
    hospital: str | None = None,
    budget_epsilon: float | None = None,
) -> Choice:
    """λ of the grid `points`, drawn with probability ∝ exp(ε u / max_stays); see the module.

    epsilon: of this draw; draws from the same hospital add up to `epsilon_spent`. max_stays: so many
    stays of a patient count, the others are not looked at. draw_seed: None for the system's randomness. hospital: its
    declared name, under which draws add up whatever its tables; None: by their content. budget_epsilon: what they may
    add up to. Raises UserError where a patient of the pilot may change the score of another's stay, or which stays
    there are, and before scoring where the draw would exceed the budget.
    """
    _check_rows(pilot)
    grid = candidates(points)
    draw_by = "system" if draw_seed is None else "seed"
    released = {"mechanism": "exponential", "utility": "rightly ordered pairs per stay", "epsilon": float(epsilon),
                "delta": 0.0, "neighbours": "one patient more or less, all stays", "max_stays": max_stays,
                "sensitivity": max_stays, "draw": draw_by, "guaranteed": draw_seed is None,
                "loss_bound": loss_bound(len(grid), float(epsilon), max_stays)}  # fmt: skip
    request = {"pilot": pilot.key, "points": list(points), "seed": draw_seed} | released

    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    file = _cache_of(pilot) / FOLDER / f"{name}.json"
    spending = ledger.Draw(hospital, _tables(pilot), float(epsilon), guaranteed=draw_seed is None)
    if not file.exists():
        with ledger.ledger_locked():  # a ledger that cannot be used ends the command before anything is scored
            ledger.check_budget(spending, budget_epsilon)
        rows = first_stays(pilot.patient, max_stays)
        label = pilot.events[rows]
        # Without a pair every utility is 0 and each candidate as likely: the search ends as it does with any pilot.
        doubled = [doubled_pairs(pilot.scores(candidate, rows), label) if rows.size else 0 for candidate in grid]
        gammas = exponents(doubled, len(rows), Fraction(str(epsilon)), max_stays)
        # Under the lock, as of several processes only one may draw.
        with ledger.ledger_locked():
            if not file.exists():
                ledger.check_budget(spending, budget_epsilon)
                below = secrets.randbelow if draw_seed is None else random.Random(draw_seed).randrange
                entry = ledger.append(spending)
                file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                drawn = {"entry": entry, "asked": request, "chosen": draw(gammas, below)}
                write_json(file, drawn | {"not for release": _private(grid, doubled, gammas, label)})
    # The file's name depends on every record of the pilot: it is not told.
    log.info("what must not be released of this search is in the cache, in %s", FOLDER)
    drawn = _remembered(file, spending)
    named = {"hospital": hospital, "ledger_entry": drawn["entry"] if spending.guaranteed else None}
    trials = tuple(Trial(candidate, None, 0) for candidate in grid)
    return Choice(grid[drawn["chosen"]], trials, len(grid), released | named | asdict(ledger.account(spending)))


def check(
    low: float,
    high: float,
    merge: Call,
    *,
    points: Any,
    epsilon: Any,
    max_stays: Any = 1,
    draw_seed: Any = None,
    hospital: Any = None,
    budget_epsilon: Any = None,
) -> list[str]:
    """The errors of these numbers for a method whose λ is in [low, high]."""
    errors = point_errors(points, low, high)
    if not _is_positive(epsilon):
        errors.append(
            f"search.epsilon={epsilon}: a private choice needs a number above 0; the smaller, the less a patient can "
            "change it (1 is usual, and 0 would look at nobody). To choose without privacy use search=grid."
        )
    if budget_epsilon is not None and not _is_positive(budget_epsilon):
        errors.append(f"search.budget_epsilon={budget_epsilon}: give a number above 0, or null for no budget.")
    try:
        if hospital is not None:
            plain_name(hospital)
    except UserError as error:
        errors.append(f"search.hospital={hospital}: {error} null tells hospitals apart by their tables.")
    for name, value, least in (("max_stays", max_stays, 1), ("draw_seed", draw_seed, 0)):
        if not (name == "draw_seed" and value is None) and (
            isinstance(value, bool) or not isinstance(value, int) or value < least
        ):
            errors.append(f"search.{name}={value}: give a whole number of at least {least}.")
    return errors


def _is_positive(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < math.inf


def _check_rows(pilot: Pilot) -> None:
    """Refuse what would let one patient change other patients' rows: then more than that patient's stays would move."""
    settings = pilot.task.get("settings", {})
    for key, bad, instead in (
        ("limit", settings.get("limit") is not None, "task.limit=null"),
        ("outliers", settings.get("outliers") == "cohort", "task.outliers=range"),
        ("split_by", settings.get("split_by") == "stay", "task.split_by=patient"),
    ):
        if bad:
            raise UserError(
                f"search=private with task.{key}={settings[key]}: there one patient changes which other stays are in "
                f"the pilot, or what is read of them, and ε would promise too much. Use {instead}, or search=grid."
            )
    if pilot.metric is not auroc:
        raise UserError(
            f"search=private is for the AUROC of binary tasks: its proof is of that metric, and this task is chosen by "
            f"{pilot.metric.__name__}. Use search=grid, or a binary task whose first metric is auroc."
        )


def _tables(pilot: Pilot) -> str:
    """What all pilots of one extract share: the content of its table of stays, of its events, or of its own files."""
    tables, files = pilot.task.get("tables", {}), pilot.task.get("source")
    for name in ("icu/icustays", "meds"):
        if name in tables:
            return tables[name]["sha256"]
    # Another question about the same files is about the same patients.
    return hashlib.sha256(repr(sorted(files.values())).encode()).hexdigest() if isinstance(files, dict) else pilot.data


def _cache_of(pilot: Pilot) -> Path:
    if pilot.cache is None:
        raise ValueError("a private draw needs a cache, where its proof is kept")
    return pilot.cache


def _remembered(file: Path, spending: ledger.Draw) -> dict[str, Any]:
    """The draw in the cache. Its line is then in the ledger under the name that is declared now, too."""
    drawn = json.loads(file.read_text(encoding="utf-8"))
    with ledger.ledger_locked():
        entry = ledger.append(spending, drawn.get("entry"))
        if "entry" not in drawn:  # an earlier version made it
            write_json(file, drawn | {"entry": entry})
    return drawn | {"entry": entry}


def _private(
    grid: Sequence[Candidate], doubled: Sequence[int], gammas: Sequence[Fraction], label: NDArray[np.bool_]
) -> dict[str, Any]:
    """What the mechanism did on this pilot: exact, never to be released beside λ."""
    chance = probabilities(gammas)
    events, others = int(label.sum()), int((~label).sum())
    pairs = 2 * events * others
    values = [pairs_twice / pairs for pairs_twice in doubled] if pairs else []
    best, expected = (max(values), float(chance @ np.array(values))) if values else (None, None)
    return {
        "stays": len(label), "events": events,
        "candidates": [
            {"lambda": candidate.weight, "auroc": value, "probability": float(probability)}
            for candidate, value, probability in zip(grid, values or [None] * len(grid), chance, strict=True)
        ],
        "probability_highest": float(chance.max()), "probability_lowest": float(chance.min()),
        "auroc_best": best, "auroc_expected": expected,
        "auroc_loss": None if best is None or expected is None else best - expected,
    }  # fmt: skip


def doubled_pairs(score: ArrayLike, label: ArrayLike) -> int:
    """Twice the number of (event, non-event) pairs in the right order, ties counting one: a whole number.

    `score` (n,) float, `label` (n,) of 0 and 1. Without one of the classes there is no pair.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label).astype(bool)
    others = np.sort(score[~label])
    below = np.searchsorted(others, score[label], side="left") + np.searchsorted(others, score[label], side="right")
    return int(below.sum())


def moves_apart(events: int, others: int, e: int, f: int) -> Fraction:
    """How far a patient with e events and f other stays moves two candidates' utilities apart at most; reached.

    The patient joins a pilot with `events` and `others`. With k = e + f and n without the patient, u moves by
    (n x - k W) / (n (n + k)), where the new pairs are x of at most eQ + fP + ef.
    """
    n, k = events + others, e + f
    if n == 0:
        return Fraction(e * f, max(k, 1))
    return Fraction(n * (e * others + f * events + e * f) + k * events * others, n * (n + k))


def auroc_moves(events: int, others: int, e: int, f: int) -> Fraction:
    """How far taking a patient with e of the events and f of the other stays away can move one AUROC; reached."""
    return 1 - (1 - Fraction(e, events)) * (1 - Fraction(f, others))


def first_stays(patient: ArrayLike, max_stays: int) -> NDArray[np.int64]:
    """The rows that count, ascending: the first `max_stays` of each patient; `patient` (n,) are codes or names.

    Rows come in an order of the stay's id and the seed alone, so that one patient more changes no other's.
    """
    taken: dict[Any, int] = {}
    rows = []
    for row, code in enumerate(np.asarray(patient).tolist()):
        taken[code] = taken.get(code, 0) + 1
        if taken[code] <= max_stays:
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def exponents(doubled: Sequence[int], stays: int, epsilon: Fraction, max_stays: int) -> list[Fraction]:
    """For each candidate γ = ε (best u - u) / max_stays, exactly; it is drawn with a probability ∝ exp(-γ).

    `doubled` are `doubled_pairs` of the candidates on the same `stays` rows, so that u = doubled / (2 stays).
    """
    best = max(doubled)
    return [epsilon * Fraction(best - pairs, 2 * max(stays, 1) * max_stays) for pairs in doubled]


def probabilities(gammas: Sequence[Fraction]) -> NDArray[np.float64]:
    """The probability of each candidate, float64: to look at; `draw` does not use them."""
    weight = np.exp([-float(gamma) for gamma in gammas])
    return weight / weight.sum()


def draw(gammas: Sequence[Fraction], below: Callable[[int], int]) -> int:
    """A candidate's number, with probability ∝ exp(-γ) exactly. `below(n)`: a whole random number from 0 to n - 1."""
    while True:
        candidate = below(len(gammas))
        if _accepted(gammas[candidate], below):
            return candidate


def _accepted(gamma: Fraction, below: Callable[[int], int]) -> bool:
    """True with probability exp(-γ): the product of those of its whole part's ones and of the rest."""
    ones = math.floor(gamma)
    return all(_one_step(Fraction(1), below) for _ in range(ones)) and _one_step(gamma - ones, below)


def _one_step(gamma: Fraction, below: Callable[[int], int]) -> bool:
    """True with probability exp(-γ), 0 ≤ γ ≤ 1: whether the first failure of tries at γ/1, γ/2, … is an odd one."""
    tries = 1
    while below(gamma.denominator * tries) < gamma.numerator:
        tries += 1
    return tries % 2 == 1


def loss_bound(candidates: int, epsilon: float, max_stays: int) -> float:
    """Expected rightly ordered pairs per stay that the draw costs against the best of the grid, at most: m ln K / ε.

    The draw has the largest mean of u plus (m / ε) times its entropy, and the entropy is at most ln K (Gibbs). It does
    not depend on the pilot; divided by P Q / n² of the pilot's stays and by n it is in AUROC.
    """
    return max_stays * math.log(candidates) / epsilon
