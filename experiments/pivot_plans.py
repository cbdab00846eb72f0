"""How each pivot is trained: the generator of its questions, and the steps and stages of both parts of the training.

A plan has `steps` of the optimiser, of about `tokens` padded tokens each, its learning rate `lr` with linear warm-up
and decay, and `stages`. A stage ends once the mean accuracy of ten steps reaches `until`, or at the step `by` (a share
of all) at the latest; what else a stage has are the arguments of the generator's `conversation`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from patientdx.tasks.generated_question import Question

# Numbers come before lists: with all kinds at once the loss stayed that of a coin.
EASY = {"panels": 0.75, "short": ("comparison", "range"), "marked": 1.0, "inline": 1.0, "easy": True}
FIRST = {"panels": 0.7, "short": ("comparison", "range"), "marked": 1.0, "inline": 0.5}
THEN = {"panels": 0.8, "short": ("comparison", "range", "arithmetic", "units", "trend"), "marked": 0.2}

# In the layout of brief/2. `item` and `units` stayed at chance with the plan `numeric`: no stage had them with easy
# numbers or in short lists, and units were one in 25 chats. Here named readings are looked up in lists of two to five,
# then of eight, then of all lengths, and sums and units are lists of questions, each answered in its line.
SUMS = ("arithmetic", "units", "units", "comparison")
LOOKED_UP = ("item",) * 7 + ("count",)
SHORT_LISTS = {
    "panels": 0.55, "brief": 0.75, "sizes": (2, 5), "marked": 0.3, "inline": 0.7, "about": LOOKED_UP, "short": SUMS,
    "drills": 0.8, "easy": True,
}  # fmt: skip
LONGER_LISTS = {
    "panels": 0.65, "brief": 0.75, "sizes": (3, 8), "marked": 0.2, "inline": 0.3, "about": (*LOOKED_UP, "most"),
    "short": (*SUMS, "trend", "range"), "drills": 0.6,
}  # fmt: skip
ALL_LISTS = {
    "panels": 0.75, "brief": 0.7, "marked": 0.15, "about": ("item",) * 5 + ("most",) + ("count",) * 2,
    "short": (*SUMS, "trend", "range"), "drills": 0.4,
}  # fmt: skip

# Facts in lists that are marked in place first: an answer in six tokens instead of thirty.
MARKED_FACTS = {"marked": 0.9}
ALL_FACTS = {"marked": 0.4, "lists": 0.15, "choices": 0.15}

PLANS = {
    "numeric": {  # as the shipped adapter was trained
        "generator": "numeric",
        "full": {
            "steps": 480, "tokens": 2048, "lr": 3e-4, "warmup_steps": 15,
            "stages": ({"until": 0.9, "by": 0.3, **EASY}, {"until": 0.9, "by": 0.6, **FIRST}, THEN),
        },
        "cut": {"steps": 70, "tokens": 2048, "lr": 5e-4, "warmup_steps": 5, "stages": (THEN,)},
    },
    "numeric_brief": {  # with --start from the shipped adapter
        "generator": "numeric",
        "full": {
            "steps": 290, "tokens": 1536, "lr": 4e-4, "warmup_steps": 20,
            "stages": (
                {"until": 0.9, "by": 0.25, **SHORT_LISTS}, {"until": 0.9, "by": 0.55, **LONGER_LISTS}, ALL_LISTS,
            ),
        },
        "cut": {"steps": 35, "tokens": 1536, "lr": 4e-4, "warmup_steps": 5, "stages": (ALL_LISTS,)},
    },
    "biomedical": {
        "generator": "biomedical",
        "full": {
            "steps": 430, "tokens": 1024, "lr": 5e-4, "warmup_steps": 20,
            "stages": ({"until": 0.9, "by": 0.4, **MARKED_FACTS}, ALL_FACTS),
        },
        "cut": {"steps": 50, "tokens": 1024, "lr": 5e-4, "warmup_steps": 5, "stages": (ALL_FACTS,)},
    },
}  # fmt: skip


def bounded(plan: dict, *, steps: int | None = None, tokens: int | None = None, lr: float | None = None) -> dict:
    """The plan with so many steps, tokens a step and that rate; warm-up and stages keep their share."""
    bounds = {key: value for key, value in (("tokens", tokens), ("lr", lr)) if value is not None}
    if steps is not None:
        bounds |= {"steps": steps, "warmup_steps": max(1, round(plan["warmup_steps"] * steps / plan["steps"]))}
    return plan | bounds


def rate(step: int, plan: dict) -> float:
    """The learning rate of a step: linear warm-up, then linear decay to zero."""
    return plan["lr"] * min(
        (step + 1) / plan["warmup_steps"], (plan["steps"] - step) / (plan["steps"] - plan["warmup_steps"])
    )


class Curriculum:
    """The stage that a training is in, and the chats of that stage."""

    def __init__(self, plan: dict, converse: Callable[..., list[Question]], control: int | None = None) -> None:
        self.plan, self.converse, self.control = plan, converse, control
        self.stage, self.recent = 0, deque[float](maxlen=10)

    def learnt(self, step: int, accuracy: float) -> bool:
        """Note a step's accuracy; True if the next stage begins."""
        self.recent.append(accuracy)
        now = self.plan["stages"][self.stage]
        if self.stage + 1 == len(self.plan["stages"]):
            return False
        good = len(self.recent) == 10 and sum(self.recent) / 10 >= now["until"]
        if not good and step + 1 < now["by"] * self.plan["steps"]:
            return False
        self.stage += 1
        self.recent.clear()
        return True

    def conversation(self, rng: random.Random) -> list[Question]:
        """A chat of the present stage; of a control, with wrong knowledge in it."""
        stage = self.plan["stages"][self.stage]
        keys = {key: value for key, value in stage.items() if key not in ("until", "by")}
        return self.converse(rng, control=self.control, **keys)
