"""ICU stays as plain values, for questions and search: what the tables hold of the first hours of each, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import cohort, splits, window
from patientdx.records.parameters import check_numbers
from patientdx.records.source import SourceConfig, opened_source


@dataclass(frozen=True, kw_only=True)
class StaysConfig(SourceConfig):
    """The keys of the tasks over stays besides those of the source, as conf/task/record_qa.yaml explains them."""

    seed: int = 0
    window_hours: int = 48


class Block(NamedTuple):
    """Some hours of a stay from `hour` on: charted values of each reading in order of time, and what was started.

    `readings`: (name, values in the unit of items.csv). `started`: (drug or procedure, name), each once.
    """

    hour: int
    readings: tuple[tuple[str, tuple[float, ...]], ...]
    started: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Stay:
    """One adult ICU stay: `number` counts the patient's stays in intensive care up to this one, which is included."""

    uid: str
    subject: str
    split: str
    record: window.Record
    number: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Stays:
    """The stays, split after split in an order drawn with the seed, and their provenance.

    `fractions`: the fractions that were drawn with, or that the splits are those of the source.
    """

    stays: tuple[Stay, ...]
    fractions: dict[str, float] | str
    open_data: bool
    provenance: dict[str, Any]
    cohort: list[dict[str, Any]]


def read_stays(config: StaysConfig, fractions: Mapping[str, float] | None, *, block_hours: int | None = None) -> Stays:
    """Adult ICU stays of at least `window_hours`, with their records, courses and times; split by patient.

    fractions: None: as the source itself has its patients split, otherwise `splits.FRACTIONS`.
    block_hours: also cut each window into blocks of this length; None: `blocks` is empty. Raises UserError on
    parameters, files or a cohort that are not valid.
    """
    checked = splits.checked_fractions(fractions)
    check_numbers(window_hours=(config.window_hours, 1), seed=(config.seed, 0))
    if block_hours is not None:
        check_numbers(block_hours=(block_hours, 1))
        if block_hours >= config.window_hours:
            raise UserError(f"task.block_hours={block_hours}: a passage is shorter than task.window_hours.")
    with opened_source(config, window.needed("none", cohort.NEEDED), window.items_read()) as source:
        # Nothing is predicted: no stay has an outcome, and none need last beyond the window.
        group = cohort.select(source.con, cohort.Outcome("false"), window_hours=config.window_hours, gap_hours=0)
        of_patients = source.splits if fractions is None else None
        group = group.of_patients(of_patients)
        rows = splits.divided(
            group.stays,
            by="patient",
            seed=config.seed,
            fractions=checked,
            limit=None,
            of_patients=of_patients,
            secret=source.secret,
        )
        records = window.records(source.con, courses=True)
        numbers = dict(source.con.execute(_NUMBERS).fetchall())
        blocks = {} if block_hours is None else _blocks(source.con, block_hours)
    stays = tuple(
        Stay(str(stay), str(subject), part, records[stay], numbers[stay], tuple(blocks.get(stay, ())))
        for stay, subject, _, part in rows
    )
    attrition = [{name: value for name, value in row.items() if name != "events"} for row in group.attrition]
    stated = checked if of_patients is None else splits.OF_SOURCE
    return Stays(stays, stated, source.open_data, {"source": source.data_sources, "tables": source.files}, attrition)


_NUMBERS = """
    SELECT c.stay_id, count(*) FROM cohort c JOIN icustays i USING (subject_id)
    WHERE i.intime < c.intime OR (i.intime = c.intime AND i.stay_id <= c.stay_id) GROUP BY c.stay_id"""
_BLOCK = "(epoch_us({}) - epoch_us(s.window_start)) // {}"
# The same values as window.py reads, except sums of parts, which have no single time.
_VALUES = """
    SELECT s.stay_id, {block} AS block, r.name,
        list(c.valuenum * r.scale + r.shift ORDER BY c.charttime, r.place, c.valuenum)
    FROM chartevents c JOIN cohort s USING (stay_id) JOIN read_items r USING (itemid)
    WHERE c.charttime >= s.window_start AND c.charttime < s.window_end AND r.parts = 1
        AND c.valuenum * r.scale + r.shift BETWEEN r.minimum AND r.maximum
    GROUP BY s.stay_id, block, r.name ORDER BY s.stay_id, block, min(r.line)"""
_STARTED = """
    SELECT DISTINCT s.stay_id, {block} AS block, n.kind, n.name
    FROM {table} e JOIN cohort s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = '{kind}'
    WHERE e.starttime >= s.window_start AND e.starttime < s.window_end ORDER BY ALL"""


def _blocks(con: duckdb.DuckDBPyConnection, hours: int) -> dict[int, list[Block]]:
    """The blocks of each stay of the table `cohort` in which anything was charted or begun."""
    length = hours * 3_600_000_000
    window.name_items(con)
    read: dict[tuple[int, int], list[tuple[str, tuple[float, ...]]]] = {}
    for stay, block, name, values in con.execute(_VALUES.format(block=_BLOCK.format("c.charttime", length))).fetchall():
        read.setdefault((stay, block), []).append((name, tuple(values)))
    begun: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for table, kind in (("inputevents", "drug"), ("procedureevents", "procedure")):
        query = _STARTED.format(block=_BLOCK.format("e.starttime", length), table=table, kind=kind)
        for stay, block, *names in con.execute(query).fetchall():
            begun.setdefault((stay, block), []).append((names[0], names[1]))
    blocks: dict[int, list[Block]] = {}
    for stay, block in sorted(read.keys() | begun.keys()):
        key = stay, block
        blocks.setdefault(stay, []).append(Block(block * hours, tuple(read.get(key, ())), tuple(begun.get(key, ()))))
    return blocks
