"""What happens after prediction time changes no text and no feature."""

import dataclasses
import gzip
import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from tasks_by_yaml import load


@pytest.mark.parametrize("template", ["intervals/1", "intervals/2"])
def test_deaths_to_come_change_no_text_and_no_feature(store, ward_csv, spoil, template):
    def spared(column: str, value: str | None = None) -> Callable[[bytes], bytes]:
        """A quarter of the patients never die."""

        def change(text: bytes) -> bytes:
            table = pd.read_csv(io.BytesIO(text), dtype=str)
            table.loc[table["subject_id"].astype(int) % 4 == 0, column] = value
            return table.to_csv(index=False).encode()

        return change

    spoil("hosp/admissions", spared("deathtime"))
    root = spoil("hosp/patients", spared("dod"))
    flags = root / "hosp/admissions.csv.gz"
    flags.write_bytes(gzip.compress(spared("hospital_expire_flag", "0")(gzip.decompress(flags.read_bytes())), 1))
    all_deaths, fewer = (
        load("mortality", cache=store, mimic_root=str(folder), window_hours=24, template=template)
        for folder in (ward_csv, root)
    )
    row_of = {example.uid: row for row, example in enumerate(fewer.examples)}
    rows = [row_of[example.uid] for example in all_deaths.examples]
    for example, row in zip(all_deaths.examples, rows, strict=True):
        spared_one = dataclasses.replace(fewer.examples[row], label=example.label, split=example.split)
        assert spared_one == example  # the split is drawn again: those who did not die before the gap's end are more
    assert sum(fewer.examples[row].label for row in rows) < sum(example.label for example in all_deaths.examples)
    common = sorted(set(all_deaths.features.names) & set(fewer.features.names))
    assert len(common) > 100
    left, right = ([list(data.features.names).index(name) for name in common] for data in (all_deaths, fewer))
    np.testing.assert_array_equal(all_deaths.features.values[:, left], fewer.features.values[rows][:, right])
