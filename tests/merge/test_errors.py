"""What the merge methods do not accept, one line for each error; errors of every method are in test_laws."""

import inspect
import math
import re

import pytest
import torch

from patientdx.core.functions import dotted
from patientdx.merge.curve import evaluate
from patientdx.merge.method import method_spec
from patientdx.merge.task_arithmetic import task_arithmetic

DENSITY = "merge.density={} is no share of the elements: give a number above 0 and up to 1"
COMPAT = "merge.compat=x: it is one of {}"
TRIM = "merge.trim=x: it is one of tensor, model"
WHOLE = "merge.trim=model needs whole models first: give what MethodSpec.fit_global_thresholds returns as cutoffs"
SHAPES = "merge={} joins tensors of one shape, got (2,) and (3,)"
KEPT = (
    "merge.density={} with merge.epsilon={} gives keep probabilities from {} to {}, and they must lie between 0 and 1, "
    "ends excluded: lower epsilon or move density"
)
SHARES = "merge.weights={} are no shares: give a list of numbers of at least 0, not all 0"
COLLINEAR = "merge.collinear={} is no |cos θ|: give a number from 0 to 1"
TOL = "merge.tol={} is no angle: give radians of at least 0"
nan, inf = math.nan, math.inf

ERRORS = [  # method, lengths of the parents, arguments, message
    *((method, [2] * n, {}, f"merge={method} joins exactly two parents, got {n}")
      for method in ("slerp", "nuslerp", "nearswap") for n in (0, 1, 3)),
    *((method, [2] * n, {}, f"merge={method} joins two or more parents, got {n}")
      for method in ("linear", "karcher", "multislerp", "model_stock") for n in (0, 1)),
    *((method, [2, 3], {}, SHAPES.format(method))
      for method in ("slerp", "nuslerp", "nearswap", "linear", "karcher", "multislerp", "model_stock")),
    *((method, [2, 2], {"compat": "x"}, COMPAT.format("paper, mergekit"))
      for method in ("dare_linear", "della_linear", "sce", "multislerp", "model_stock", "breadcrumbs_ties")),
    ("ties", [2, 2], {"compat": "x"}, COMPAT.format("paper, mergekit, peft")),
    ("dare_ties", [2, 2], {"compat": "x"}, COMPAT.format("paper, sum, mergekit, peft")),
    ("della", [2, 2], {"compat": "x"}, COMPAT.format("paper, sum, mergekit")),
    *((method, [2, 2], {"density": density}, DENSITY.format(density))
      for method, density in (("ties", 0), ("breadcrumbs", 2), ("dare_linear", 1.5), ("sce", 0))),
    *((method, [2, 2], {"trim": "x"}, TRIM) for method in ("ties", "breadcrumbs", "breadcrumbs_ties")),
    *((method, [2, 2], {"trim": "model"}, WHOLE) for method in ("ties", "breadcrumbs", "breadcrumbs_ties")),
    ("breadcrumbs", [2, 2], {"gamma": 0.2}, "merge.gamma=0.2 is the share dropped at the top, beside merge.density=0.9 "
     "that stays: give a number from 0 to 0.1"),
    *(("della_linear", [2, 2], {"density": density, "epsilon": epsilon}, KEPT.format(density, epsilon, low, high))
      for density, epsilon, low, high in (
          (0.9, 0.15, "0.75", "1.05"), (0.1, 0.1, "0", "0.2"), (0.5, -0.1, "0.6", "0.4"), (1, 0, "1", "1"))),
    ("sce", [2], {}, "merge=sce compares two parents or more, got 1"),
    ("task_arithmetic", [2, 2], {"form": "x"}, "merge.form=x: it is one of scaled, convex"),
    ("task_arithmetic", [2] * 3, {"form": "convex"}, "merge=task_arithmetic with merge.form=convex joins exactly two "
     "parents, got 3"),
    ("task_arithmetic", [2, 2], {"form": "convex", "weights": [1, 2]}, "merge.weights=[1, 2] is not valid with "
     "merge.form=convex, where lambda weighs both parents: leave it null, or use merge.form=scaled"),
    ("nuslerp", [2, 2], {"of": "x"}, "merge.of=x: it is one of weights, deltas"),
    ("nuslerp", [2, 2], {"of": "deltas", "ancestor": None}, "merge.of=deltas joins differences from the parents' "
     "common ancestor, and none is given: set base_model@ancestor=<its yaml>, or merge.of=weights"),
    ("nuslerp", [2, 2], {"of": "deltas", "ancestor": torch.ones(3)}, SHAPES.format("nuslerp")),
    ("model_stock", [2, 2], {"ancestor": torch.ones(3)}, SHAPES.format("model_stock")),
    ("karcher", [2, 2], {"max_iter": 0}, "merge.max_iter=0: the mean takes at least 1 step"),
    *(("karcher", [2, 2], {"tol": tol}, TOL.format(f"{tol:g}")) for tol in (-1e-5, nan)),
    *(("slerp", [2, 2], {"collinear": x}, COLLINEAR.format(x)) for x in (-0.1, 1.1, nan)),
    *(("linear", [2] * 3, {"weights": weights}, SHARES.format(weights))
      for weights in ([1, -1], [0, 0], [], [1, nan], [1, inf], 2.0, "12", ["1", 1])),
    ("linear", [2] * 3, {"weights": [1, 2, 3]}, "merge.weights=[1, 2, 3] cannot be matched to the parents beside the "
     "base: give one number for each of the 2, in order"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "lengths", "arguments", "message"), ERRORS)
def test_errors(method, lengths, arguments, message):
    function = dotted(f"patientdx.merge.{method}.{method}")
    supplied = {"ancestor": torch.ones(2), "name": "x", "seed": 0} | arguments
    named = inspect.signature(function).parameters
    supplied = {name: value for name, value in supplied.items() if name in named}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function([torch.ones(length) for length in lengths], **supplied)


def test_thresholds_are_checked_before_models_are_read():
    with pytest.raises(ValueError, match=TRIM):
        method_spec(dotted("patientdx.merge.ties.ties")).fit_global_thresholds(list, {"trim": "x"})


def test_the_convex_form_ends_at_the_pivot():
    curve = task_arithmetic((torch.ones(2), torch.ones(2)), ancestor=torch.ones(2), form="convex")
    with pytest.raises(ValueError, match=r"^lambda=1.5 is outside \[0, 1\]: merge.form=convex goes from the base to"):
        evaluate(curve, 1.5, torch.empty(2))
