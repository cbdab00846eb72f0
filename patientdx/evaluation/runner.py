"""One run: systems × splits → cached responses → measures → analyses → a result folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from patientdx.core import distributed, plugins
from patientdx.core.errors import UserError
from patientdx.core.locks import exclusive_lock
from patientdx.core.paths import short_name
from patientdx.core.redaction import logs_withheld
from patientdx.evaluation import contamination, results
from patientdx.evaluation.analyses import Analysis, applicable
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.config.section import MERGED
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.kinds import TaskContext, kind_named
from patientdx.evaluation.plan import Plan, Run
from patientdx.evaluation.prompting import prompt_spec, prompts_of
from patientdx.evaluation.results import EvaluationResult, Record
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import fingerprint, make_writable
from patientdx.evaluation.systems import systems_of
from patientdx.merge.schedule import label
from patientdx.metrics.jackknife import INTERVALS
from patientdx.records.splits import ALL_SPLITS


class Publisher(Protocol):
    """Where a finished run is recorded beside its folder: a tracker."""

    def is_done(self, folder: Path) -> bool:
        """Whether the run in this folder is recorded; a process may be killed between the two."""
        ...

    def publish(self, record: Record) -> None:
        """Record a run. Called by the first process alone, while no other run writes to the same folder."""
        ...


def run(
    session: Session,
    config: RunConfig,
    *,
    timer: Timer | None = None,
    search: Mapping[str, Any] | None = None,
    publisher: Publisher | None = None,
) -> EvaluationResult:
    """Evaluate the run's systems on the task, and write one result folder below <output>/<name>.

    In several processes each computes its shard of the responses, the first one alone reads and writes results, and all
    return the same result. search: how λ was chosen, for the record. Raises UserError, in every process, for whatever
    the user can correct.
    """
    timer = timer or Timer()
    first = session.accelerator(config.inference.device).is_main_process
    planned = distributed.run_on_all_ranks(lambda: _prepare(session, config, timer))
    state = Run(session, config, planned, timer)
    analyses = applicable(config, planned.data, planned.context.kind)
    finished = distributed.broadcast(_finished(state, analyses, search, publisher) if first else None)
    if finished is not None:
        return finished
    # What an analysis may refuse comes before the responses. The run's own model is filled first, for its prompt
    # variants too, and is still there when its responses are computed.
    collected = {analysis.name: analysis.collect(state) for analysis in analyses}
    systems = {system.role: system for system in planned.systems}
    for (role, split), key in planned.keys.items():
        state.responses[role, split] = systems[role].respond(session, config, planned.context, split, key, timer)

    def finish() -> EvaluationResult | None:
        return _finish(state, analyses, collected, search, publisher) if first else None

    return distributed.broadcast(distributed.run_on_all_ranks(finish))


def check(session: Session, config: RunConfig) -> None:
    """Raise, in every process, the UserError with which `run` would begin: for work that comes before it."""
    distributed.run_on_all_ranks(lambda: _prepare(session, config, Timer()))


def plan(session: Session, config: RunConfig) -> Plan:
    """The run of this configuration; UserError where parents, task or prompts do not suffice. Hashes are read alone."""
    context = task_context(session, config)
    systems = systems_of(session, config, context)
    keys = {
        (system.role, split): system.key(session, config, context, split)
        for system in systems
        for split in system.splits(config)
    }
    planned = Plan(context, systems, keys)
    state = Run(session, config, planned, Timer())
    analyses = applicable(config, context.data, context.kind)
    parts = {analysis.name: analysis.fingerprint(state) for analysis in analyses}
    for name, module in ((analysis.name, type(analysis).__module__) for analysis in analyses):
        if plugins.is_plugin(module):
            parts[name] = [parts[name], plugins.code(module)]
    inputs = {
        "keys": sorted(keys.values()),
        "method": config.method,
        "weight": config.weight,
        "seed": config.seed,
        "task": config.task_config.name,
        "data": context.data.fingerprint,
        "metrics": tuple((name, plugins.identity(target)) for name, target in config.task_config.metrics),
        "resamples": config.bootstrap.resamples,
        "level": config.bootstrap.level,
        "intervals": INTERVALS,
        "analyses": parts,
        "parents": [] if context.parents is None else [model.name for model in config.merge_config.spec.models],
        "search": None if config.search is None else [config.search.call.identity, config.search.call.arguments],
    }
    # Which split is reported depends on their order; in their usual order it adds nothing.
    if list(config.inference.splits) != sorted(config.inference.splits, key=ALL_SPLITS.index):
        inputs["splits"] = config.inference.splits
    return replace(planned, key=fingerprint(inputs))


def task_context(session: Session, config: RunConfig) -> TaskContext:
    """The task's rows and prompts; UserError where they do not suffice."""
    context = task_rows(session, config)
    if context.prompt_spec is None:
        return context
    return replace(context, prompts=prompts_of(session, context.kind, context.prompt_spec))


