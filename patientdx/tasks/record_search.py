"""Task `record_search`: which stay, or which hours of a stay, match a query? BM25 lists candidates, the model ranks.

Without the user's own files the queries are generated from facts in the tables of a hospital (by default the synthetic
one), so that the relevant documents are known without judges. Each query holds something that words match (a drug, a
procedure) or something that a number decides (above or below), which words do not match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from patientdx.core.cache import draw_secret
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.records import concepts
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import SPLITS, checked_fractions, position
from patientdx.records.stays import Block, Stay, StaysConfig, read_stays
from patientdx.records.templates import template
from patientdx.records.templates.narrative import flag
from patientdx.tasks.collection_files import read_collection
from patientdx.tasks.example import TaskData
from patientdx.tasks.first_stage import DEPTH, K1, QUESTION, B, Query, Search, check_search, ranking_task
from patientdx.tasks.item_files import limited

REQUIRES = ("bm25s",)
UNITS = ("record", "passage")
_ALL = 1_000_000  # tokens of a section: nothing that a query looks for is left out
_TEXT = template("intervals/1", dict.fromkeys(("person", "readings", "drugs", "procedures"), _ALL))
_SIDES = {"(low)": "below", "(high)": "above"}
Fact = tuple[str, str]  # kind of fact, and its words
Pools = dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class RecordSearchTask(StaysConfig):
    """The keys of the task, as conf/task/record_search.yaml explains them.

    `path` is a folder in BEIR's or TREC's form; None: the queries are generated.
    """

    path: str | None = None
    open_data: bool = False
    unit: str = "record"
    limit: int | None = 40
    most_relevant: int = 5
    block_hours: int = 4
    depth: int = DEPTH
    k1: float = K1
    b: float = B
    question: str = QUESTION
    chat: bool | None = None
    fractions: Mapping[str, float] | None = None

    def load(self) -> TaskData:
        """Queries with the candidates that BM25 lists, one example per pair; label 1 where the candidate is relevant.

        Raises UserError on keys, files or a hospital that are not valid, with file and line.
        """
        search = Search(self.depth, self.k1, self.b, self.question)
        check_search(search)
        check_numbers(limit=(self.limit, 1), most_relevant=(self.most_relevant, 1), seed=(self.seed, 0))
        if self.unit not in UNITS:
            raise UserError(f"task.unit={self.unit!r}: what is searched for is a {' or a '.join(UNITS)}.")
        if self.path is not None:
            return self._from_files(expanded(self.path), search)
        stays = read_stays(self, self.fractions, block_hours=self.block_hours if self.unit == "passage" else None)
        pools, queries = (self._of_records if self.unit == "record" else self._of_passages)(stays.stays)
        if not queries:
            raise UserError(
                f"task.unit={self.unit}: no fact of these {len(stays.stays)} stays tells some of them from the rest. "
                "Use more stays, or a larger task.most_relevant."
            )
        settings: dict[str, Any] = {
            "unit": self.unit, "limit": self.limit, "most_relevant": self.most_relevant,
            "window_hours": self.window_hours, "block_hours": self.block_hours if self.unit == "passage" else None,
            "fractions": stays.fractions, "template_sha256": _TEXT.sha256,
        }  # fmt: skip
        return ranking_task(
            "record_search", pools, queries, search, seed=self.seed, settings=settings, open_data=stays.open_data,
            chat=self.chat, provenance=stays.provenance | {"settings": settings}, cohort=stays.cohort,
        )  # fmt: skip

    def _from_files(self, folder: Path, search: Search) -> TaskData:
        """The task of a collection in a folder."""
        fractions = None if self.fractions is None else checked_fractions(self.fractions)
        secret = draw_secret(self.cache, open_data=self.open_data)
        collection = read_collection(folder, fractions, self.seed, secret)
        settings: dict[str, Any] = {"fractions": fractions, "limit": self.limit}
        kept = limited(
            collection.queries,
            lambda query: (query.split, position("order", self.seed, query.uid)),
            dict.fromkeys(SPLITS, self.limit),
        )
        kept.sort(key=lambda query: SPLITS.index(query.split))
        cohort = [
            {"step": step, "documents": len(collection.documents), "queries": len(queries)}
            for step, queries in (("read", collection.queries), ("asked", kept))
        ]
        return ranking_task(
            "record_search", {"": collection.documents}, kept, search, seed=self.seed, settings=settings,
            cohort=cohort, provenance={"source": collection.files, "settings": settings}, chat=self.chat,
            open_data=self.open_data,
        )  # fmt: skip

    def _of_records(self, stays: Sequence[Stay]) -> tuple[Pools, list[Query]]:
        """The stays of a split as its documents, and queries with two facts each: one in words and one of a number."""
        pools: Pools = {}
        queries: list[Query] = []
        for split in SPLITS:
            of_split = [stay for stay in stays if stay.split == split]
            if not of_split:
                continue
            pools[split] = {stay.uid: _TEXT.write(stay.record, self.window_hours) for stay in of_split}
            by_stay = {stay.uid: (list(_named(stay)), list(_measured(stay))) for stay in of_split}
            holders: dict[Fact, set[str]] = {}
            for uid, (named, measured) in by_stay.items():
                for fact in (*named, *measured):
                    holders.setdefault(fact, set()).add(uid)
            drawn = _pairs(by_stay, holders, self.most_relevant, self.seed)
            for number, ((kind, first), (_, second)) in enumerate(islice(drawn, self.limit)):
                relevant = holders[kind, first] & holders["number", second]
                uid = f"{split}:{number}"
                text = f"a patient who {first} and whose {second}"
                queries.append(Query(uid, uid, split, kind, split, text, dict.fromkeys(sorted(relevant), 1)))
        return pools, queries

    def _of_passages(self, stays: Sequence[Stay]) -> tuple[Pools, list[Query]]:
        """The blocks of a stay as its documents, and a query of each kind about it: above, below, started."""
        pools: Pools = {}
        queries: list[Query] = []
        for split in SPLITS:
            of_split: list[Query] = []
            for stay in (stay for stay in stays if stay.split == split):
                candidates = list(_within(stay, self.most_relevant, self.seed))
                if candidates and (self.limit is None or len(of_split) < self.limit):
                    pools[stay.uid] = {
                        f"{stay.uid}:{block.hour}": passage(block, self.block_hours) for block in stay.blocks
                    }
                    of_split += [
                        Query(
                            f"{stay.uid}:{kind}", stay.subject, split, kind, stay.uid, words, dict.fromkeys(relevant, 1)
                        )
                        for kind, words, relevant in candidates
                    ]
            queries += of_split[: self.limit]
        return pools, queries


def _named(stay: Stay) -> Iterator[Fact]:
    yield from (("drug", f"was given {name}") for name, _ in stay.record.drugs)
    yield from (("procedure", f"had the procedure {name}") for name in stay.record.procedures)


def _measured(stay: Stay) -> Iterator[Fact]:
    """Means outside the reference interval, as they are printed."""
    for name, mean in stay.record.readings:
        item = concepts.readings()[name]
        side = _SIDES.get(flag(item, f"{mean:.{item.decimals}f}").strip())
        if side is not None:
            yield "number", f"mean {name} was {side} its reference interval"


def _pairs(
    by_stay: Mapping[str, tuple[list[Fact], list[Fact]]], holders: Mapping[Fact, set[str]], most: int, seed: int
) -> Iterator[tuple[Fact, Fact]]:
    """Distinct pairs of facts that 1 to `most` stays of the split have, from one stay after the other in rotation."""
    waiting = {uid: _shuffled(uid, facts_of_stay, seed) for uid, facts_of_stay in by_stay.items()}
    few: dict[tuple[Fact, Fact], bool] = {}  # also False once a pair was taken
    while waiting:
        for uid in list(waiting):
            for pair in waiting[uid]:
                if pair not in few:
                    few[pair] = len(holders[pair[0]] & holders[pair[1]]) <= most
                if few[pair]:
                    few[pair] = False
                    yield pair
                    break
            else:
                del waiting[uid]


def _shuffled(uid: str, sides: tuple[list[Fact], list[Fact]], seed: int) -> Iterator[tuple[Fact, Fact]]:
    yield from sorted(product(*sides), key=lambda pair: position("fact", seed, uid, pair))


def passage(block: Block, hours: int) -> str:
    """A block as text: a line a reading with its values in the order of time, and what was started."""
    lines = [f"Hours {block.hour} to {block.hour + hours}"]
    for name, values in block.readings:
        item = concepts.readings()[name]
        lines.append(f"{name} {', '.join(f'{value:.{item.decimals}f}' for value in values)} {item.unit}".rstrip())
    if block.started:
        lines.append(f"Started: {', '.join(name for _, name in block.started)}")
    return "\n".join(lines)


def _within(stay: Stay, most: int, seed: int) -> Iterator[tuple[str, str, list[str]]]:
    """(kind, words, relevant passages) of one query per kind that the stay has a fact for, drawn with the seed."""
    charted: dict[str, dict[str, list[float]]] = {}
    begun: dict[str, list[str]] = {}
    for block in stay.blocks:
        uid = f"{stay.uid}:{block.hour}"
        for name, values in block.readings:
            decimals = concepts.readings()[name].decimals
            charted.setdefault(name, {})[uid] = [round(value, decimals) for value in values]
        for _, name in block.started:
            begun.setdefault(name, []).append(uid)
    candidates: dict[str, list[tuple[str, list[str]]]] = {"above": [], "below": [], "started": []}
    for name, by_block in charted.items():
        item = concepts.readings()[name]
        step, every = 10.0**-item.decimals, [value for values in by_block.values() for value in values]
        for side, end, edge in (("above", max(every), max(every) - step), ("below", min(every), min(every) + step)):
            relevant = [uid for uid, values in by_block.items() if end in values]
            if len(relevant) <= min(most, len(by_block) // 2):
                candidates[side].append((f"{name} {side} {edge:.{item.decimals}f} {item.unit}".rstrip(), relevant))
    candidates["started"] += [
        (f"{name} was started", uids) for name, uids in begun.items() if len(uids) <= min(most, len(stay.blocks) // 2)
    ]
    for kind, able in candidates.items():
        if able:
            words, relevant = min(able, key=lambda candidate: position("fact", seed, stay.uid, kind, candidate[0]))
            yield kind, words, relevant
