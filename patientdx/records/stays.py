"""ICU stays as plain values, to ask about and to search: what the tables hold of the first hours of each, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import cohort, splits, window
from patientdx.records.source import opened_source
from patientdx.tasks.prediction import check_numbers


@dataclass(frozen=True)
class Request:
    """The keywords that both tasks over stays take, as conf/task/record_qa.yaml explains them."""

    cache: Path
    seed: int
    source: str
    mimic_root: Sequence[str] | str | None
    synthetic: Mapping[str, float | None]
    window_hours: int
    fractions: Mapping[str, float]
    memory_limit: str
    threads: int | None


class Block(NamedTuple):
    """A few hours of a stay, from `hour` on: values charted of each reading in the order of time, and what began.

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
    """The stays, split after split in an order drawn by the seed, and what a task says of where they come from."""

    stays: tuple[Stay, ...]
    open_data: bool
    provenance: dict[str, Any]
    cohort: list[dict[str, Any]]


def read_stays(asked: Request, *, block_hours: int | None = None) -> Stays:
    """Adult ICU stays of at least `window_hours`, with their records, courses and times; split by patient.

    block_hours: also cut each window into blocks so long, else `blocks` is empty. Raises UserError on any parameter, file
    or cohort that will not do.
    """
    shares = splits.checked_fractions(asked.fractions)
    check_numbers(window_hours=(asked.window_hours, 1), seed=(asked.seed, 0))
    if block_hours is not None:
        check_numbers(block_hours=(block_hours, 1))
        if block_hours >= asked.window_hours:
            raise UserError(f"task.block_hours={block_hours}: a passage is shorter than task.window_hours.")
    with opened_source(
        cache=Path(asked.cache), source=asked.source, root=asked.mimic_root, synthetic=asked.synthetic,
        needed=window.needed("none", cohort.NEEDED), memory_limit=asked.memory_limit, threads=asked.threads,
    ) as found:  # fmt: skip
        # Nothing is predicted: no stay has an outcome, and none need last beyond the window.
        group = cohort.select(found.con, cohort.Outcome("false"), window_hours=asked.window_hours, gap_hours=0)
        rows = splits.divided(group.stays, by="patient", seed=asked.seed, fractions=shares, limit=None)
        records = window.records(found.con, courses=True)
        numbers = dict(found.con.execute(_NUMBERS).fetchall())
        blocks = {} if block_hours is None else _blocks(found.con, block_hours)
    stays = tuple(
        Stay(str(stay), str(subject), part, records[stay], numbers[stay], tuple(blocks.get(stay, ())))
        for stay, subject, _, part in rows
    )
    attrition = [{name: value for name, value in row.items() if name != "events"} for row in group.attrition]
    return Stays(stays, found.open_data, {"source": found.origins, "tables": found.facts}, attrition)


_NUMBERS = """
    SELECT c.stay_id, count(*) FROM cohort c JOIN icustays i USING (subject_id)
    WHERE i.intime < c.intime OR (i.intime = c.intime AND i.stay_id <= c.stay_id) GROUP BY c.stay_id"""
_BLOCK = "(epoch_us({}) - epoch_us(s.intime)) // {}"
# The same values as window.py reads, but for sums of parts, which no single time has.
_VALUES = """
    SELECT s.stay_id, {block} AS block, r.name,
        list(c.valuenum * r.scale + r.shift ORDER BY c.charttime, r.place, c.valuenum)
    FROM chartevents c JOIN cohort s USING (stay_id) JOIN read_items r USING (itemid)
    WHERE c.charttime >= s.intime AND c.charttime < s.prediction_time AND r.parts = 1
        AND c.valuenum * r.scale + r.shift BETWEEN r.minimum AND r.maximum
    GROUP BY s.stay_id, block, r.name ORDER BY s.stay_id, block, min(r.line)"""
_STARTED = """
    SELECT DISTINCT s.stay_id, {block} AS block, n.kind, n.name
    FROM {table} e JOIN cohort s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = '{kind}'
    WHERE e.starttime >= s.intime AND e.starttime < s.prediction_time ORDER BY ALL"""


def _blocks(con: duckdb.DuckDBPyConnection, hours: int) -> dict[int, list[Block]]:
    """The blocks of each stay of the table `cohort` in which anything was charted or begun."""
    length = hours * 3_600_000_000
    window.name_items(con)
    read: dict[tuple[int, int], list[tuple[str, tuple[float, ...]]]] = {}
    for stay, place, name, values in con.execute(_VALUES.format(block=_BLOCK.format("c.charttime", length))).fetchall():
        read.setdefault((stay, place), []).append((name, tuple(values)))
    begun: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for table, kind in (("inputevents", "drug"), ("procedureevents", "procedure")):
        query = _STARTED.format(block=_BLOCK.format("e.starttime", length), table=table, kind=kind)
        for stay, place, *one in con.execute(query).fetchall():
            begun.setdefault((stay, place), []).append(tuple(one))
    found: dict[int, list[Block]] = {}
    for stay, place in sorted(read.keys() | begun.keys()):
        key = stay, place
        found.setdefault(stay, []).append(Block(place * hours, tuple(read.get(key, ())), tuple(begun.get(key, ()))))
    return found
