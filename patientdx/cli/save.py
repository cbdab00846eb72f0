"""The merged model of a run written to disk, or what that would take."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from patientdx.checkpoints.architecture import check_architecture
from patientdx.checkpoints.estimate import estimate
from patientdx.checkpoints.known_models import FOLDER as KNOWN_MODELS
from patientdx.checkpoints.save import save as write
from patientdx.checkpoints.source import ModelSource, holds_patients, to_be_made
from patientdx.checkpoints.write_plan import plan_write
from patientdx.cli.messages import is_first_process
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.session import Session


def save(session: Session, config: RunConfig, process: tuple[int, int] = (0, 1)) -> None:
    """Write the merged model to `config.save.folder`, or with `dry_run` print what that would read, write and need.

    process: number of this process, and how many share the tensors. Raises UserError before a weight is read.
    """
    if config.merge is None:
        raise UserError("save needs a merge, and this run has none: leave save out, or add a language model.")
    spec = config.merge.spec
    sources = (*spec.models, *(() if spec.ancestor is None else (spec.ancestor,)))
    if not config.save.dry_run:
        _write(session, config, sources, process)
        return
    # Nothing is written: a parent that is yet to be made is only named, and what is remembered goes with this folder.
    if notes := list(filter(None, (to_be_made(model, config.cache) for model in dict.fromkeys(sources)))):
        _print("\n".join([*notes, "What the merge takes is known after that: dry_run=true writes nothing."]))
        return
    with tempfile.TemporaryDirectory() as away:
        cache, models = Path(away), config.cache / "models"
        if models.is_dir():
            (cache / "models").symlink_to(models.absolute())
        for name in ("hashes", "architectures", KNOWN_MODELS):
            if (config.cache / name).is_dir():
                shutil.copytree(config.cache / name, cache / name)
        _write(session, config.model_copy(update={"cache": cache}), sources, process)


def _print(text: str) -> None:
    if is_first_process():
        Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _write(session: Session, config: RunConfig, sources: tuple[ModelSource, ...], process: tuple[int, int]) -> None:
    spec = config.merge_config.spec
    merge = session.recipe(spec, config.weight, config.cache, adapt=config.task is None or config.save.dry_run)
    held = [model.name for model in sources if holds_patients(model)]
    if held and not config.save.patients:
        raise UserError(
            f"{' and '.join(held)} was trained on patients' records, and a merge can give them away. Leave save out, "
            "or set save_patients=true: the folder is then marked as one that holds patients."
        )
    number = merge.config_from or 0
    check_architecture(merge.parents[number], spec.models[number].name, config.cache)
    options = {"cache": config.cache, "sources": sources, "tokenizer": spec.tokenizer, "dtype": config.save.dtype}
    target = config.save.folder or config.output / config.name / "merged"
    device = "cpu"
    if config.inference.device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{process[0] % torch.cuda.device_count()}"
    if config.save.dry_run:
        if process[0] == 0:
            _print(str(estimate(plan_write(merge, target, processes=process[1], device=device, **options))))
        return
    folder = write(merge, target, device=device, process=process, **options)
    if folder is not None:
        _print(f"merged model: {folder}")
