"""A fine-tuned model as a folder in the cache: named by the key of its job, complete or absent, trained once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.checkpoints.patient_mark import mark, marked
from patientdx.checkpoints.source import ModelSource
from patientdx.core.cache import build_folder
from patientdx.core.errors import UserError
from patientdx.core.paths import REPOSITORY
from patientdx.training.job import Job

TRAINING = "training.json"
# The variables that make a process one of several; a training runs alone.
_LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A fine-tuned model: its `folder` (an adapter, or a full model), a `source` to load it from, and its `record`."""

    folder: Path
    source: ModelSource
    record: Mapping[str, Any]


def job_folder(job: Job, cache: Path) -> Path:
    """The folder that the trained model has, or will have."""
    return cache / "finetuned" / f"{job.hyperparameters.method}-{job.key[:16]}"


def training_record(job: Job, cache: Path) -> dict[str, Any] | None:
    """Settings, cost and losses of the training; None where this cache does not hold it."""
    file = job_folder(job, cache) / TRAINING
    return json.loads(file.read_text()) if file.is_file() else None


def build(job: Job, start: Callable[[], Path], cache: Path) -> Trained:
    """The trained model; trained now unless its folder exists.

    One process trains, in a process of its own; others that need the model meanwhile wait. A training that was stopped,
    for whatever reason, continues from its last checkpoint the next time, and ends with the same weights.

    Args:
        start: gives the folder of the model to train: configuration, safetensors, tokenizer. Called where needed.

    Raises:
        UserError: the model cannot be trained with this job, memory or disk do not suffice, the loss is not finite.
    """
    final = build_folder(job_folder(job, cache), lambda into: _build(job, start(), into, cache))
    name = final.name[:13]  # method and eight digits
    if job.hyperparameters.method == "lora":
        source = ModelSource(name, str(start()), adapter=str(final))
    else:
        source = ModelSource(name, str(final))
    return Trained(final, source, json.loads((final / TRAINING).read_text()))


def _build(job: Job, start: Path, into: Path, cache: Path) -> None:
    """Train into the folder `into`; checkpoints lie beside it until it is done."""
    work = cache / "finetuned" / f".{job_folder(job, cache).name}.checkpoints"
    _check_disk(job, start, work)
    work.mkdir(exist_ok=True)
    holds_patients = not job.open_data or marked(start)
    for folder in (work, into) if holds_patients else ():
        mark(folder)
    record = {
        "fingerprint": job.key,
        **job.settings,
        "texts": len(job.texts),
        "pilot_texts": len(job.pilot),
        "holds_patients": holds_patients,
        **run_training(job, start, into, work),
    }
    (into / TRAINING).write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(work)


def _check_disk(job: Job, start: Path, work: Path) -> None:
    """UserError where the disk cannot hold the checkpoints: weights and AdamW's two averages of each, twice over."""
    numbers = sum(file.stat().st_size for file in start.glob("*.safetensors")) // 2  # bfloat16, as nearly all are
    need = 2 * 12 * numbers + 2 * numbers if job.hyperparameters.method == "full" else 0
    free = shutil.disk_usage(work.parent).free
    if free < need and not work.exists():
        raise UserError(
            f"finetune=full: checkpoints take up to {need / 1e9:.1f} GB, but {work.parent} has {free / 1e9:.1f} GB "
            "free: free some space, set PATIENTDX_CACHE to a folder on a larger disk, or use finetune=lora."
        )


def run_training(job: Job, start: Path, into: Path, work: Path) -> dict[str, Any]:
    """The result of `train.train`, in a process of its own."""
    result = work / "result.json"
    result.unlink(missing_ok=True)
    process = subprocess.run(
        [sys.executable, "-m", "patientdx.training.train", str(start), str(into), str(work)],
        input=job.to_json(),  # through the pipe: the texts are not written anywhere
        stdout=subprocess.DEVNULL,
        text=True,
        env=single_process_environment(),
        check=False,
    )
    if process.returncode in (-9, 137):
        raise UserError(
            f"finetune={job.hyperparameters.method}: the training was ended from outside, most likely for want of "
            "memory. Set finetune.micro_batch_size or finetune.max_tokens lower, finetune.gradient_checkpointing=true, "
            "or use finetune=lora; what is done by now is kept, and the same command goes on from there."
        )
    if process.returncode != 0:
        raise RuntimeError(f"the training ended with code {process.returncode}; its last output is above")
    trained = json.loads(result.read_text())
    if "error" in trained:
        shutil.rmtree(work)  # other settings make another job
        raise UserError(trained["error"])
    return trained


def single_process_environment() -> dict[str, str]:
    """This process's environment without the variables of a launcher, and with one GPU."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHER_VARIABLES and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), environment.get("PYTHONPATH"))))
    environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    # Threads that wait for one another give up the core: on a busy machine they would wait for ever.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | environment | {"HF_HUB_OFFLINE": "1"}
