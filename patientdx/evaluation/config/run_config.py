"""The typed view of the composed config: checked as a whole, before a byte of weights is read.

The only place that spells `cfg["lambda"]`: below here it is `weight`, the position on the curve.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patientdx.checkpoints.merge_plan import SUPPLIED
from patientdx.checkpoints.source import REPOSITORY
from patientdx.cli.mergekit.recipe import read_recipe
from patientdx.core.errors import UserError
from patientdx.core.functions import Call, checked, dotted
from patientdx.evaluation.config import checks, data_sets
from patientdx.evaluation.config import models as sources
from patientdx.evaluation.config.finetune import comparator
from patientdx.evaluation.config.kind_checks import kind_errors
from patientdx.evaluation.config.privacy import request
from patientdx.evaluation.config.search import FIXED
from patientdx.evaluation.config.search import request as searched
from patientdx.evaluation.config.sections import MERGED, AnalysesConfig, MergeConfig, MergeSpec, RunConfig
from patientdx.evaluation.registry import kind_names
from patientdx.lm import vllm
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, schedule, values

log = logging.getLogger(__name__)

DTYPES = ("bfloat16", "float16", "float32")
SPLITS = ("train", "pilot", "test")
GENERATORS = ("transformers", vllm.NAME)
TOKENIZERS = (None, "base", "pivot", "union")
SEEDED = ("seed",)  # what the pipeline gives a tabular model beside its yaml
BASELINES = ("tabular_gbm", "tabular_logistic")  # beside a merged model unless others are asked for
_SECTIONS = ("base_model", "pivot_model", "merge", "search", "model", "task", "scoring", "bootstrap", "tracking")
_TABULAR = REPOSITORY / "conf" / "model"
# What a run without a language model leaves out of its record.
_OF_LANGUAGE_MODELS = (
    *("base_model", "pivot_model", "ancestor", "merge", "lambda", "extra_models", "mergekit_config", "tokenizer"),
    *("search", "finetune", "save", "save_dtype", "save_patients", "dry_run", "parents", "probes"),
    *("device_map", "generator", "dtype", "scoring"),
)


def parse(cfg: DictConfig, *, sweep: bool = False, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a composed config; one UserError lists every error in it.

    sweep: the run is one of several, among which λ is chosen, so that pilot is scored beside test. overrides: the words
    of the command, as a search for λ is refused beside a λ in the command.
    """
    errors: list[str] = []
    plain, layers = _composed(cfg)
    # The cache is one folder for all that a run keeps: a task gets it spelled out.
    cache, seed = checks.folder(plain["cache"], "cache", errors), checks.whole(plain["seed"], "seed", 0, errors)
    merge, save = _merging(plain, seed, layers, errors)
    inference = _inference(plain, sweep, errors)
    sources.at_odds(plain, overrides, errors)
    task = _task(plain, cache, errors)
    systems = _systems(plain, errors)
    analyses = AnalysesConfig(
        clinical=checks.yes_no(plain["clinical"], "clinical", errors),
        prompt_variants=checks.yes_no(plain["probes"], "probes", errors),
        privacy=request(plain, errors),
    )
    bootstrap = plain["bootstrap"]
    sections = {
        "name": str(plain["name"]),
        "seed": seed,
        "merge": merge,
        "save": save,
        "task": task,
        "systems": systems,
        "analyses": analyses,
        "inference": inference,
        "bootstrap": {
            "resamples": checks.whole(bootstrap["resamples"], "bootstrap.resamples", 100, errors),
            "level": checks.between(bootstrap["level"], "bootstrap.level", errors),
            "seed": seed,
        },
        "output": checks.folder(plain["output"], "output", errors),
        "cache": cache,
        "finetune": comparator(plain, errors),
        "search": searched(plain, merge.spec.call, inference["splits"], overrides, errors),
        "tracking": dict(plain["tracking"]),
        "composed": plain,
    }
    errors += vllm.errors(plain["generator"])
    if task is not None:
        errors += kind_errors(task["name"], task["kind"], sections["finetune"], analyses.privacy, sections["search"])
    if errors:
        count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        raise UserError(f"{count} in this configuration\n" + "\n".join(f"  {fault}" for fault in errors))
    if systems["model"] == MERGED:
        return RunConfig(**sections)
    kept = {key: value for key, value in plain.items() if key not in _OF_LANGUAGE_MODELS}
    return RunConfig(**sections | {"merge": None, "composed": kept})


