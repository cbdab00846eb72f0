"""λ chosen on the pilot split, before the run itself: a strategy asks for scores, the live model gives them.

Complete pilot responses are stored under the keys that a sweep gives them, and responses to some units beside those: a
search that is started again, or after a sweep, computes nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from patientdx.core import distributed
from patientdx.core.errors import UserError
from patientdx.core.functions import Call, dotted
from patientdx.core.progress import progress
from patientdx.evaluation.config.analyses import PrivacyConfig
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.config.search import CHOSEN_ON
from patientdx.evaluation.inference import MERGED, Array, Request, Timer, batch_tokens, cached
from patientdx.evaluation.kinds import Measures
from patientdx.evaluation.language_systems import language_model
from patientdx.evaluation.plan import Plan
from patientdx.evaluation.runner import plan
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import Store, fingerprint
from patientdx.merge.schedule import label
from patientdx.selection.pilot import Candidate, Choice, Pilot
from patientdx.selection.trials import Scored, as_config, record

Units = NDArray[np.int64]
Score = Callable[[Candidate, Units], Array]


@dataclass(frozen=True)
class _Search:
    """What every part of a search needs; `units` are the rows of each unit, as places in the pilot split."""

    session: Session
    config: RunConfig
    timer: Timer
    units: list[list[int]]

    @property
    def is_first(self) -> bool:
        """Whether this is the run's first process."""
        return self.session.accelerator(self.config.inference.device).is_main_process

    def plan(self, candidate: Candidate, split: str) -> Plan:
        """The plan of one candidate, alone, on one split; in every process."""
        return distributed.run_on_all_ranks(lambda: _plan(self.session, self.config, candidate, split))


def search(session: Session, config: RunConfig, timer: Timer | None = None) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration with the chosen λ, and numbers of the method where they were searched; and the search's record.

    λ is chosen on the pilot split alone, by the task's first metric; the choice is then scored on the reported split.
    All processes take part: the strategy runs in the first, and the others compute their shard of what it asks for.
    Raises UserError in every process.
    """
    timer = timer or Timer()
    measured = Timer() if config.withheld else timer  # how long the pilot patients took tells how many they are
    planned = distributed.run_on_all_ranks(lambda: _plan(session, config, Candidate(config.weight or 0.0), CHOSEN_ON))
    state = _Search(session, config, measured, _units(planned))
    score = partial(_score, state)
    show = state.is_first and not config.withheld
    with progress(desc=f"search={config.search_config.name}", unit="forward", show=show) as bar:
        pilot = _pilot(state, planned, score, bar)
        choice = _lead(config, pilot) if state.is_first else _follow(score)
    timer.record("search")
    if config.withheld:
        del timer.seconds["search"]
        state = replace(state, timer=timer)
    ends = {end: _on_reported(state, end) for end in (choice.chosen, choice.single) if end is not None}
    draws = config.bootstrap.keywords
    metric, split = config.task_config.metrics[0], config.inference.reported
    write = partial(record, config.search_config, metric, pilot, choice, ends, split, **draws)
    trials = distributed.broadcast(distributed.run_on_all_ranks(lambda: write() if state.is_first else None))
    timer.record("search")
    return _chosen(config, choice.chosen), trials


def _at(config: RunConfig, candidate: Candidate) -> RunConfig:
    """The configuration of one candidate's model."""
    call = config.merge_config.spec.call
    if candidate.parameters:
        keywords = call.keywords | dict(candidate.parameters)
        call = Call(call.target, json.dumps(dict(sorted(keywords.items()))))
    return config.with_merge(candidate.weight, call=call)


def _chosen(config: RunConfig, candidate: Candidate) -> RunConfig:
    """The same, recorded as it is used."""
    composed = config.composed | {"lambda": as_config(candidate.weight)}
    composed["merge"] = composed["merge"] | dict(candidate.parameters)
    return _at(config, candidate).model_copy(update={"composed": composed})


def _plan(session: Session, config: RunConfig, candidate: Candidate, split: str) -> Plan:
    changes = {
        "systems": config.systems.model_copy(update={"parents": False, "baselines": ()}),
        "analyses": config.analyses.model_copy(
            update={"prompt_variants": False, "clinical": False, "privacy": PrivacyConfig()}
        ),
        "inference": config.inference.model_copy(update={"splits": (split,)}),
        "finetune": None,
        "search": config.search if config.withheld else None,
    }
    return plan(session, _at(config, candidate).model_copy(update=changes))


def _measures(planned: Plan, rows: list[int], responses: Array) -> Measures:
    return planned.context.kind.measures(planned.context, rows, responses)


def _units(planned: Plan) -> list[list[int]]:
    """For each unit of the pilot split, the places of its rows."""
    kind, data, rows = planned.context.kind, planned.data, planned.context.rows[CHOSEN_ON]
    units: dict[Any, list[int]] = {}
    for position, row in enumerate(rows):
        units.setdefault(kind.unit_of(data, row), []).append(position)
    return list(units.values())


