"""What a run is asked to measure of its models' leakage: the `privacy` group of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MEASURES = {"none": (), "dlt": ("dlt",), "mia": ("mia",), "all": ("dlt", "mia")}
REFERENCES = (None, "fresh", "resampled")


@dataclass(frozen=True)
class PrivacyConfig:
    """The keywords of conf/privacy/*.yaml, as all.yaml explains them."""

    name: str = "none"
    reference: str | None = None
    k: float = 20.0
    recall: int = 1
    neighbours: int = 0
    shadows: int = 0
    canaries: tuple[int, ...] = ()
    canaries_each: int = 4
    candidates: int = 255
    extraction: int = 0

    @property
    def enabled(self) -> bool:
        """Whether any measure is."""
        return self.dlt or self.mia

    @property
    def dlt(self) -> bool:
        """Whether the leakage test is asked for."""
        return "dlt" in MEASURES[self.name]

    @property
    def mia(self) -> bool:
        """Whether membership inference is asked for."""
        return "mia" in MEASURES[self.name]


def request(config: Mapping[str, Any], errors: list[str]) -> PrivacyConfig:
    """The request of a whole config as plain values; what is wrong with it, or with it beside the rest, to `faults`."""
    node = dict(config.get("privacy") or {})
    known = {field.name: field.default for field in fields(PrivacyConfig)}
    errors += [f"privacy.{key}: there is no such key; it takes {', '.join(known)}." for key in node if key not in known]
    given = known | {key: value for key, value in node.items() if key in known}
    if given["name"] not in MEASURES:
        errors.append(f"privacy={given['name']}: it is one of {', '.join(MEASURES)}.")
        given["name"] = "none"
    if given["reference"] not in REFERENCES:
        errors.append(f"privacy.reference={given['reference']}: it is null, fresh or resampled.")
    least = {"recall": 0, "neighbours": 0, "shadows": 0, "canaries_each": 1, "candidates": 1, "extraction": 0}
    for key, low in least.items():
        if not _whole(given[key], low):
            errors.append(f"privacy.{key}={given[key]}: give a whole number of at least {low}.")
    if _whole(given["shadows"], 1) and given["shadows"] < 4:
        errors.append(f"privacy.shadows={given['shadows']}: LiRA needs at least 4 shadow models, or 0 to leave it out.")
    k = given["k"]
    if isinstance(k, bool) or not isinstance(k, int | float) or not 0 < k <= 100:
        errors.append(f"privacy.k={k}: Min-K% takes a percentage above 0, up to 100.")
    copies = given["canaries"]
    if not isinstance(copies, list | tuple) or not all(_whole(number, 1) for number in copies):
        errors.append(f"privacy.canaries={copies}: give numbers of copies of at least 1, as in [1,4,16]; [] for none.")
        copies = ()
    found = PrivacyConfig(**given | {"canaries": tuple(copies)})
    errors += _beside(found, config)
    return found


def _beside(asked: PrivacyConfig, config: Mapping[str, Any]) -> list[str]:
    """What in the rest of the config speaks against it."""
    if asked.name == "none":
        return []
    found, name = [], f"privacy={asked.name}"
    if config["task"].get("name") == "none":
        found.append(f"{name}: losses are measured on a task's records. Choose a task, or privacy=none.")
    if config["model"].get("name") != "merged":
        found.append(f"{name}: a tabular model gives no loss to a text. Use model=merged, or privacy=none.")
    if config["parents"] is not True:
        found.append(f"{name}: every model is set against the one that it came from. Leave parents=true.")
    if config["tokenizer"] in ("pivot", "union"):
        found.append(
            f"{name}: with tokenizer={config['tokenizer']} the base reads another tokenizer's tokens than its own, and "
            "its losses are no reference. Use tokenizer=base, or parents with one vocabulary."
        )
    fine_tuned = (config.get("finetune") or {}).get("name", "none") != "none"
    for key in ("canaries", "shadows"):
        if getattr(asked, key) and not fine_tuned:
            found.append(f"privacy.{key}: without fine-tuning there is nothing to put into. Add finetune=lora or full.")
        if getattr(asked, key) and not asked.mia:
            found.append(f"privacy.{key}: it is part of membership inference. Use privacy=mia or all.")
    return found


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
