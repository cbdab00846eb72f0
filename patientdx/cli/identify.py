"""Which candidates, merged how and with which λ, a published model is.

python -m patientdx.cli identify merged=<model> candidates=[<model>,<model>,...]

A model is a folder, a hub id (org/name) or the stem of a yaml in conf/models.

ancestor=<model>   what task arithmetic starts from; without it each candidate in turn
tensors=8          sampled at most of each kind of tensor (q, up, norms, ...)
elements=262144    sampled at most of each tensor
seed=0             of the sampled elements
output=<file>      .csv or .json with a line for each hypothesis and tensor

Tested are a candidate itself, linear merges and task arithmetic of two or three candidates, and SLERP of two. A
hypothesis explains a tensor where its residual is at most 3 times the rounding expected in the merged model's element
type, which is what arithmetic in that type leaves. Exit code 0: a hypothesis explains every sampled tensor; 1: none
does; 2: the command cannot be carried out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from patientdx.checkpoints.identity import Source
from patientdx.checkpoints.source import HUB_ID, ModelSource, open_checkpoint
from patientdx.cli.identify_bits import with_bits
from patientdx.cli.identify_search import RUN, Sampling, common_names, measure_all, rank, sample_names
from patientdx.cli.identify_tables import Findings, table, verdict, write
from patientdx.cli.messages import run_command
from patientdx.core.errors import UserError
from patientdx.core.paths import CONF, cache_folder
from patientdx.evaluation.store import make_writable
from patientdx.reporting import show

MODELS = CONF / "models"
MOST_CANDIDATES = 8  # the number of hypotheses grows with its third power


@dataclass(frozen=True)
class Options:
    """The words of the command. candidates are not empty; an ancestor that is a candidate is that candidate."""

    merged: ModelSource
    candidates: tuple[ModelSource, ...]
    ancestor: ModelSource | None
    sampling: Sampling
    output: Path | None

    @property
    def models(self) -> tuple[ModelSource, ...]:
        """Candidates, and the ancestor if it is none of them."""
        further = self.ancestor is not None and self.ancestor not in self.candidates
        return (*self.candidates, self.ancestor) if further and self.ancestor else self.candidates


def options(words: Sequence[str]) -> Options:
    """The options that the words key=value give.

    Raises UserError for a word or a key that is none, a model that is neither a yaml, a folder nor a hub id, fewer than
    two or more than 8 models beside the merged one, and numbers that are not positive.
    """
    values = _values(words)
    absent = [key for key in ("merged", "candidates") if not values.get(key)]
    if absent:
        raise UserError(
            f"identify needs {' and '.join(absent)}: give merged=<model> candidates=[<model>,<model>], each a folder, "
            "a hub id or the stem of a yaml in conf/models."
        )
    listed = values["candidates"]
    if not isinstance(listed, list) or not all(isinstance(entry, str | int) for entry in listed):
        raise UserError(f"candidates={listed} is no list of models: give them in brackets, as in candidates=[a,b].")
    candidates = tuple(_model("candidates", str(entry)) for entry in listed)
    repeated = sorted({model.name for model in candidates if candidates.count(model) > 1})
    if repeated:
        raise UserError(f"candidates names {', '.join(repeated)} more than once: name each model once.")
    ancestor = None if values.get("ancestor") is None else _model("ancestor", str(values["ancestor"]))
    sampling = Sampling(
        tensors=_number(values, "tensors", Sampling.tensors, 1),
        elements=_number(values, "elements", Sampling.elements, RUN),
        seed=_number(values, "seed", Sampling.seed, 0),
    )
    merged = _model("merged", str(values["merged"]))
    result = Options(merged, candidates, ancestor, sampling, _output(values.get("output")))
    if not 2 <= len(result.models) <= MOST_CANDIDATES:
        raise UserError(
            f"{len(result.models)} models to choose parents from: give from 2 to {MOST_CANDIDATES}, "
            "the ancestor counted."
        )
    return result


def identify(opts: Options, cache: Path) -> Findings:
    """Measure the merged model beside the others, and rank what may explain it. cache: of converted models.

    Raises UserError where a model cannot be opened, or no tensor can be compared.
    """
    merged = open_checkpoint(opts.merged, cache)
    models = [open_checkpoint(model, cache) for model in opts.models]
    names, skipped = common_names(merged, models)
    sampled = sample_names(names, opts.sampling.tensors)
    labels = tuple(_distinct([model.name for model in opts.models]))
    if not sampled:
        raise _nothing_in_common(opts.merged.name, merged, dict(zip(labels, models, strict=True)))
    measured = list(zip(sampled, measure_all(merged, models, sampled, opts.sampling), strict=True))
    broken = [name for name, row in measured if row is None]
    rows = [row for _, row in measured if row is not None]
    if broken:
        skipped = skipped | {"with elements that are not finite": broken}
    if not rows:
        raise UserError(
            f"{opts.merged.name}: every sampled tensor holds elements that are not finite, so none can be compared."
        )
    shared = [row for row in rows if row.is_shared]
    differing = [row for row in rows if not row.is_shared] or rows
    shared = shared if differing is not rows else []
    ancestor = None if opts.ancestor is None else opts.models.index(opts.ancestor)
    explanations = with_bits(rank(differing, len(models), ancestor), differing, merged, models, opts.sampling)
    return Findings(opts.merged.name, labels, tuple(differing), tuple(explanations), tuple(shared), skipped)


def _values(words: Sequence[str]) -> dict[str, Any]:
    keys = [*(field.name for field in fields(Options) if field.name != "sampling"), "tensors", "elements", "seed"]
    known = f"identify takes {', '.join(f'{key}=' for key in keys)}"
    for entry in words:
        key, sign, _ = entry.partition("=")
        if not sign or key not in keys:
            raise UserError(f"{entry} is no option of identify: {known}.")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{' '.join(words)} cannot be read ({str(error).splitlines()[0]}): {known}.") from error
    return values


def _number(values: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{key}={value} is not valid: give a whole number of at least {least}.")
    return value


def _output(value: Any) -> Path | None:
    if value is None:
        return None
    path = Path(str(value)).expanduser()
    if path.suffix not in (".csv", ".json") or path.is_dir():
        raise UserError(f"output={value} is no file for the result: give a name that ends in .csv or .json.")
    make_writable(path.parent)
    return path


def _model(key: str, text: str) -> ModelSource:
    """What a word stands for: a stem of conf/models, a folder or file, or a hub id, in that order."""
    file = MODELS / f"{text}.yaml"
    if "/" not in text and file.is_file():
        nodes = OmegaConf.create({"cache": str(cache_folder()), "model": OmegaConf.load(file)})  # some lie in the cache
        content: Any = OmegaConf.to_container(nodes.model, resolve=True)
        return ModelSource(**content)
    path = Path(text).expanduser()
    if path.exists():
        return ModelSource(path.resolve().name, str(path.resolve()))
    if HUB_ID.fullmatch(text):
        return ModelSource(text.rpartition("/")[2], text)
    stems = ", ".join(sorted(yaml.stem for yaml in MODELS.glob("*.yaml")))
    raise UserError(
        f"{key}: {text} is no model: there is no such folder, a hub id has the form org/name, and "
        f"conf/models holds {stems}."
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that an earlier one has."""
    counts: dict[str, int] = {}
    listed = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        listed.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return listed


def _nothing_in_common(name: str, merged: Source, models: Mapping[str, Source]) -> UserError:
    lines = [f"- {label}: {len(common_names(merged, [model])[0])}" for label, model in models.items()]
    return UserError(
        f"{name} has no tensor of the same name and shape in all candidates. "
        f"Of its {len(merged.tensors)} tensors each has\n"
        + "\n".join(lines)
        + "\nLeave out candidates of another architecture or size."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see the exit codes above."""
    arguments = sys.argv[1:] if argv is None else list(argv)

    def command() -> int:
        opts = options(arguments)
        findings = identify(opts, cache_folder())
        if opts.output is not None:
            write(findings, opts.output)
        show(table(findings))
        lines = [*verdict(findings), *([f"written: {opts.output}"] if opts.output else [])]
        Console(soft_wrap=True, highlight=False, markup=False).print("", *lines, sep="\n")
        return findings.exit_code

    return run_command(__doc__, arguments, command)


if __name__ == "__main__":
    sys.exit(main())
