"""`preset=paper` reads drugs and outlier limits as the published pipeline does; docs/clinical.md lists what differs."""

from pathlib import Path

import pytest
from small_ward import ITEMS, STAY, chart, infusion, write_ward

from patientdx.records import cohort, outliers, window
from patientdx.records.cohort import Outcome
from patientdx.records.source import SourceConfig, opened_source


@pytest.fixture
def opened(tmp_path: Path):
    inputs = [
        infusion(1.2, 1.9, 221906, 7.0),  # stops in the hour in which it starts: the pipeline has no such row
        infusion(2.9, 3.1, 222315, 4.0),  # a few minutes, but over the hour
        infusion(40, 60, 222168, 900.0),  # ends after the window, with an amount that nobody knows yet
    ]
    values = [chart(1, 220045, 70 + n) for n in range(50)] + [chart(100, 220045, 250)] * 50
    root = write_ward(tmp_path / "ward", chartevents=values, inputevents=inputs)
    needed = window.needed("none", cohort.NEEDED)
    with opened_source(SourceConfig(cache=tmp_path / "cache", mimic_root=[str(root)]), needed) as source:
        cohort.select(source.con, Outcome("false"), window_hours=48, gap_hours=0, death="dod")
        yield source.con


def test_drugs_are_those_of_the_pipeline(opened):
    ours = window.records(opened, every_item=True)[STAY]
    theirs = window.records(opened, every_item=True, pipeline=True)[STAY]
    label = {itemid: name for itemid, (name, *_) in ITEMS.items()}
    assert dict(ours.drugs) == {label[221906]: 7.0, label[222315]: 4.0, label[222168]: None}
    assert dict(theirs.drugs) == {label[222315]: 4.0, label[222168]: 900.0}


def test_outlier_limits_are_of_whole_stays(opened):
    assert outliers.limits(opened)[220045] == 118  # of the window's 50 values
    assert outliers.limits(opened, all_hours=True)[220045] == 250
