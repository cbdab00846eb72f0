"""The records of a cohort, read once: text of each stay, features, and counts of what was dropped or is missing."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import features, outliers, severity, splits, templates, window
from patientdx.records.clinical_window import Counts
from patientdx.records.features import Features


@dataclass(frozen=True)
class ReadRecords:
    """What was read of the stays.

    Attributes:
        texts: by stay_id. cut: what the sections' budgets left out (see templates.left_out).
        features, severity: in the order of the rows; None without stays in train.
        unread: the stays without a reading in the window.
        readings: for each reading: values charted, dropped as impossible, stays without any; empty for revision 1.
    """

    texts: dict[int, str]
    cut: dict[str, dict[str, int]]
    features: Features | None
    severity: Features | None
    unread: set[int]
    readings: list[dict[str, Any]]


def read_records(
    con: duckdb.DuckDBPyConnection,
    rows: Sequence[splits.Row],
    template: templates.Template,
    switches: Mapping[str, str],
    hours: int,
    *,
    comorbidities: bool = True,
) -> ReadRecords:
    """Text, features and counts of these stays, which the table `cohort` is narrowed to.

    `switches`: outliers, diagnoses and clock. `comorbidities`: those of earlier admissions are told, which a task that
    asks for coded conditions does not do.
    """
    train = [stay for stay, _, _, split in rows if split == "train"]
    limits = _limits(con, template, switches["outliers"], train)
    con.execute("DELETE FROM cohort WHERE stay_id NOT IN (SELECT unnest(?))", [[stay for stay, *_ in rows]])
    texts: dict[int, templates.Written] = {}
    unread: set[int] = set()

    def writing(records: Iterable[tuple[int, window.Record]]) -> Iterator[tuple[int, window.Record]]:
        for stay, record in records:
            texts[stay] = template.written(record, hours)
            if not record.readings:
                unread.add(stay)
            yield stay, record

    counts, settings = Counts(), {"diagnoses": switches["diagnoses"], "courses": True, "revision": template.revision}
    if template.revision > 1:
        settings |= {"clock": switches["clock"], "comorbidities": comorbidities, "counts": counts}
    scores = severity.Scores(hours)
    plain = scores.watch(window.stream(con, limits=limits[False], **settings))
    records = plain if template.every_item else writing(plain)
    table = points = None
    # Which drugs and codes are common is counted on train: without it there is nothing to fit a tabular model on.
    # Of stays from elsewhere every one is a column: those of the hospital that is fitted on are taken of them.
    is_elsewhere = all(split == splits.EXTERNAL for *_, split in rows)
    if train or is_elsewhere:
        fit: dict[str, Any] = {"common": 0.0} if is_elsewhere else {"fit_on": train}
        order, unsorted = features.table(records, revision=template.revision, **fit)
        row_of = {stay: row for row, stay in enumerate(order)}
        table = Features(unsorted.names, unsorted.values[[row_of[stay] for stay, *_ in rows]])
        points = scores.table([stay for stay, *_ in rows])
    if template.every_item:
        everything = window.stream(
            con, diagnoses=switches["diagnoses"], courses=template.courses, every_item=True, limits=limits[True],
            pipeline=template.revision > 1,
        )  # fmt: skip
        records = writing(everything)
    deque(records, maxlen=0)  # runs through the records that nothing has consumed yet
    return ReadRecords(
        {stay: written.text for stay, written in texts.items()}, templates.left_out(texts.values()), table, points,
        unread, counts.rows() if counts.stays else [],
    )  # fmt: skip


def _limits(
    con: duckdb.DuckDBPyConnection, template: templates.Template, rule: str, train: Sequence[int]
) -> dict[bool, dict[int, float] | None]:
    """The highest value kept of each item, for all items (True) and for the readings of the concepts (False)."""
    if rule == "train" and not train:
        raise UserError("task.outliers=train: no stay is in train. Give train a share in task.fractions.")
    if rule == "range":
        return {False: None, True: None}
    return {
        every: outliers.limits(
            con, stays=train if rule == "train" else None, every_item=every, revision=template.revision,
            all_hours=rule == "pipeline",
        )
        for every in {False, template.every_item}
    }  # fmt: skip
