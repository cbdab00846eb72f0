"""The data files of the synthetic hospital, and rows of its tables."""

import csv
import io
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HOUR = 3_600_000_000  # microseconds
IDS = ("subject_id", "hadm_id", "stay_id")
_PACKAGE = "patientdx.records.synthetic"


@cache
def rows(file: str) -> tuple[dict[str, str], ...]:
    """The rows of one of the csv files of this folder."""
    return tuple(csv.DictReader(io.StringIO((resources.files(_PACKAGE) / file).read_text(encoding="utf-8"))))


@cache
def numbers(file: str, columns: tuple[str, ...]) -> np.ndarray:
    """Columns of such a file as float64 (rows, columns); what is empty is 0."""
    return np.array([[float(row[column] or 0) for column in columns] for row in rows(file)])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def minutes(hours: np.ndarray) -> np.ndarray:
    """Hours as whole minutes in microseconds, the resolution of what is charted."""
    return np.round(hours * 60).astype(np.int64) * (HOUR // 60)


def grid(rng: np.random.Generator, count: np.ndarray, every: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, hour) of events: `count` in each stay, one in each of as many intervals of `every` hours."""
    row = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    length = np.broadcast_to(every, len(count))[row]
    return row, (step + rng.uniform(0.05, 0.6, len(row))) * length


def times(values: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    """Microseconds since 1970 as timestamps; those in `mask` are missing."""
    return pa.array(values, pa.timestamp("us"), mask=mask)


def chosen(words: Sequence[str], number: np.ndarray) -> pa.Array:
    """The words with these numbers; -1: missing."""
    return pa.array(words, pa.string()).take(pa.array(number.astype(np.int32), mask=number < 0))


def written(values: np.ndarray) -> pa.Array:
    """Numbers as text, as MIMIC-IV has them beside the number; each distinct number is written once."""
    encoded = pa.array(values).dictionary_encode()
    return pc.cast(encoded.dictionary, pa.string()).take(encoded.indices)


def ids(stays: dict, row: np.ndarray) -> dict[str, np.ndarray]:
    """subject_id, hadm_id and stay_id of rows of `stays`."""
    return {name: stays[name][row] for name in IDS}


class Values:
    """Collects charted values of stays, to become rows in the order of stay and time."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._words: list[str] = []
        self._units: list[str] = []

    def add(
        self, item: int, row: np.ndarray, hour: np.ndarray, value: np.ndarray, unit: str = "", delay: float = 0.25
    ) -> None:
        """Numbers of an item at so many hours after ICU admission, known `delay` hours later."""
        self._add(item, row, hour, value, np.full(len(row), -1), unit, delay)

    def add_words(
        self, item: int, row: np.ndarray, hour: np.ndarray, words: Sequence[str], number: np.ndarray,
        value: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """The same of what is charted in words, with or without a number."""
        value = np.full(len(row), np.nan) if value is None else value
        self._add(item, row, hour, value, number.astype(np.int64) + len(self._words), "", 0.25)
        self._words += words

    def _add(self, item: int, row: np.ndarray, hour: np.ndarray, value: np.ndarray, word: np.ndarray, *rest) -> None:
        unit, delay = rest
        if unit not in self._units:
            self._units.append(unit)
        size = len(row)
        columns = row, minutes(hour), value.astype(float), word, np.full(size, item), minutes(np.full(size, delay))
        self._parts.append((*columns, np.full(size, self._units.index(unit))))

    def sorted(self) -> tuple[np.ndarray, ...]:
        """row, time, value, word, item, delay and unit of all values, by row and time."""
        row, time, *rest = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.lexsort((time, row))
        return row[order], time[order], *(column[order] for column in rest)

    def table(self, stays: dict) -> dict[str, pa.Array | np.ndarray]:
        """Columns of chartevents; of labevents without stay_id."""
        row, time, value, word, item, delay, unit = self.sorted()
        charted = stays["intime"][row] + time
        absent = np.isnan(value)
        texts = chosen(self._words, word) if self._words else pa.nulls(len(row), pa.string())
        return ids(stays, row) | {
            "charttime": times(charted),
            "storetime": times(charted + delay),
            "itemid": item.astype(np.int32),
            "value": pc.call_function("if_else", [pa.array(word >= 0), texts, written(np.nan_to_num(value))]),
            "valuenum": pa.array(value, mask=absent),
            "valueuom": chosen(self._units, unit),
        }
