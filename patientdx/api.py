"""PatientDx in Python: what `python run.py` does, with the same code and the same numbers.

    merge = patientdx.merge("smollm2_135m_instruct", "smollm2_135m_numeric", method="slerp", weight=0.4)
    result = patientdx.evaluate(merge, task="mortality")

Every function takes `overrides`, words of the command line such as ``task.limit=50``, for all that has no parameter.
Each raises UserError, before a weight is read, for a request that cannot be met. One session holds parents, curves and
the live model for all calls of a process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patientdx import reporting
from patientdx.cli import run, save, sweep_state, sweep_summary
from patientdx.cli.compose import configuration, word
from patientdx.core.locks import exclusive_lock
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import make_writable
from patientdx.merge.curve import Curve
from patientdx.reporting import run_tables, terminal

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel

Weight = float | Sequence[float] | None
_UNSCORED = ("task=none", "tracking=none")


@dataclass(frozen=True)
class Merge:
    """Two models, a method and λ. Nothing is read before one of its methods needs it.

    words: the overrides that stand for it on the command line.
    """

    words: tuple[str, ...]

    def at(self, weight: Weight) -> Merge:
        """The same merge at another λ; None: the default of its method."""
        words = [text for text in self.words if not text.startswith("lambda=")]
        return replace(self, words=(*words, *([] if weight is None else [word("lambda", weight)])))

    @cached_property
    def config(self) -> RunConfig:
        """Its configuration, without a task."""
        return configuration([*self.words, *_UNSCORED, "dry_run=true"])

    @cached_property
    def diagnostics(self) -> dict[str, dict[str, float | str]]:
        """By tensor what the method measured, such as the cosine of its two versions; empty for a method without."""
        return {name: dict(curve.diagnostics) for name, curve in self._curves().items()}

    def save(self, folder: str | Path, *, overrides: Sequence[str] = ()) -> Path:
        """Write the merged model as a Hugging Face folder, with its record and card; returns the folder."""
        config = configuration([*self.words, *_UNSCORED, word("save", folder), *overrides])
        save.save(run.SESSION, config)
        return Path(folder).expanduser()

    def model(self, *, overrides: Sequence[str] = ()) -> PreTrainedModel:
        """A model of transformers with the merged weights, as `evaluate` fills it; it belongs to the caller.

        overrides: such as ``dtype=float32`` and ``device=cpu``.
        """
        config = configuration([*self.words, *_UNSCORED, "dry_run=true", *overrides])
        spec = config.merge_config.spec
        recipe = run.SESSION.recipe(spec, config.weight, config.cache)
        parents = run.SESSION.parents(spec, config.cache)
        session = Session()  # of its own: the shared one fills its model with other merges
        live = session.live(parents, config.inference, parents.number_of(spec.config_from))
        model: Any = live.fill(recipe, self._curves(), "the merge")
        return model

    def _curves(self) -> dict[str, Curve]:
        return run.SESSION.curves(self.config.merge_config.spec, self.config.cache)


@dataclass(frozen=True)
class Result:
    """One finished run.

    folder: where its files are. reused: it was finished before, and nothing was computed.
    """

    folder: Path
    reused: bool

    @property
    def _run(self) -> reporting.Run:
        return reporting.Run(self.folder)

    @property
    def weight(self) -> float | None:
        """λ of the merged model, the chosen one after a search; None for a method without λ, or with several."""
        return self._run.rows[0]["lambda"]

    @property
    def search(self) -> dict[str, Any] | None:
        """How λ was chosen; None where it was given."""
        return self._run.search

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """One row a model and split: every metric with the ends of its interval, counts, and the fingerprint."""
        return _frame(self._run.rows)

    @cached_property
    def predictions(self) -> pandas.DataFrame:
        """One row a unit and system: hashed ids, split, role, and probability and label or what the kind has."""
        import pandas

        return pandas.read_parquet(self.folder / "predictions.parquet")

    def table(self) -> str:
        """The tables that the command shows in a terminal."""
        return terminal.text(*run_tables.run_tables(self._run))

    def report(self) -> Path:
        """Write the page, `report.html` in its folder; returns its path."""
        return reporting.write_report(self.folder)


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, in the order of their λ. folder: the study's, with sweep.csv. summary: the tables."""

    folder: Path
    results: tuple[Result, ...]
    rows: list[dict[str, Any]]
    summary: str

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """The rows of all runs, the parents' once."""
        return _frame(self.rows)

    @cached_property
    def chosen(self) -> dict[str, Any] | None:
        """`lambda`, its `value` on pilot, its `row` on test, by the first metric; None without a choice."""
        metric = reporting.metric_names(self.rows)[0]
        better = reporting.Run(self.results[0].folder).higher_is_better(metric)
        return sweep_summary.chosen(self.rows, metric, better)

    def table(self) -> str:
        """What the command shows at its end: all models, the λ chosen on pilot, and where files were written."""
        return self.summary

    def report(self) -> Path:
        """Write the page, `report.html` in the study's folder; returns its path."""
        return reporting.write_report(self.folder)


