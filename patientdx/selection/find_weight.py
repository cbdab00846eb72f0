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
from patientdx.evaluation.config.privacy import PrivacyConfig
from patientdx.evaluation.config.search import CHOSEN_ON
from patientdx.evaluation.config.sections import AnalysesConfig, RunConfig
from patientdx.evaluation.inference import Timer, answer, batch_tokens, kept
from patientdx.evaluation.plan import Plan, plan
from patientdx.evaluation.store import Store, fingerprint
from patientdx.lm.binary import Scores
from patientdx.merge.schedule import label
from patientdx.selection.pilot import Candidate, Choice, Pilot
from patientdx.selection.trials import Rows, plain, record

Answers = Callable[[Candidate, NDArray[np.int64]], NDArray[np.float64]]


def search(config: RunConfig, clock: Timer) -> RunConfig:
    """The settings with the λ that was found, and numbers of the method where they were searched; `search.record` says
    how.

    λ is chosen on the pilot split alone; what was chosen is then scored on the reported split. All processes take part:
    the strategy runs in the first, and the others score their share of what it asks. Raises UserError in every process.
    """
    asked = distributed.run_on_all_ranks(lambda: _asked(config, Candidate(config.weight), CHOSEN_ON))
    first = session.accelerator(config.inference.device).is_main_process
    answers = partial(_answers, config, clock)
    with tqdm(desc=f"search={config.search.name}", unit="forward", disable=None if first else True) as bar:
        pilot = _pilot(config, asked, answers, bar)
        choice = _led(config, pilot) if first else _followed(answers)
    clock.lap("search")
    ends = {one: _reported(config, one, clock) for one in (choice.chosen, choice.single) if one is not None}
    write = partial(
        record,
        config.search,
        config.task.metrics[0],
        pilot,
        choice,
        ends,
        config.inference.reported,
        **config.bootstrap.keywords,
    )
    found = distributed.broadcast(distributed.run_on_all_ranks(lambda: write() if first else None))
    clock.lap("search")
    chosen = _at(config, choice.chosen)
    composed = config.composed | {"lambda": plain(choice.chosen.weight)}
    composed["merge"] = composed["merge"] | dict(choice.chosen.parameters)
    return chosen.model_copy(update={"composed": composed, "search": replace(config.search, record=found)})


def _at(config: RunConfig, candidate: Candidate) -> RunConfig:
    """The settings of one candidate's model."""
    merge = config.merge.spec.call
    if candidate.parameters:
        merge = Call(merge.target, json.dumps(dict(sorted((merge.keywords | dict(candidate.parameters)).items()))))
    return config.with_merge(candidate.weight, call=merge)


def _asked(config: RunConfig, candidate: Candidate, split: str) -> Plan:
    """The plan of one candidate, alone, on one split."""
    chosen = _at(config, candidate)
    alone = {
        "inference": chosen.inference.model_copy(update={"splits": (split,)}),
        "systems": chosen.systems.model_copy(update={"parents": False, "baselines": ()}),
        "analyses": AnalysesConfig(clinical=False, prompt_variants=False, privacy=PrivacyConfig()),
        "finetune": None,
        "search": None,
    }
    return plan(chosen.model_copy(update=alone))


def _pilot(config: RunConfig, asked: Plan, answers: Answers, bar: tqdm) -> Pilot:
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
        dotted(config.task.metrics[0][1]),
        score,
        low=config.search.low,
        high=config.search.high,
        cache=config.cache,
        data=asked.data.fingerprint,
        key=_but_for_weight(config, asked),
        task=asked.data.provenance,
    )


def _but_for_weight(config: RunConfig, asked: Plan) -> str:
    """Fingerprint of all that the pilot scores of any λ depend on."""
    origin = asked.opened.ancestor
    return fingerprint(
        {"data": asked.data.fingerprint, "tokens": asked.tokens.fingerprint, "dtype": config.inference.dtype,
         "parents": list(asked.opened.hashes), "merge": [config.merge.spec.call.target, config.merge.spec.call.arguments],
         "ancestor": None if origin is None else content_hash(origin, config.cache), "seed": config.seed,
         "tokenizer": config.merge.spec.tokenizer}
    )  # fmt: skip


def _led(config: RunConfig, pilot: Pilot) -> Choice:
    """The strategy's choice, in the first process; the others hear how it ended."""
    strategy = config.search
    seeded = {"seed": config.seed} if strategy.seeded else {}
    try:
        choice = strategy.call.function(pilot, **strategy.call.keywords, **seeded)
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


def _answers(config: RunConfig, clock: Timer, candidate: Candidate, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(k, options) log masses of the candidate on k pilot rows, by number: what is there is read, the rest scored."""
    asked = distributed.run_on_all_ranks(lambda: _asked(config, candidate, CHOSEN_ON))
    key, everything = asked.keys["merged", CHOSEN_ON], asked.rows[CHOSEN_ON]
    store, partly = Store(config.output / "scores"), fingerprint({"partly": asked.keys["merged", CHOSEN_ON]})
    first, n = session.accelerator(config.inference.device).is_main_process, len(everything)

    def score(places: NDArray[np.int64]) -> NDArray[np.float64]:
        numbers = [everything[i] for i in places]
        said = f"{CHOSEN_ON} λ={label(candidate.weight)}"
        return answer(config, asked.points[0], asked.tokens, numbers, said, clock)

    def there() -> NDArray[np.float64] | None:
        whole = store.load(key, n)
        return store.load(partly, n) if whole is None else whole

    known = distributed.broadcast(there() if first else None)
    missing = rows if known is None else rows[np.isnan(known[rows]).any(axis=1)]
    if missing.size == n:
        return kept(config, key, n, lambda: score(missing)).option
    if missing.size:
        known = np.full((n, len(asked.tokens.options)), np.nan) if known is None else known
        known[missing] = score(missing)
        # Prompts that share a batch share its rounding: only one by one do parts make the very same whole.
        whole = batch_tokens(config) == 1 and not np.isnan(known).any()

        def put() -> None:
            store.save(key if whole else partly, known)
            if whole:
                store.path(partly).unlink(missing_ok=True)

        distributed.run_on_all_ranks(lambda: put() if first else None)
    return known[rows]


def _reported(config: RunConfig, candidate: Candidate, clock: Timer) -> Rows:
    """Probabilities of the candidate on the reported split, with labels and subjects; kept as the run's own are."""
    asked = distributed.run_on_all_ranks(lambda: _asked(config, candidate, config.inference.reported))
    rows = asked.rows[config.inference.reported]
    point, said = asked.points[0], f"{config.inference.reported} λ={label(candidate.weight)}"
    make = partial(answer, config, point, asked.tokens, rows, said, clock)
    scores = kept(config, asked.keys["merged", config.inference.reported], len(rows), make)
    examples = [asked.data.examples[i] for i in rows]
    labels = np.array([example.label for example in examples])
    return Rows(scores.probability, labels, [example.subject for example in examples])
