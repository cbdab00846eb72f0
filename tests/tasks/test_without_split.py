"""What a private search sees of the data beside the pilot: nothing that depends on who is in it, field by field."""

from dataclasses import fields, replace

import numpy as np
import pytest
from tasks_by_yaml import load

from patientdx.tasks.example import TaskData, without_split

# What has an entry for each example, and what counts or hashes all of them.
BY_EXAMPLE = ("examples", "features", "severity", "groups", "times")
OF_ALL = ("fingerprint", "provenance", "cohort", "readings")
PUBLIC = ("name", "kind", "open_data", "prompt_variants", "chat", "generation", "ranking")


@pytest.fixture(scope="module")
def data(session_cache) -> TaskData:
    return load("mortality", cache=session_cache, synthetic={"stays": 60, "seed": 0}, threads=1)


def cut(data: TaskData, rows: list[int]) -> TaskData:
    """The data of some rows, as if the others had never been there; counts are told apart by their number."""
    return replace(
        data,
        examples=tuple(data.examples[i] for i in rows),
        features=replace(data.features, values=data.features.values[rows]),
        severity=replace(data.severity, values=data.severity.values[rows]),
        groups={name: tuple(values[i] for i in rows) for name, values in data.groups.items()},
        times=tuple(data.times[i] for i in rows),
        fingerprint=f"{len(rows)}",
        provenance=data.provenance | {"tables": len(rows)},
        cohort=[{"stays": len(rows)}],
        readings=[{"charted": len(rows)}],
    )


def plain(data: TaskData) -> dict:
    made = {field.name: getattr(data, field.name) for field in fields(data)}
    for name in ("features", "severity"):
        made[name] = made[name].names, np.nan_to_num(made[name].values, nan=-1.0).tolist()
    return made


def test_every_field_is_known_here():
    """A new field of TaskData is sorted into one of the three, and `without_split` heeds it."""
    assert sorted((*BY_EXAMPLE, *OF_ALL, *PUBLIC)) == sorted(field.name for field in fields(TaskData))


def test_nothing_depends_on_who_is_in_the_split(data):
    pilot = [i for i, example in enumerate(data.examples) if example.split == "pilot"]
    others = [i for i in range(len(data.examples)) if i not in pilot]
    assert pilot
    assert max(pilot) > min(others)  # rows behind the pilot's move up
    found = [plain(without_split(cut(data, sorted([*others, *some])), "pilot")) for some in (pilot, pilot[1:], [])]
    assert found[0] == found[1] == found[2]
    reported = without_split(data, "pilot")
    for table, before in ((reported.features, data.features), (reported.severity, data.severity)):
        np.testing.assert_array_equal(table.values, before.values[others])
    assert reported.cohort == reported.readings == []
    assert set(reported.provenance) == {"settings", "withheld"}
