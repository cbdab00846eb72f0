"""λ found on the pilot split, before the run itself: a strategy asks, the live model answers, and all of it is kept.

Full pilot scores are kept under the keys that a sweep gives them, and scores of some rows beside those: a search that
is started again, or after a sweep, works nothing out twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from patientdx.checkpoints.identity import content_hash
from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.functions import Call, dotted
from patientdx.evaluation import session
from patientdx.evaluation.config.privacy import Request
from patientdx.evaluation.config.search import CHOSEN_ON
from patientdx.evaluation.config.settings import Settings
from patientdx.evaluation.inference import Timer, answer, batch_tokens, kept
from patientdx.evaluation.plan import Plan, plan
from patientdx.evaluation.store import Store, fingerprint
from patientdx.lm.binary import Scores
from patientdx.merge.schedule import label
from patientdx.selection.pilot import Candidate, Choice, Pilot
from patientdx.selection.trials import Rows, plain, record

Answers = Callable[[Candidate, NDArray[np.int64]], NDArray[np.float64]]


def search(settings: Settings, clock: Timer) -> Settings:
    """The settings with the λ that was found, and numbers of the method where they were searched; `search.record` says
    how.

    λ is chosen on the pilot split alone; what was chosen is then scored on the reported split. All processes take part:
    the strategy runs in the first, and the others score their share of what it asks. Raises UserError in every process.
    """
    asked = distributed.run_on_all_ranks(lambda: _asked(settings, Candidate(settings.weight), CHOSEN_ON))
    first = session.accelerator(settings.device).is_main_process
    answers = partial(_answers, settings, clock)
    with tqdm(desc=f"search={settings.search.name}", unit="forward", disable=None if first else True) as bar:
        pilot = _pilot(settings, asked, answers, bar)
        choice = _led(settings, pilot) if first else _followed(answers)
    clock.lap("search")
    ends = {one: _reported(settings, one, clock) for one in (choice.chosen, choice.single) if one is not None}
    write = partial(
        record, settings.search, settings.metrics[0], pilot, choice, ends, settings.reported, **settings.draws
    )
    found = distributed.broadcast(distributed.run_on_all_ranks(lambda: write() if first else None))
    clock.lap("search")
    chosen = _at(settings, choice.chosen)
    composed = settings.composed | {"lambda": plain(choice.chosen.weight)}
    composed["merge"] = composed["merge"] | dict(choice.chosen.parameters)
    return replace(chosen, composed=composed, search=replace(settings.search, record=found))


def _at(settings: Settings, candidate: Candidate) -> Settings:
    """The settings of one candidate's model."""
    merge = settings.merge
    if candidate.parameters:
        merge = Call(merge.target, json.dumps(dict(sorted((merge.given | dict(candidate.parameters)).items()))))
    return replace(settings, weight=candidate.weight, merge=merge)


def _asked(settings: Settings, candidate: Candidate, split: str) -> Plan:
    """The plan of one candidate, alone, on one split."""
    alone = {"splits": (split,), "parents": False, "baselines": (), "probes": False, "clinical": False}
    nothing = {"finetune": None, "privacy": Request(), "search": None}
    return plan(replace(_at(settings, candidate), **alone, **nothing))


