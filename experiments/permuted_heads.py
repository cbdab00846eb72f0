"""Does aligning heads matter? A parent with its attention heads in another order, merged with and without alignment.

    python -m experiments.permuted_heads                                       # the default pair, generated questions
    python -m experiments.permuted_heads pair=medical_7b dtype=bfloat16        # overrides as run.py takes them
    python -m experiments.permuted_heads --seed 1 task.per_kind=10
    python -m experiments.permuted_heads --read                                # what was measured before, once more

The second parent is asked twice, as it is and with its heads moved by `experiments.heads`, which it does not notice. A
merge that undoes the order is the same in both. Where the base is the pair's own ancestor it has no task vector, and a
rule by task vectors takes one parent whole: so the merge halfway between the two stands in as a first parent, too. What
was measured is left in outputs/permuted_heads/permuted_heads.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.comparison import score_table
from experiments.heads import Order, permute
from experiments.hierarchical_checks import differing_weights
from experiments.measuring import arguments, given, kept
from experiments.reading import show
from patientdx.checkpoints.source import REPOSITORY, ModelSource, locate
from patientdx.cli import save
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.evaluation.config.run_config import RunConfig, parse
from patientdx.evaluation.inference import batch_tokens
from patientdx.evaluation.kinds.binary import KIND
from patientdx.evaluation.prompting import prompt_spec, prompts_of
from patientdx.evaluation.session import Session
from patientdx.lm.binary import score
from patientdx.merge.schedule import layer_of

MERGES = {
    "linear averaging": ("merge=published/linear",),
    "hierarchical, published": ("merge=published/hierarchical",),
    "hierarchical, w after alignment": ("merge=varied/hierarchical_aligned",),
    "the same without alignment": ("merge=varied/hierarchical_aligned", "merge.alignment=none"),
}
USUAL = ("dtype=float32", "clinical=false", "splits=[test]")
QUESTIONS = ("task=numeric_questions", "task.per_kind=4")


@dataclass(frozen=True)
class Answers:
    """One model: accuracy on the questions, and of each question the log-probability of yes and of no, (n, 2).

    right: (n,) which of the two is right.
    """

    log_p: NDArray[np.float64]
    right: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of questions whose right answer is the likelier one."""
        return float((self.log_p.argmax(1) == self.right).mean())

    @property
    def loss(self) -> float:
        """Mean of -log p of the right answer, in nats: of all that a model might say."""
        return float(-self.log_p[np.arange(len(self.right)), self.right].mean())


@dataclass(frozen=True)
class Line:
    """A model with the second parent as it is and with its heads moved; None for a model that it is no part of.

    weights: how many of the merge's weights differ between the two, and of how many. undone: layers whose order of
    heads was found and taken back, and layers that have another order.
    """

    first: str
    name: str
    plain: Answers
    moved: Answers | None = None
    weights: tuple[int, int] | None = None
    undone: tuple[int, int] | None = None

    @property
    def change(self) -> float:
        """The largest change of an answer's log-probability that moving the heads made, in nats."""
        return float(np.abs(self.moved.log_p - self.plain.log_p).max())

    @property
    def facts(self) -> dict[str, Any]:
        """As permuted_heads.json has it; null for what the line has not."""
        found = {"first": self.first, "name": self.name, "accuracy": self.plain.accuracy, "loss": self.plain.loss}
        moved = dict.fromkeys(("moved_accuracy", "moved_loss", "change"))
        if self.moved is not None:
            moved = {"moved_accuracy": self.moved.accuracy, "moved_loss": self.moved.loss, "change": self.change}
        return found | moved | {"weights": self.weights, "undone": self.undone}