def _pilot(state: _Search, planned: Plan, score: Score, bar: tqdm) -> Pilot:
    """The pilot split as a strategy sees it; all processes compute what it asks for, this one leads."""
    config, context = state.config, planned.context
    name, target = config.task_config.metrics[0]
    rows = context.rows[CHOSEN_ON]
    examples = [context.data.examples[rows[unit[0]]] for unit in state.units]
    events = [context.kind.gives_probability and example.label == 1 for example in examples]
    right = np.array(events, dtype=np.float64)  # of other kinds it comes with the responses, the same for all models

    def answers(candidate: Candidate, units: Units) -> Array:
        distributed.broadcast(("score", candidate, units))
        responses = score(candidate, units)
        bar.update(units.size)
        numbers = [rows[index] for unit in units for index in state.units[unit]]
        answer, right[units] = _measures(planned, numbers, responses).values[name]
        return answer

    return Pilot(
        right,
        [example.subject for example in examples],
        dotted(target),
        answers,
        events=events,
        low=config.search_config.low,
        high=config.search_config.high,
        cache=config.cache,
        data=context.data.fingerprint,
        key=_key_without_weight(config, planned),
        task=context.data.provenance,
    )


def _key_without_weight(config: RunConfig, planned: Plan) -> str:
    """Fingerprint of all that the pilot responses of any λ depend on."""
    parents, spec = planned.context.opened, config.merge_config.spec
    return fingerprint(
        {"data": planned.data.fingerprint, "tokens": planned.context.prompts.fingerprint,
         "parents": list(parents.hashes),
         "merge": [spec.call.target, spec.call.arguments],
         "ancestor": parents.ancestor_hash, "seed": config.seed, "tokenizer": spec.tokenizer}
         | config.inference.identity
    )  # fmt: skip


def _lead(config: RunConfig, pilot: Pilot) -> Choice:
    """The strategy's choice, in the first process; the others learn how it ended."""
    strategy = config.search_config
    seeded = {"seed": config.seed} if strategy.seeded else {}
    try:
        choice = strategy.call.function(pilot, **strategy.call.keywords, **seeded)
    except Exception as error:
        distributed.broadcast(("failed", str(error), None))
        raise
    distributed.broadcast(("chosen", choice, None))
    return choice


def _follow(score: Score) -> Choice:
    """The same in every other process, which computes its shard until the first is done."""
    failure: Exception | None = None
    while True:
        message, value, units = distributed.broadcast(None)
        if message == "chosen":
            return value
        if message == "failed":
            raise failure or UserError(value)
        try:
            score(value, units)
        except Exception as error:  # raised in all; the first process ends the search with it
            failure = error


def _score(state: _Search, candidate: Candidate, units: Units) -> Array:
    """The candidate's responses to all rows of some units; what is stored is read, the rest computed."""
    session, config = state.session, state.config
    planned = state.plan(candidate, CHOSEN_ON)
    context, key = planned.context, planned.keys[MERGED, CHOSEN_ON]
    everything, n = context.rows[CHOSEN_ON], len(context.rows[CHOSEN_ON])
    store, key_of_part = Store(config.output / "scores"), fingerprint({"partly": key})
    rows = np.array([index for unit in units for index in state.units[unit]], dtype=np.int64)

    def respond(places: Units, response_key: str | None = None) -> Array:
        numbers, title = [everything[i] for i in places], f"{CHOSEN_ON} λ={label(candidate.weight)}"
        system, prompts = language_model(planned.main), context.prompts
        withheld = config.withheld is not None
        title = "" if withheld else title
        request = Request(
            session, config, context.data, prompts, numbers, system, title, state.timer, response_key, withheld
        )
        return context.kind.respond(request)

    def stored() -> Array | None:
        complete = store.load(key, n)
        return store.load(key_of_part, n) if complete is None else complete

    known = distributed.broadcast(stored() if state.is_first else None)
    missing = rows if known is None else rows[np.isnan(known[rows]).all(axis=1)]
    if missing.size == n:
        return cached(session, config, key, n, lambda: respond(np.arange(n), key))[rows]
    if missing.size:
        responses = respond(missing)
        known = np.full((n, responses.shape[1]), np.nan) if known is None else known
        known[missing] = responses
        # Prompts that share a batch share its rounding: only one by one do parts make the very same array.
        single = batch_tokens(session, config, context.kind.cpu_batch_tokens) == 1
        is_complete = single and not np.isnan(known).all(axis=1).any()

        def save() -> None:
            store.save(key if is_complete else key_of_part, known)
            if is_complete:
                store.path(key_of_part).unlink(missing_ok=True)

        distributed.run_on_all_ranks(lambda: save() if state.is_first else None)
    return np.asarray(known)[rows]


def _on_reported(state: _Search, candidate: Candidate) -> Scored:
    """The candidate on the reported split, by the task's first metric; stored as the run's own responses are."""
    config, split = state.config, state.config.inference.reported
    planned = state.plan(candidate, split)
    context, key = planned.context, planned.keys[MERGED, split]
    responses = planned.main.respond(state.session, config, context, split, key, state.timer)
    measures = _measures(planned, context.rows[split], responses)
    answer, right = measures.values[config.task_config.metrics[0][0]]
    return Scored(answer, right, measures.clusters(context.data).tolist())
