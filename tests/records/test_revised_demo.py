"""On the open demo: what revision 1 does not show of the sickest, and revision 2 does (the audit's rows 1 and 2)."""

import os
from pathlib import Path

import pytest
from opened_stays import opened_stays

from patientdx.records import templates, window
from patientdx.records.clinical_window import Counts


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root, counts = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo", Counts()
    with opened_stays([root, root / "rebuilt"], tmp_path_factory.mktemp("spill"), revision=2) as con:
        return window.records(con, courses=True), window.records(con, revision=2, counts=counts), counts


def test_ventilation_and_drugs_that_run_at_admission_are_shown(read):
    old, new, _ = read
    ventilated = [sum("Invasive ventilation" in record.procedures for record in of.values()) for of in (old, new)]
    assert ventilated == [39, 45]
    assert sum(any(how.at_start for how in record.infusions) for record in new.values()) == 8


def test_no_vasopressor_and_no_gas_is_cut(read):
    old, new, _ = read
    texts = [
        {stay: templates.template(name).write(record, 48) for stay, record in of.items()}
        for name, of in (("intervals/1", old), ("intervals/2", new))
    ]
    pressors = {
        stay: {
            name for (name, _), how in zip(record.drugs, record.infusions, strict=True) if how.group == "vasopressor"
        }
        for stay, record in new.items()
    }
    on = [stay for stay, names in pressors.items() if names]
    lost = [sum(any(name not in of[stay] for name in pressors[stay]) for stay in on) for of in texts]
    assert (len(on), lost) == (36, [13, 0])
    for name, measured, cut in (("Arterial PO2", 48, 40), ("Arterial PCO2", 48, 22), ("Albumin", 25, 21)):
        having = [stay for stay, record in new.items() if name in dict(record.readings)]
        assert (len(having), [sum(f"\n{name} " not in of[stay] for stay in having) for of in texts]) == (
            measured,
            [cut, 0],
        )


def test_what_cannot_be_a_reading_is_counted(read):
    rows = {row["reading"]: row for row in read[2].rows()}
    assert (rows["Heart rate"]["stays"], rows["Heart rate"]["stays_without"]) == (68, 0)
    assert (rows["Tidal volume"]["dropped"], rows["Inspired oxygen"]["dropped"]) == (5, 1)
    assert rows["Lactate"]["stays_without"] == 10
