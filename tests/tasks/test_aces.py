"""The SQL of the tasks beside ACES, the published way to define a cohort, on the open demo's MEDS file.

es-aces pins polars<2 and so lives in an environment of its own: PATIENTDX_ACES_PYTHON names its python.
"""

import os
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from tasks_by_yaml import outcome

from patientdx.records import cohort, tables
from patientdx.records.cohort import Outcome
from patientdx.tasks import outcomes

DEFINITIONS = Path(outcomes.__file__).parent / "aces"
# As ACES can define it: from the first hours, observation stays count, nobody is left out by what follows discharge.
OLD_READMISSION = outcome(
    "readmission_30d", predict_at="admission", observation=True, competing_death="no_event", excluded_discharges=[]
)
# Definition, our outcome, window and gap in hours, the label that means ours; the demo's stays and events.
TASKS = [
    ("mortality", outcome("mortality"), 48, 6, 1, (68, 9)),
    ("mortality_24h", outcome("mortality"), 24, 6, 1, (96, 10)),
    ("mortality_hospital", outcome("mortality_hospital"), 48, 6, 1, (68, 12)),
    ("length_of_stay", outcome("length_of_stay"), 24, 6, 0, (96, 55)),
    ("readmission_30d", OLD_READMISSION, 24, 0, 1, (96, 17)),
    ("phenotype", outcome("phenotype"), 24, 0, 1, (117, 31)),
]
EXTRACT = """
import sys
from pathlib import Path
import polars as pl
from aces.config import TaskExtractorConfig
from aces.predicates import get_predicates_df
from aces.query import query
from omegaconf import DictConfig
events, out, *files = map(Path, sys.argv[1:])
for file in files:
    config = TaskExtractorConfig.load(file)
    found = query(config, get_predicates_df(config, DictConfig({"path": str(events), "standard": "meds"})))
    found.select("subject_id", "trigger", "index_timestamp", "label").write_parquet(out / f"{file.stem}.parquet")
"""


@pytest.fixture(scope="module")
def demo() -> Path:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    return Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"


@pytest.fixture(scope="module")
def extracted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what ACES makes of every definition."""
    if "PATIENTDX_ACES_PYTHON" not in os.environ:
        pytest.skip("PATIENTDX_ACES_PYTHON names no python with es-aces 0.7.3")
    folder = tmp_path_factory.mktemp("aces")
    events = pyarrow.parquet.read_table(demo / "meds/mimic_iv_demo_meds_events.parquet")
    events = events.select(["subject_id", "time", "code", "value"]).rename_columns(
        ["subject_id", "time", "code", "numeric_value"]
    )
    pyarrow.parquet.write_table(events.replace_schema_metadata(), folder / "events.parquet")
    subprocess.run(
        [os.environ["PATIENTDX_ACES_PYTHON"], "-c", EXTRACT, folder / "events.parquet", folder,
         *(DEFINITIONS / f"{name}.yaml" for name, *_ in TASKS)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return folder


def ours(root: Path, spill: Path, rule: Outcome, window_hours: int, gap_hours: int) -> set[tuple]:
    """(subject_id, intime, prediction_time, label) of every stay."""
    needed = {**cohort.NEEDED, **rule.needed}
    with tables.opened(tables.find([root], needed), needed, memory_limit="1GB", threads=1, spill=spill) as con:
        chosen = cohort.select(con, rule, window_hours=window_hours, gap_hours=gap_hours, stepdown="keep")
        rows = con.execute("SELECT subject_id, intime, prediction_time, label FROM cohort").fetchall()
    assert len(rows) == len(chosen.stays)
    return set(rows)


@pytest.mark.parametrize(("name", "rule", "window_hours", "gap_hours", "positive", "counts"), TASKS)
def test_both_give_the_same_stays_and_labels(
    demo, extracted, tmp_path, name, rule, window_hours, gap_hours, positive, counts
):
    rows = pyarrow.parquet.read_table(extracted / f"{name}.parquet").to_pylist()
    # ACES counts events in the label's window: one or more is a yes.
    theirs = {
        (row["subject_id"], row["trigger"], row["index_timestamp"], int((row["label"] > 0) == (positive == 1)))
        for row in rows
    }
    assert len(theirs) == len(rows)
    loaded = ours(demo, tmp_path, rule, window_hours, gap_hours)
    assert theirs == loaded
    assert (len(loaded), sum(label for *_, label in loaded)) == counts


def test_every_task_has_a_definition_with_its_hours():
    assert {path.stem for path in DEFINITIONS.glob("*.yaml")} == {name for name, *_ in TASKS}
    for name, _, window_hours, gap_hours, *_ in TASKS:
        definition = yaml.safe_load((DEFINITIONS / f"{name}.yaml").read_text(encoding="utf-8"))
        assert definition["trigger"] == "icu_admission"
        assert definition["windows"]["input"]["end"] == f"trigger + {window_hours}h"
        assert definition["windows"]["stay"]["end"] == f"start + {window_hours + gap_hours}h"
