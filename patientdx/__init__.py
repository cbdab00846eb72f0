"""PatientDx: merge public language models to predict from patient records, without a gradient on a patient.

In a notebook: `merge`, `evaluate`, `sweep` and `select`, see `patientdx.api`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patientdx.api import evaluate, merge, select, sweep

__version__ = "0.2.0"
__all__ = ["evaluate", "merge", "select", "sweep"]


class _MergePackage(ModuleType):
    """`patientdx.merge` is the package of merge methods; called, it is `patientdx.api.merge`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("patientdx.api").merge(*arguments, **options)


# An import of a merge method binds the name to the package, so the function has to be the package; it loads no library.
import_module("patientdx.merge").__class__ = _MergePackage


def __getattr__(name: str) -> Any:
    """A function of `patientdx.api`; not imported before it is used, as it takes the libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module("patientdx.api"), name)