def merge(
    base: str | Path,
    pivot: str | Path,
    method: str = "slerp",
    weight: Weight = None,
    *,
    overrides: Sequence[str] = (),
    **parameters: Any,
) -> Merge:
    """The merge of two models.

    base, pivot: a name in conf/models, a folder, or a hub id. weight: λ, 0 the base and 1 the pivot; a list for a
    λ by depth; None: the method's default. parameters: numbers of the method, such as ``density=0.2``.
    """
    words = [word("base_model", base), word("pivot_model", pivot), word("merge", method)]
    words += [word(f"merge.{name}", value) for name, value in parameters.items()]
    made = Merge((*words, *overrides)).at(weight)
    _ = made.config
    return made


def evaluate(merge: Merge, task: str = "mortality", *, overrides: Sequence[str] = ()) -> Result:
    """Score the merge and its parents on a task; a run that is finished already is read. Nothing is tracked.

    overrides: such as ``splits=[pilot,test]``, ``output=results``, ``tracking=wandb_offline``.
    """
    return _evaluated(configuration([*merge.words, *_task(task), *overrides]))


def select(merge: Merge, task: str = "mortality", strategy: str = "grid", *, overrides: Sequence[str] = ()) -> Result:
    """Choose λ on the pilot split, and score the choice on test.

    strategy: grid, racing, bayes, depth or private, as ``search=`` takes it.
    """
    words = [*merge.at(None).words, *_task(task), word("search", strategy), *overrides]
    return _evaluated(configuration(words))


def sweep(merge: Merge, weights: Sequence[Weight], task: str = "mortality", *, overrides: Sequence[str] = ()) -> Sweep:
    """Score the merge at each λ, on pilot and test; writes what a sweep of the command writes, all but its page.

    Raises UserError before anything is scored where one of the jobs is not possible.
    """
    words = [[*merge.at(weight).words, *_task(task), *overrides] for weight in weights]
    configs = [configuration(line, sweep=True) for line in words]
    study = configs[0].output / configs[0].name
    make_writable(study)
    state = sweep_state.begin(study, len(configs))
    try:
        results = []
        for number, config in enumerate(configs):
            result = run.evaluate(run.SESSION, config)
            content = {"folder": result.folder.name, "reused": result.reused, "seconds": result.seconds}
            sweep_state.write_job(state, number, content | {"overrides": list(config.overrides)})
            results.append(Result(result.folder, result.reused))
    except BaseException:
        sweep_state.drop(state)
        raise
    jobs = sweep_state.read_jobs(state)
    with exclusive_lock(study / sweep_state.PUBLISHED):
        sweep_state.publish(state, study)
        rows, summary = sweep_summary.as_text(study, jobs)
    return Sweep(study, tuple(results), rows, summary)


def _evaluated(config: RunConfig) -> Result:
    result = run.evaluate(run.SESSION, config)
    return Result(result.folder, result.reused)


def _task(task: str) -> tuple[str, ...]:
    return (word("task", task), "tracking=none")


def _frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(rows)
