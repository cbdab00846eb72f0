"""A comparator as a folder in the cache: known by all that its weights depend on, whole or absent, trained once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from patientdx.checkpoints.patient_mark import mark, marked
from patientdx.checkpoints.source import REPOSITORY, ModelSource
from patientdx.core.cache import build_folder
from patientdx.core.errors import UserError
from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.texts import Text, digest

TRAINING, CURVE = "training.json", "loss.png"
# Part of every key: raise it when the same job comes to give other weights.
_VERSION = 1
_LIBRARIES = ("torch", "transformers", "accelerate", "peft")
# What tells a process that it is one of several: training is one alone.
_TEAM = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        start: of the model before training, all that its weights depend on: content hashes, method, λ; JSON.
        how: see `Hyperparameters`.
        texts: what it is trained on, in nested order.
        pilot: what is looked at between, with `labels` (of yes/no questions); empty without `hyperparameters.patience`.
        options: token ids of yes and of no, the positive one first; empty where answers are others.
        open_data: whether all of the texts are public or generated.
        device: cpu, cuda, ...
        threads: of the CPU: the last bits of a product can depend on how many share it.
    """

    start: str
    hyperparameters: Hyperparameters
    texts: tuple[Text, ...]
    pilot: tuple[Text, ...]
    labels: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    open_data: bool
    device: str
    threads: int

    @cached_property
    def key(self) -> str:
        """SHA-256 of the job and of the libraries that do it."""
        looked = self.hyperparameters.patience is not None
        facts = {
            "version": _VERSION,
            "start": json.loads(self.start),
            "hyperparameters": asdict(self.hyperparameters),
            "texts": digest(self.texts),
            "pilot": [digest(self.pilot), self.labels, self.options] if looked else None,
            "open_data": self.open_data,
            "device": self.device,
            "threads": self.threads if self.device == "cpu" else None,
            "libraries": {name: version(name) for name in _LIBRARIES},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Trained:
    """A comparator: its `folder` (an adapter, or a whole model), a `source` to open it by, and what it took."""

    folder: Path
    source: ModelSource
    facts: Mapping[str, Any]


def place(job: Job, cache: Path) -> Path:
    """The folder that the comparator has, or will have."""
    return cache / "finetuned" / f"{job.hyperparameters.method}-{job.key[:16]}"


def facts_of(job: Job, cache: Path) -> dict[str, Any] | None:
    """What training took, and how its loss went; None where it has not been done here."""
    file = place(job, cache) / TRAINING
    return json.loads(file.read_text()) if file.is_file() else None


def build(job: Job, start: Callable[[], Path], cache: Path) -> Trained:
    """The comparator; trained now unless its folder is there.

    One process trains, in a process of its own; others that ask meanwhile wait. A training that was stopped, by
    whatever, goes on from its last checkpoint when it is asked for again, and ends with the same weights.

    Args:
        start: gives the folder of the model to train: configuration, safetensors, tokenizer. Called where needed.

    Raises:
        UserError: the model cannot be trained so, memory or disk do not suffice, the loss is no number.
    """
    final = build_folder(place(job, cache), lambda into: _build(job, start(), into, cache))
    held = start() if job.hyperparameters.method == "lora" else None
    name = final.name[:13]  # method and eight digits
    source = ModelSource(name, str(final)) if held is None else ModelSource(name, str(held), adapter=str(final))
    return Trained(final, source, facts_of(job, cache))


def _build(job: Job, start: Path, into: Path, cache: Path) -> None:
    """Train into the folder `into`; checkpoints lie beside it until it is done."""
    work = cache / "finetuned" / f".{place(job, cache).name}.checkpoints"
    _make_room(job, start, work)
    work.mkdir(exist_ok=True)
    closed = not job.open_data or marked(start)
    for folder in (work, into) if closed else ():
        mark(folder)
    found = _run(job, start, into, work)
    facts = {
        "fingerprint": job.key,
        "start": json.loads(job.start),
        "hyperparameters": asdict(job.hyperparameters),
        "texts": len(job.texts),
        "pilot_texts": len(job.pilot),
        "holds_patients": closed,
        "device": job.device,
        "threads": job.threads,
        "libraries": {name: version(name) for name in _LIBRARIES},
        **found,
    }
    (into / TRAINING).write_text(json.dumps(facts, indent=1) + "\n")
    draw(facts, into / CURVE)
    shutil.rmtree(work)


def _make_room(job: Job, start: Path, work: Path) -> None:
    """UserError where the disk cannot hold the checkpoints: weights and AdamW's two averages of each, twice over."""
    numbers = sum(file.stat().st_size for file in start.glob("*.safetensors")) // 2  # bfloat16, as nearly all are
    need = 2 * 12 * numbers + 2 * numbers if job.hyperparameters.method == "full" else 0
    free = shutil.disk_usage(work.parent).free
    if free < need and not work.exists():
        raise UserError(
            f"finetune=full: checkpoints take up to {need / 1e9:.1f} GB, but {work.parent} has {free / 1e9:.1f} GB "
            "free: free some space, set PATIENTDX_CACHE to a folder on a larger disk, or use finetune=lora."
        )


def _run(job: Job, start: Path, into: Path, work: Path) -> dict[str, Any]:
    """What `finetune.train` returns, in a process of its own."""
    # By the pipe: the texts are not written anywhere.
    result = work / "result.json"
    told = {
        "result": str(result),
        "start": str(start),
        "into": str(into),
        "work": str(work),
        "hyperparameters": asdict(job.hyperparameters),
        "texts": [[one.ids, one.first] for one in job.texts],
        "pilot": [[one.ids, one.first, label] for one, label in zip(job.pilot, job.labels, strict=True)],
        "options": job.options,
        "device": job.device,
        "threads": job.threads,
    }
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "patientdx.training.train"],
        input=json.dumps(told),
        stdout=subprocess.DEVNULL,
        text=True,
        env=_alone(),
        check=False,
    )
    if done.returncode in (-9, 137):
        raise UserError(
            f"finetune={job.hyperparameters.method}: the training was ended from outside, most likely for want of memory. Set "
            "finetune.micro_batch_size or finetune.max_tokens lower, finetune.gradient_checkpointing=true, or use "
            "finetune=lora; what is done by now is kept, and the same command goes on from there."
        )
    if done.returncode != 0:
        raise RuntimeError(f"the training ended with code {done.returncode}; its last words are above")
    found = json.loads(result.read_text())
    if "refused" in found:
        shutil.rmtree(work)  # other numbers make another job
        raise UserError(found["refused"])
    return found


def _alone() -> dict[str, str]:
    """This process's environment without its fellows, and with one GPU."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _TEAM and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), kept.get("PYTHONPATH"))))
    if "CUDA_VISIBLE_DEVICES" not in kept:
        kept["CUDA_VISIBLE_DEVICES"] = "0"
    kept["CUDA_VISIBLE_DEVICES"] = kept["CUDA_VISIBLE_DEVICES"].split(",")[0]
    # Threads that wait for one another let others have the core: on a busy machine they would wait for ever.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"HF_HUB_OFFLINE": "1"}


def draw(facts: Mapping[str, Any], path: Path) -> None:
    """The loss against the step: of every step's texts, and on pilot where it was looked at."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*facts["train"], strict=True), color="0.6", linewidth=1, label="train, each step")
    if facts["pilot"]:
        steps, losses, _ = zip(*facts["pilot"], strict=True)
        axes.plot(steps, losses, marker="o", markersize=3, label="pilot")
    if facts["best_step"] is not None:
        axes.axvline(facts["best_step"], color="0.3", linewidth=0.8, linestyle=":", label="kept")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150, format="png")
