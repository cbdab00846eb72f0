"""No merge: the base model as it is, for reference runs and tasks that need no pivot."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from patientdx.merge.curve import Curve
from patientdx.merge.method import merge_method


@merge_method(lambda_range=None)
def none(parents: Sequence[Tensor]) -> Curve:
    """The base, whatever the pivot; there is no λ."""
    return Curve((parents[0],), lambda weight: (1.0,))
