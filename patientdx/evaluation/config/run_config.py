"""The configuration of one run: Hydra composes it, pydantic validates all of it before a byte of weights is read.

Only here is `cfg["lambda"]` spelled: below it is `weight`, the position on the curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, Field, ValidationError

from patientdx.core.errors import UserError, meant, present
from patientdx.core.paths import study_name
from patientdx.core.validation import Folder, at_least, messages
from patientdx.evaluation.config.analyses import AnalysesConfig
from patientdx.evaluation.config.conflicts import conflicts
from patientdx.evaluation.config.finetune import FinetuneConfig
from patientdx.evaluation.config.inference import BootstrapConfig, InferenceConfig
from patientdx.evaluation.config.merge import MergeConfig, SaveConfig
from patientdx.evaluation.config.search import CHOSEN_ON, SearchConfig
from patientdx.evaluation.config.section import Section, key, of_language_model
from patientdx.evaluation.config.systems import SystemsConfig
from patientdx.evaluation.config.task import TaskConfig
from patientdx.evaluation.config.tracking import TrackingConfig
from patientdx.merge.schedule import Schedule


class RunConfig(Section):
    """One run. Sections are None where the config asks for none of it: merge with a tabular model alone, task where
    nothing is scored, finetune, and search for a λ that is given. chunks and machine are for launchers; pair, domain
    and non_inferiority are read by studies. `composed` is the resolved Hydra config, and `overrides` the words of the
    command, for the record.
    """

    name: Annotated[str, BeforeValidator(study_name)] = key("name")
    seed: Annotated[int, at_least(0)] = key("seed")
    output: Folder = key("output")
    cache: Folder = key("cache")
    chunks: Annotated[int, at_least(1)] | None = key("chunks", default=None)
    machine: dict[str, Any] | None = key("machine", default=None)
    pair: dict[str, Any] | None = key("pair", default=None)
    domain: str | None = key("domain", default=None)
    non_inferiority: dict[str, Any] | None = key("non_inferiority", default=None)
    merge: MergeConfig | None
    save: SaveConfig
    task: TaskConfig | None
    systems: SystemsConfig
    analyses: AnalysesConfig
    inference: InferenceConfig
    bootstrap: BootstrapConfig
    finetune: FinetuneConfig | None
    search: SearchConfig | None
    tracking: TrackingConfig
    composed: dict[str, Any] = Field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def merge_config(self) -> MergeConfig:
        """The merge; ValueError for a run without one."""
        return present(self.merge, f"model={self.systems.model} is no merge")

    @property
    def finetune_config(self) -> FinetuneConfig:
        """The fine-tuned model; ValueError for a run without one."""
        return present(self.finetune, "finetune=none trains nothing")

    @property
    def search_config(self) -> SearchConfig:
        """The search for λ; ValueError for a run without one."""
        return present(self.search, "search=fixed searches nothing")

    @property
    def withheld(self) -> str | None:
        """The split of which the run may tell nothing but the λ that was chosen on it; None without such a search."""
        return CHOSEN_ON if self.search is not None and not self.search.releases_scores else None

    @property
    def task_config(self) -> TaskConfig:
        """The task; ValueError for a run without one."""
        return present(self.task, "task=none has no questions")

    @property
    def method(self) -> str:
        """What made the model that the run is about: a tabular model, or a merge method, and what its weights were
        quantised to.
        """
        if self.merge is None:
            return self.systems.model
        return " ".join(filter(None, (self.merge.name, self.inference.load)))

    @property
    def weight(self) -> Schedule | None:
        """λ; None for a method without, and without a merge."""
        return None if self.merge is None else self.merge.weight

    def with_merge(self, weight: Schedule | None, **changes: Any) -> RunConfig:
        """The same run at another λ; `changes` are fields of `MergeConfig`, such as base, pivot or call."""
        assert self.merge is not None
        return self.model_copy(update={"merge": self.merge.model_copy(update={"weight": weight, **changes})})


def parse(cfg: DictConfig, *, sweep: bool = False, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a composed config; one UserError lists every error in it.

    sweep: the run is one of several, among which λ is chosen, so that pilot is scored beside test. overrides: the words
    of the command, as a search for λ is refused beside a λ in the command.
    """
    plain = _resolved(cfg)
    errors = []
    if isinstance(plain.get("seed"), bool) or not isinstance(plain.get("seed"), int) or plain["seed"] < 0:
        # Other keys take it over, and would repeat its error.
        errors.append(f"seed={plain.get('seed')}: give a whole number of at least 0.")
        plain = _resolved(OmegaConf.merge(cfg, {"seed": 0}))
    errors += _unknown_keys(plain)
    config = None
    try:
        config = RunConfig.model_validate(plain, context={"plain": plain, "sweep": sweep})
    except ValidationError as error:
        errors += messages(error, RunConfig.key_of)
    errors += conflicts(plain, overrides)
    if errors or config is None:
        errors = list(dict.fromkeys(errors))
        count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        raise UserError(f"{count} in this configuration\n" + "\n".join(f"  {error}" for error in errors))
    return config.model_copy(update={"composed": _record(config, plain), "overrides": tuple(overrides)})


def _resolved(cfg: Any) -> dict[str, Any]:
    """The config as plain values, with all its groups."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"this configuration cannot be resolved: {str(error).splitlines()[0]}") from None
    groups = dict.fromkeys(path[0] for path, field in RunConfig.key_fields() if len(path) > 1 and field.is_required())
    absent = [group for group in groups if not isinstance(plain.get(group), dict)]
    if absent:
        raise UserError(f"this configuration has no {', '.join(sorted(absent))}: choose one, as in merge=slerp.")
    return plain


def _unknown_keys(plain: Mapping[str, Any]) -> Iterator[str]:
    """Keys that no field takes. Groups that become a call or a dataclass are checked with these."""
    paths = {path for path, _ in RunConfig.key_fields()}
    first = {path[0] for path in paths}
    yield from (f"{name}: there is no such key.{meant(name, first)}" for name in plain if name not in first)
    for group in sorted(first - {path[0] for path in paths if len(path) == 1}):
        known = [path[1] for path in paths if path[0] == group]
        for name in (name for name in plain.get(group) or {} if name not in known):
            yield f"{group}.{name}: there is no such key; it takes {', '.join(sorted(known))}.{meant(name, known)}"


def _record(config: RunConfig, plain: dict[str, Any]) -> dict[str, Any]:
    """The composed config with λ as it is used; without a language model, without the keys that only one depends on."""
    if config.merge is not None:
        return plain | ({"lambda": config.weight} if isinstance(config.weight, float) else {})
    left_out = {path[0] for path, field in RunConfig.key_fields() if of_language_model(field)}
    return {name: value for name, value in plain.items() if name not in left_out}
