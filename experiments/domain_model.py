"""A domain model: a base fine-tuned on questions about records, or on clinical dialogue, and written as a whole model.

    python -m experiments.domain_model                             # synthetic records: nothing to download, no patient
    python -m experiments.domain_model --examples 96               # in a quarter of the time
    python -m experiments.domain_model --data FOLDER               # MTS-Dialog in FOLDER/dialogue_to_section
    python -m experiments.domain_model finetune.rank=16 task.synthetic.seed=2     # or what else run.py takes

The folder <output>/domain_model is what pivot_model=smollm2_135m_domain opens, for experiment=forgetting and
experiment=fewshot; that of dialogue is <output>/domain_model_dialogue, pivot_model=smollm2_135m_dialogue, for
experiment=forgetting_dialogue. The synthetic hospital is another one than theirs (seed 1). A training that was stopped
goes on when the command is given again, and ends with the same bits; one that is done is found, and nothing is trained.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from experiments.reading import show
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.patient_mark import mark, marked
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import REPOSITORY, holds_patients
from patientdx.core.errors import UserError
from patientdx.evaluation import contamination, finetuned
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.config.run_config import RunConfig, parse
from patientdx.evaluation.kinds import TaskContext, kind_named
from patientdx.evaluation.prompting import prompt_spec
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import read_json, write_json
from patientdx.tasks.example import Example
from patientdx.training.build import Trained
from patientdx.training.job import Job

log = logging.getLogger(__name__)
STEM = "domain_model"
TRAINING = "training.json"  # beside the weights: on what they were trained, how, and what it took
_USUAL = (
    *("merge=none", "finetune=lora", "finetune.patience=null", "baselines=[]", "clinical=false", "tracking=none"),
    "finetune.check_every=8",  # of one pass there would be one checkpoint, at its end
)
# Of our bases the one that knows something general that can be asked without files: what is to be seen forgotten.
RECORDS = (
    "base_model=smollm2_135m_numeric",
    "task=record_qa_short",
    "task.synthetic={stays: 240, seed: 1}",
    "task.fractions={train: 0.9, pilot: 0.05, test: 0.05}",
    "task.limit=null",
    # That base says yes or no to whatever it is asked: at 2e-4 and eight texts a step it hardly learns to say more.
    "finetune.learning_rate=1e-3",
    "finetune.batch=4",
)
# MTS-Dialog's train file is large, and not everyone has it: the splits are drawn anew, as the study draws them.
DIALOGUE = (
    "base_model=smollm2_135m_instruct",
    "task=dialogue_to_section",
    "task.fractions={train: 0.5, pilot: 0.2, test: 0.3}",
    "finetune.max_tokens=768",
)
_NOT_THAT = (
    "a domain model is a base fine-tuned on train: leave finetune.init_from and finetune.split as they are, and use "
    "finetune=lora or full."
)
RECORDS_SHOWN, DIALOGUES_SHOWN = 384, 192  # about what a quarter of an hour of one core is enough for


def composed(asked: argparse.Namespace) -> RunConfig:
    """The settings of the training, the base in the pivot's place too; UserError where they will not do."""
    if "finetune=none" in asked.overrides:
        raise UserError(_NOT_THAT)
    given = [*_USUAL, *(RECORDS if asked.data is None else (*DIALOGUE, f"data={asked.data}"))]
    examples = asked.examples or (RECORDS_SHOWN if asked.data is None else DIALOGUES_SHOWN)
    given += [f"output={asked.output}", f"finetune.epochs={asked.epochs}", f"finetune.examples={examples}"]
    given += asked.overrides
    try:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = parse(compose("config", given))
    except HydraException as error:
        raise UserError(str(error).splitlines()[0]) from error
    if config.finetune.init_from != "base" or config.finetune.split != "train":
        raise UserError(_NOT_THAT)
    assert config.merge is not None
    return config.with_merge(config.weight, pivot=config.merge.base)


def context_of(session: Session, config: RunConfig) -> TaskContext:
    """The task, of which no split is scored."""
    task, parents = config.task_config, session.parents(config.merge_config.spec, config.cache)
    spec = prompt_spec(config, parents)
    return TaskContext(kind_named(task.kind), session.task_data(task.call), {}, task.metrics, parents, spec)