def asked_of(*overrides: str) -> RunConfig:
    """The settings of a run with these overrides. UserError for one that Hydra cannot place, as for what is in it."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        try:
            return parse(compose("config", list(overrides)))
        except HydraException as error:
            told = str(error).splitlines()[0]
            raise UserError(f"{told} Overrides are those of run.py, see python run.py --help.") from None


def with_questions(overrides: Sequence[str]) -> list[str]:
    """The overrides with what is usual here before them, and generated questions where they name no task."""
    named = any(one.startswith("task=") for one in overrides)
    return [*USUAL, *(() if named else QUESTIONS), *overrides]


def answers(config: RunConfig) -> Answers:
    """What the merge of these settings answers to the yes/no questions of its task."""
    session = Session()
    opened = session.parents(config.merge.spec, config.cache)
    live = session.live(opened, config.inference)
    merge = session.recipe(config.merge.spec, config.weight, config.cache)
    model = live.fill(merge, session.curves(config.merge.spec, config.cache), (config.merge.spec, config.weight))
    data, tokens = session.task_data(config.task.call), prompts_of(session, KIND, prompt_spec(config, opened))
    rows = [i for i, one in enumerate(data.examples) if one.split == config.inference.reported]
    done, values = score(model, tokens, rows, batch_tokens=batch_tokens(session, config), label="questions")
    ordered = np.empty_like(values)
    ordered[done] = values
    # Of the options the first is yes, label 1.
    return Answers(ordered, np.array([1 - data.examples[i].label for i in rows]))


def undone(config: RunConfig, made: Sequence[Order]) -> tuple[int, int]:
    """Layers in which the merge put the query heads back, and layers whose heads were moved."""
    back = {layer: " ".join(map(str, order.back())) for layer, order in enumerate(made)
             if order.heads != tuple(sorted(order.heads))}  # fmt: skip
    found = {
        layer_of(name): curve.diagnostics.get("permutation")
        for name, curve in Session().curves(config.merge.spec, config.cache).items()
        if name.endswith("q_proj.weight")
    }
    return sum(found[layer] == order for layer, order in back.items()), len(back)


def study(overrides: Sequence[str], seed: int, work: Path) -> Iterator[Line]:
    """The lines of the table, first parent after first parent. UserError for a task that does not ask yes or no."""
    given = with_questions(overrides)
    merges = {name: asked_of(*given, *more) for name, more in MERGES.items()}
    ends = merges["linear averaging"]
    if ends.task_config.kind != KIND.name:
        raise UserError(
            f"task={ends.task_config.name} does not ask yes or no: use task=numeric_questions or mortality."
        )
    ancestor = merges["hierarchical, published"].merge.ancestor
    firsts = [ends.merge.base]
    if ancestor == ends.merge.base:
        models = [one for one in (*USUAL, *overrides) if not one.startswith("task")]
        save.save(Session(), asked_of(*models, "merge=published/linear", "task=none", f"save={work / 'halfway'}"))
        firsts.append(ModelSource("halfway", str(work / "halfway"), chat_template=ends.merge.base.chat_template))
    made = permute(locate(ends.merge.pivot, ends.cache), work / "moved", seed)
    pivots = (ends.merge.pivot, ModelSource("moved", str(work / "moved"), chat_template=ends.merge.pivot.chat_template))
    yield Line("", "the second parent", *(answers(ends.with_merge(1.0, pivot=pivot)) for pivot in pivots))
    for first in firsts:
        called = "base" if first is ends.merge.base else "halfway"
        yield Line(called, "the first parent", answers(ends.with_merge(0.0, base=first)))
        # Of a first parent without a task vector the rules are all one.
        tried = list(merges)[:2] if len(firsts) > 1 and first is ends.merge.base else list(merges)
        for name in tqdm(tried, desc=f"first parent {called}", unit="merge", leave=False):
            merge = merges[name]
            plain, moved = (merge.with_merge(merge.weight, base=first, pivot=pivot) for pivot in pivots)
            found = answers(plain), answers(moved)
            aligns = plain.merge.call.keywords.get("alignment", "none") != "none"
            back = undone(moved, made) if aligns else None
            yield Line(called, name, *found, differing_weights(plain, moved), back)


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """A line a model: as it is, with the heads moved, and what that changed. lines: as `Line.facts`."""
    names = ("first\nparent", "model", "acc", "loss", "acc,\nmoved", "loss,\nmoved", "largest\nchange\nof a\nlog p",
             "weights\nthat\ndiffer", "layers\nundone")  # fmt: skip
    rows = []
    for line in lines:
        cells = [f"{line['accuracy']:.3f}", f"{line['loss']:.3f}", *["–"] * 5]
        if line["change"] is not None:
            cells[2:5] = f"{line['moved_accuracy']:.3f}", f"{line['moved_loss']:.3f}", f"{line['change']:.2g}"
        if line["weights"] is not None:
            differ, of = line["weights"]
            cells[5] = f"{100 * differ / of:.1f} %" if differ else "none"
        if line["undone"] is not None:
            cells[6] = "{}/{}".format(*line["undone"])
        rows.append((line["first"], line["name"], *cells))
    return score_table("", names, rows)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All that is shown, as permuted_heads.json has it."""
    with tempfile.TemporaryDirectory(dir=asked.work) as work:
        lines = list(study(asked.overrides, asked.seed, Path(work)))
    config = asked_of(*with_questions(asked.overrides))
    return {
        "task": config.task.name, "base": config.merge.base.name, "pivot": config.merge.pivot.name,
        "dtype": config.inference.dtype,
        "questions": len(lines[0].plain.right), "seed": asked.seed, "lines": [line.facts for line in lines],
    }  # fmt: skip


def contents(asked: argparse.Namespace) -> Iterator[Table | str]:
    """The table and its notes."""
    found = kept(asked, lambda: measure(asked))
    yield table(found["lines"])
    yield (
        f"{found['task']}, base {found['base']}, second parent {found['pivot']}, {found['dtype']}; "
        f"{found['questions']} questions; heads moved with seed {found['seed']}. Loss: the right answer's, in "
        "nats. Moved: the second parent's heads in another order, of which its own answers know nothing but rounding."
    )
    if any(line["first"] == "halfway" for line in found["lines"]):
        yield (
            f"The base is the ancestor of this pair and has no task vector, so by the rule {found['pivot']} gives "
            "all layers. Halfway is linear averaging of the two: as a first parent it has a task vector of its own."
        )
    yield "Nothing of this kind is published as far as we know."


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one message where there is none to print."""
    known = arguments("permuted_heads", __doc__)
    known.add_argument("--seed", type=int, default=0, help="of the orders of heads")
    known.add_argument("--work", type=Path, help="folder for two models while it runs; else the system's own")
    asked = given(known, words)
    return show(lambda: contents(asked))


if __name__ == "__main__":
    raise SystemExit(main())