def _pilot(settings: Settings, asked: Plan, answers: Answers, bar: tqdm) -> Pilot:
    """The pilot split as a strategy sees it; all processes answer its questions, this one asks."""
    examples = [asked.data.examples[i] for i in asked.rows[CHOSEN_ON]]

    def score(candidate: Candidate, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        distributed.broadcast(("score", candidate, rows))
        found = answers(candidate, rows)
        bar.update(rows.size)
        return Scores(found).probability

    return Pilot(
        [example.label for example in examples],
        [example.subject for example in examples],
        dotted(settings.metrics[0][1]),
        score,
        low=settings.search.low,
        high=settings.search.high,
        cache=settings.cache,
        data=asked.data.fingerprint,
        key=_but_for_weight(settings, asked),
        task=asked.data.provenance,
    )


def _but_for_weight(settings: Settings, asked: Plan) -> str:
    """Fingerprint of all that the pilot scores of any λ depend on."""
    origin = asked.opened.ancestor
    return fingerprint(
        {"data": asked.data.fingerprint, "tokens": asked.tokens.fingerprint, "dtype": settings.dtype,
         "parents": list(asked.opened.hashes), "merge": [settings.merge.target, settings.merge.arguments],
         "ancestor": None if origin is None else content_hash(origin, settings.cache), "seed": settings.seed,
         "tokenizer": settings.tokenizer}
    )  # fmt: skip


def _led(settings: Settings, pilot: Pilot) -> Choice:
    """The strategy's choice, in the first process; the others hear how it ended."""
    strategy = settings.search
    seeded = {"seed": settings.seed} if strategy.seeded else {}
    try:
        choice = strategy.call.function(pilot, **strategy.call.given, **seeded)
    except Exception as fault:
        distributed.broadcast(("failed", str(fault), None))
        raise
    distributed.broadcast(("chosen", choice, None))
    return choice


def _followed(answers: Answers) -> Choice:
    """The same in every other process, which scores its share until the first is done."""
    own: Exception | None = None
    while True:
        word, value, rows = distributed.broadcast(None)
        if word == "chosen":
            return value
        if word == "failed":
            raise own or UserError(value)
        try:
            answers(value, rows)
        except Exception as fault:  # told to all; the first process ends the search with it
            own = fault


def _answers(settings: Settings, clock: Timer, candidate: Candidate, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(k, options) log masses of the candidate on k pilot rows, by number: what is there is read, the rest scored."""
    asked = distributed.run_on_all_ranks(lambda: _asked(settings, candidate, CHOSEN_ON))
    key, everything = asked.keys["merged", CHOSEN_ON], asked.rows[CHOSEN_ON]
    store, partly = Store(settings.output / "scores"), fingerprint({"partly": asked.keys["merged", CHOSEN_ON]})
    first, n = session.accelerator(settings.device).is_main_process, len(everything)

    def score(places: NDArray[np.int64]) -> NDArray[np.float64]:
        numbers = [everything[i] for i in places]
        said = f"{CHOSEN_ON} λ={label(candidate.weight)}"
        return answer(settings, asked.points[0], asked.tokens, numbers, said, clock)

    def there() -> NDArray[np.float64] | None:
        whole = store.load(key, n)
        return store.load(partly, n) if whole is None else whole

    known = distributed.broadcast(there() if first else None)
    missing = rows if known is None else rows[np.isnan(known[rows]).any(axis=1)]
    if missing.size == n:
        return kept(settings, key, n, lambda: score(missing)).option
    if missing.size:
        known = np.full((n, len(asked.tokens.options)), np.nan) if known is None else known
        known[missing] = score(missing)
        # Prompts that share a batch share its rounding: only one by one do parts make the very same whole.
        whole = batch_tokens(settings) == 1 and not np.isnan(known).any()

        def put() -> None:
            store.save(key if whole else partly, known)
            if whole:
                store.path(partly).unlink(missing_ok=True)

        distributed.run_on_all_ranks(lambda: put() if first else None)
    return known[rows]


def _reported(settings: Settings, candidate: Candidate, clock: Timer) -> Rows:
    """Probabilities of the candidate on the reported split, with labels and subjects; kept as the run's own are."""
    asked = distributed.run_on_all_ranks(lambda: _asked(settings, candidate, settings.reported))
    rows = asked.rows[settings.reported]
    point, said = asked.points[0], f"{settings.reported} λ={label(candidate.weight)}"
    make = partial(answer, settings, point, asked.tokens, rows, said, clock)
    scores = kept(settings, asked.keys["merged", settings.reported], len(rows), make)
    examples = [asked.data.examples[i] for i in rows]
    labels = np.array([example.label for example in examples])
    return Rows(scores.probability, labels, [example.subject for example in examples])