def training(session: Session, config: RunConfig) -> Job:
    """What is to be trained. UserError where the records are patients' and nobody said that they may be."""
    context = context_of(session, config)
    data = context.data
    if not config.save.patients and (not data.open_data or holds_patients(config.merge.base)):
        raise UserError(
            f"task={config.task.name}: what the model would be trained on is not open, and a model can give it away. "
            "Say save_patients=true: the folder is then marked as one that holds patients."
        )
    rows = finetuned.rows(config.finetune, context)
    return finetuned.job(session, config, context, {"parent": context.parents.hashes[0]}, rows=rows)


def written(session: Session, config: RunConfig, trained: Trained, folder: Path) -> str:
    """Write the trained model into the folder as one without adapter; its content hash."""
    merge_spec = MergeSpec((replace(trained.source, name=STEM),), config.merge.spec.call)
    # For the record: the base, and the training by its key, wherever on this machine it lies.
    told = replace(config.merge.base, name=STEM, adapter=trained.folder.name, ancestor=config.merge.base.name)
    save(session.recipe(merge_spec, None, config.cache, adapt=True), folder, cache=config.cache, sources=(told,))
    if marked(trained.folder) or not session.task_data(config.task.call).open_data:
        mark(folder)
    return content_hash(Checkpoint(folder), config.cache)


def facts(session: Session, config: RunConfig, trained: Trained, digest: str) -> dict[str, Any]:
    """What goes beside the weights: base, task, numbers, seconds, memory, the loss of every step."""
    data = session.task_data(config.task.call)
    return {
        "title": f"{finetuned.title(config)} on {config.task.name}",
        "base": config.merge.base.name,
        "task": {"name": config.task.name, "fingerprint": data.fingerprint, **data.provenance},
        "sha256": digest,
        **trained.record,
    }


def taught(session: Session, config: RunConfig) -> Iterator[Example]:
    """The examples that it is trained on."""
    context = context_of(session, config)
    yield from (context.data.examples[i] for i in finetuned.rows(config.finetune, context))


def there(folder: Path, job: Job) -> dict[str, Any] | None:
    """What is told of this very model, if the folder holds it. UserError where it holds another."""
    told = read_json(folder / TRAINING)
    if told is not None and told["fingerprint"] != job.key:
        raise UserError(
            f"{folder} holds another domain model ({told['title']}): delete it, or give this one a --name of its own "
            "and say pivot_model.source=<its folder> to the study."
        )
    return told


def contents(asked: argparse.Namespace) -> Iterator[str]:
    """Make the model; what was made, what it took, and what to do with it."""
    config, session = composed(asked), Session()
    usual, study = (STEM, "forgetting") if asked.data is None else (f"{STEM}_dialogue", "forgetting_dialogue")
    folder = config.output / (asked.name or usual)
    job = training(session, config)
    told = there(folder, job)
    if told is None:
        tokens = sum(len(one.ids) for one in job.texts)
        log.info("training %s: %d texts, %d tokens a pass", config.merge.base.name, len(job.texts), tokens)
        trained = finetuned.trained(session, config, job)
        told = facts(session, config, trained, written(session, config, trained, folder))
        write_json(told, folder / TRAINING)
    contamination.write_manifest(folder, taught(session, config))
    losses = [loss for _, loss in told["train"]]
    yield finetuned.cost(told["title"], told, None)
    yield f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last; base {config.merge.base.name}"
    yield f"sha256 {told['sha256']}"
    yield f"domain model: {folder}"
    more = "" if asked.data is None else f" data={asked.data}"
    more += "" if config.output == Path("outputs") else f" output={config.output}"
    more += "" if folder.name == usual else f" pivot_model.source={folder}"
    yield f"Next: python run.py experiment={study}{more}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a domain model; 2 with one message where it cannot be."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{STEM}", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of public data sets: clinical dialogue instead of records")
    parser.add_argument("--examples", type=int, help="how many, nested (384; of dialogues 192)")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over them (1)")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="the study's output=")
    parser.add_argument("--name", help="name of the folder in it (domain_model; of dialogue domain_model_dialogue)")
    parser.add_argument("overrides", nargs="*", help="whatever run.py takes: finetune.rank=16 …")
    asked = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return show(lambda: contents(asked))


if __name__ == "__main__":
    raise SystemExit(main())