def task_rows(session: Session, config: RunConfig) -> TaskContext:
    """The same before a prompt is made."""
    parents = session.parents(config.merge_config.spec, config.cache) if config.systems.model == MERGED else None
    task, splits = config.task_config, config.inference.splits
    # A private search alone sees the split that it chooses on. All else is as if nobody were in it.
    withheld = None if config.withheld in splits else config.withheld
    with logs_withheld() if config.withheld else nullcontext():
        data, kind = session.task_data(task.call, withheld), kind_named(task.kind)
    if data.kind != task.kind:
        raise UserError(f"task.kind={task.kind}, but {task.call.target} makes a task of kind {data.kind}.")
    if config.withheld not in splits:
        kind.check_rows(task.name, data, splits, [name for name, _ in task.metrics])
    rows = {name: [i for i, e in enumerate(data.examples) if e.split == name] for name in splits}
    metrics = kind.metrics(task.metrics, data)
    if parents is None:
        return TaskContext(kind, data, rows, metrics)
    names = [model.name for model in config.merge_config.spec.models]
    folders = [checkpoint.folder for checkpoint in parents.checkpoints]
    reported = [split for split in splits if split != config.withheld]
    contamination.check_parents(zip(names, folders, strict=True), data, reported)
    if config.inference.load is not None:  # what cannot be quantised is refused before a prompt is made
        session.live(parents, config.inference, parents.number_of(config.merge_config.spec.config_from))
    return TaskContext(kind, data, rows, metrics, parents, prompt_spec(config, parents, withheld))


def folder_of(config: RunConfig, key: str) -> Path:
    """The result folder of the run with fingerprint `key`."""
    weight = "" if config.weight is None else f"_lambda={label(config.weight)}"
    name = short_name(f"{config.task_config.name}_{config.method.replace(' ', '_')}{weight}")
    return config.output / config.name / f"{name}_{key[:8]}"


def _prepare(session: Session, config: RunConfig, timer: Timer) -> Plan:
    make_writable(config.output / config.name)  # a full disk is known before a model is loaded
    if config.systems.model == MERGED:
        session.parents(config.merge_config.spec, config.cache)
        timer.record("parents")
    planned = plan(session, config)
    timer.record("task")
    return planned


def _finished(
    state: Run, analyses: tuple[Analysis, ...], search: Mapping[str, Any] | None, publisher: Publisher | None
) -> EvaluationResult | None:
    """The result of the run where it is finished, and recorded by the publisher."""
    folder = folder_of(state.config, state.plan.key)
    if publisher is not None and not publisher.is_done(folder):
        return None
    cohort = state.plan.data.cohort
    result = results.read_finished(folder, state.plan.key, analyses, cohort, searched=search is not None)
    return None if result is None else replace(result, seconds=state.timer.seconds)


def _finish(
    state: Run,
    analyses: tuple[Analysis, ...],
    collected: Mapping[str, Any],
    search: Mapping[str, Any] | None,
    publisher: Publisher | None,
) -> EvaluationResult:
    """Metrics, analyses, the result folder and the publisher's record: the part of the first process alone."""
    folder = folder_of(state.config, state.plan.key)
    with exclusive_lock(folder / results.METRICS):
        # Another sweep may have finished the very same run meanwhile.
        finished = _finished(state, analyses, search, publisher)
        if finished is not None:
            return finished
        rows = results.metric_rows(state)
        state.timer.record("metrics")
        values = {}
        for analysis in analyses:
            values[analysis.name] = analysis.compute(state, collected[analysis.name])
            state.timer.record(analysis.name)
        result = EvaluationResult(rows, folder, False, state.timer.seconds, state.plan.data.cohort, values)
        results.write(state, result, search)
        if publisher is not None:
            publisher.publish(results.record(state, result, analyses))
            state.timer.record("tracking")
        return result