def _composed(cfg: DictConfig) -> tuple[dict[str, Any], int | None]:
    """The config as plain values, a mergekit recipe in it already read; and how many layers that recipe counts."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"this configuration cannot be resolved: {str(error).splitlines()[0]}") from None
    absent = [name for name in _SECTIONS if not isinstance(plain.get(name), dict)]
    if absent:
        raise UserError(f"this configuration has no {', '.join(absent)}: choose one, as in merge=slerp.")
    if plain["mergekit_config"] is None:
        return plain, None
    found = read_recipe(Path(str(plain["mergekit_config"])).expanduser())
    for note in found.notes:
        log.info("%s: %s", plain["mergekit_config"], note)
    return plain | found.config(), found.layers


def _merging(
    plain: dict[str, Any], seed: int, layers: int | None, errors: list[str]
) -> tuple[MergeConfig, dict[str, Any]]:
    """Parents, method and λ, and where the merged model is written."""
    merge = dict(plain["merge"])
    name = checks.given(merge, "merge", "name", errors)
    base = sources.model(plain["base_model"], "base_model", errors)
    pivot = sources.model(plain["pivot_model"], "pivot_model", errors)
    extra = sources.further(plain["extra_models"], errors)
    call = checked(merge, "merge", SUPPLIED, errors)
    weight = _weight(plain["lambda"], name, call, errors)
    if isinstance(weight, float):
        plain["lambda"] = weight  # recorded as it is used
    origin = sources.ancestor(plain.get("ancestor"), (base, pivot, *extra), call, name, errors)
    tokenizer = checks.one_of(plain["tokenizer"], "tokenizer", TOKENIZERS, errors)
    spec = MergeSpec((base, pivot, *extra), call, origin, tokenizer, seed, layers)
    save = {
        "folder": None if plain["save"] is None else checks.folder(plain["save"], "save", errors),
        "dtype": checks.one_of(plain["save_dtype"], "save_dtype", (None, *DTYPES), errors),
        "patients": checks.yes_no(plain["save_patients"], "save_patients", errors),
        "dry_run": checks.yes_no(plain["dry_run"], "dry_run", errors),
    }
    return MergeConfig.model_construct(name=name, spec=spec, weight=weight), save


def _task(plain: dict[str, Any], cache: Path, errors: list[str]) -> dict[str, Any] | None:
    """The task and its metrics."""
    task = dict(plain["task"])
    if task.get("name") == "none":
        if plain["save"] is None and not plain["dry_run"]:
            errors.append("task=none leaves nothing to do: choose a task, or add save=<folder> or dry_run=true.")
        return None
    metrics = task.pop("metrics", None) or {}
    data_sets.fill(task, plain["data"], errors)
    name = checks.given(task, "task", "name", errors)
    kind = checks.one_of(task.pop("kind", None), "task.kind", kind_names(), errors)
    if "cache" in task:
        task["cache"] = str(cache)
    if any(fault.startswith("seed=") for fault in errors) and task.get("seed") == plain["seed"]:
        task["seed"] = 0  # told already, where it was set
    return {
        "name": name,
        "kind": kind,
        "call": checked(task, "task", (), errors),
        "metrics": tuple((label, _metric(label, target, errors)) for label, target in metrics.items()),
    }


def _systems(plain: dict[str, Any], errors: list[str]) -> dict[str, Any]:
    """What is scored: the merged model or a tabular one alone, and the baselines beside it."""
    chosen = dict(plain["model"])
    name = checks.given(chosen, "model", "name", errors)
    calls = {}
    if name == MERGED:
        errors += [f"model.{key}: model=merged takes no keys; those of the merge are merge's." for key in chosen]
    elif name is not None:
        calls[name] = checked(chosen, "model", SEEDED, errors)
        if plain["save"] is not None or plain["dry_run"]:
            errors.append(f"model={name} merges nothing: leave out save and dry_run, or use model=merged.")
        if plain["probes"] is True:
            errors.append(f"probes=true: model={name} is asked no question. Leave probes out, or use model=merged.")
    wanted = plain["baselines"]
    # Without a task nothing is fitted, and scikit-learn need not be loaded.
    usual = BASELINES if name == MERGED and plain["task"].get("name") != "none" else ()
    for other in _names(usual if wanted is None else wanted, errors):
        if other not in calls:
            node = OmegaConf.to_container(OmegaConf.load(_TABULAR / f"{other}.yaml"))
            node.pop("name", None)
            calls[other] = checked(node, f"conf/model/{other}.yaml", SEEDED, errors)
    return {
        "model": name,
        "baselines": tuple(calls.items()),
        "needs_features": name != MERGED or wanted is not None,
        "parents": checks.yes_no(plain["parents"], "parents", errors),
    }


def _names(value: Any, errors: list[str]) -> tuple[str, ...]:
    """The tabular models of a list, each one a yaml of conf/model."""
    known = sorted(path.stem for path in _TABULAR.glob("*.yaml") if path.stem != MERGED)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or any(name not in known for name in names):
        errors.append(f"baselines={value}: give a list of {', '.join(known)}, or [] for none.")
        return ()
    return tuple(dict.fromkeys(names))


def _inference(plain: dict[str, Any], sweep: bool, errors: list[str]) -> dict[str, Any]:
    """Which rows are scored and how, and how sure the metrics are."""
    scoring = plain["scoring"]
    return {
        "splits": _splits(plain["splits"], sweep and plain["search"].get("name") == FIXED, errors),
        "device": checks.one_of(plain["device"], "device", ("auto", "cpu"), errors),
        "device_map": plain["device_map"],
        "generator": checks.one_of(plain["generator"], "generator", GENERATORS, errors),
        "dtype": checks.one_of(plain["dtype"], "dtype", DTYPES, errors),
        "max_tokens": checks.whole(scoring["max_tokens"], "scoring.max_tokens", 16, errors),
        "batch_tokens": checks.whole(scoring["batch_tokens"], "scoring.batch_tokens", 1, errors, null=True),
    }


def _weight(value: Any, method: str, call: Call, errors: list[str]) -> Schedule | None:
    if not call.target:
        return None  # reported with the method itself
    allowed = method_spec(call.function).lambda_range
    if allowed is None:
        if value is not None:
            errors.append(
                f"lambda={value}: merge={method} has no λ. Leave lambda out, or use a method that has one "
                "(merge=slerp, linear)."
            )
        return None
    low, high = allowed
    ends = f"from {low:g} (base) to {high:g} (pivot)" if math.isfinite(high) else f"of at least {low:g}"
    try:
        given = schedule(value)
    except ValueError:
        hint = " To sweep, add -m and write lambda=0.1,0.2,0.4." if isinstance(value, list) else ""
        errors.append(f"lambda={value} is not a number. Give one {ends}.{hint}")
        return None
    for number in values(given):
        if not math.isfinite(number):
            errors.append(f"lambda={value} is not a number. Give one {ends}.")
        elif not low <= number <= high:
            meaning = ": 0 is the base model and 1 the pivot model" if math.isfinite(high) else ""
            errors.append(f"lambda={number:g} is outside [{low:g}, {high:g}]{meaning}.")
    return given


def _metric(label: str, target: str, errors: list[str]) -> str:
    try:
        dotted(target)
    except UserError as fault:
        errors.append(f"task.metrics.{label}: {fault}")
    return target


def _splits(value: Any, sweep: bool, errors: list[str]) -> tuple[str, ...]:
    if value is None:
        return ("pilot", "test") if sweep else ("test",)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or any(name not in SPLITS for name in names):
        errors.append(f"splits={value}: give one or more of {', '.join(SPLITS)}.")
        return ()
    return tuple(dict.fromkeys(names))
