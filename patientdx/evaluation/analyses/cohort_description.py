"""What a clinical evaluation says of the stays: Table 1, missingness, years, and what their number allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from patientdx.evaluation.config.run_config import RunConfig
from patientdx.metrics import description, sample_size
from patientdx.records.splits import ALL_SPLITS
from patientdx.tasks.example import TaskData

_MEAN = " mean"
_SINGLE = ("age", "urine")  # features that are no reading


def describe(config: RunConfig, data: TaskData, models: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values: `columns`, `numbers` and `groups` as of `patientdx.metrics.description`, `missing` by variable and
    split, `years` of prediction by split, and `sample_size` of the reported split.

    models: those of the evaluation, whose suppressed subgroups are suppressed here too. All splits of the task are
    there, scored or not.
    """
    split = [example.split for example in data.examples]
    label = [example.label or 0 for example in data.examples]
    splits = [name for name in ALL_SPLITS if name in split]
    reported, least = config.inference.reported, config.analyses.subgroups.min_rows
    values = _values(data)
    events = sum(outcome for outcome, name in zip(label, split, strict=True) if name == reported)
    years = {
        name: sorted(time.year for time, part in zip(data.times, split, strict=True) if part == name)
        for name in (splits if data.times else ())
    }
    return {
        "columns": description.columns(split, label, splits),
        "numbers": description.numbers(values, split, label, splits, least),
        "groups": description.groups(data.groups, split, label, splits, least, _withheld(models, reported)),
        "missing": description.missing(values, split, splits),
        "years": {name: [of_split[0], of_split[-1]] for name, of_split in years.items()},
        "sample_size": sample_size.statement(split.count(reported), events, level=config.bootstrap.level),
    }


def _values(data: TaskData) -> dict[str, np.ndarray]:
    """Age, urine, the mean of each reading over the window, and the severity scores, (n,) each."""
    values: dict[str, np.ndarray] = {}
    for table in filter(None, (data.features, data.severity_points)):
        single = _SINGLE if table is data.features else table.names
        for number, name in enumerate(table.names):
            if name in single or name.endswith(_MEAN):
                values[name.removesuffix(_MEAN)] = table.values[:, number]
    return values


def _withheld(models: Mapping[str, Any], reported: str) -> dict[tuple[str, str], set[str]]:
    """By (split, grouping) the groups that the subgroups of the reported split suppress."""
    first = next(iter(models.values()), {"subgroups": {}})
    return {
        (reported, grouping): {group for group, cell in part["cells"].items() if "suppressed" in cell}
        for grouping, part in first["subgroups"].items()
    }
