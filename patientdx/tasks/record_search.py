"""Task `record_search`: which stay, or which hours of a stay, show what is looked for? BM25 lists, the model decides.

Without files of your own the queries are invented about the stays of a hospital (the synthetic one unless told
otherwise), from facts that its tables hold, so that what is relevant is known and judged by nobody. Each asks for
something that words find (a drug, a procedure) or that a number decides (above or below), which words do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records import concepts
from patientdx.records.source import SYNTHETIC
from patientdx.records.splits import SPLITS, checked_fractions, position
from patientdx.records.stays import Block, Request, Stay, read_stays
from patientdx.records.templates import template
from patientdx.records.templates.narrative import flag
from patientdx.tasks.collection_files import read_collection
from patientdx.tasks.example import TaskData
from patientdx.tasks.first_stage import DEPTH, K1, QUESTION, B, Query, Search, check_search, searched
from patientdx.tasks.prediction import FRACTIONS, check_numbers

UNITS = ("record", "passage")
_ALL = 1_000_000  # tokens of a section: nothing that is looked for is left out
_TEXT = template("intervals", dict.fromkeys(("person", "readings", "drugs", "procedures"), _ALL))
_SIDES = {"(low)": "below", "(high)": "above"}
Fact = tuple[str, str]  # what kind of fact, and its words


def load(
    *,
    cache: Path,
    path: str | None = None,
    open_data: bool = False,
    seed: int = 0,
    unit: str = "record",
    limit: int | None = 40,
    most_relevant: int = 5,
    block_hours: int = 4,
    depth: int = DEPTH,
    k1: float = K1,
    b: float = B,
    question: str = QUESTION,
    chat: bool | None = None,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    window_hours: int = 48,
    fractions: Mapping[str, float] | None = None,
    memory_limit: str = "2GB",
    threads: int | None = None,
) -> TaskData:
    """Queries with the candidates that BM25 lists, one example a pair; label 1 where the candidate is relevant.

    Every keyword is explained in conf/task/record_search.yaml. `path` is a folder in BEIR's or TREC's form; without one
    the queries are invented. Raises UserError on any parameter, file or hospital that will not do, naming file and line.
    """
    how = Search(depth, k1, b, question)
    check_search(how)
    check_numbers(limit=(limit, 1), most_relevant=(most_relevant, 1), seed=(seed, 0))
    if unit not in UNITS:
        raise UserError(f"task.unit={unit!r}: what is searched for is a {' or a '.join(UNITS)}.")
    if path is not None:
        return _from_files(Path(path).expanduser(), how, fractions, limit, seed, chat=chat, open_data=open_data)
    shares = FRACTIONS if fractions is None else fractions
    asked = Request(cache, seed, source, mimic_root, synthetic, window_hours, shares, memory_limit, threads)
    stays = read_stays(asked, block_hours=block_hours if unit == "passage" else None)
    invent = _of_records if unit == "record" else _of_passages
    pools, made = invent(stays.stays, asked, limit, most_relevant, block_hours)
    if not made:
        raise UserError(
            f"task.unit={unit}: no fact of these {len(stays.stays)} stays tells some of them from the rest. Use more "
            "stays, or a larger task.most_relevant."
        )
    settings: dict[str, Any] = {
        "unit": unit, "limit": limit, "most_relevant": most_relevant, "window_hours": window_hours,
        "block_hours": block_hours if unit == "passage" else None, "fractions": checked_fractions(shares),
        "template_sha256": _TEXT.sha256,
    }  # fmt: skip
    return searched(
        "record_search", pools, made, how, seed=seed, settings=settings, open_data=stays.open_data, chat=chat,
        provenance=stays.provenance | {"settings": settings}, cohort=stays.cohort,
    )  # fmt: skip


def _from_files(
    folder: Path, how: Search, fractions: Mapping[str, float] | None, limit: int | None, seed: int, **rest: Any
) -> TaskData:
    """The task of a collection that lies in a folder."""
    shares = None if fractions is None else checked_fractions(fractions)
    found = read_collection(folder, shares, seed)
    settings: dict[str, Any] = {"fractions": shares, "limit": limit}
    kept = [one for split in SPLITS for one in _first([q for q in found.queries if q.split == split], limit, seed)]
    cohort = [
        {"step": step, "documents": len(found.documents), "queries": len(queries)}
        for step, queries in (("read", found.queries), ("asked", kept))
    ]
    return searched(
        "record_search", {"": found.documents}, kept, how, seed=seed, settings=settings, cohort=cohort,
        provenance={"source": found.files, "settings": settings}, **rest,
    )  # fmt: skip


def _first(found: Sequence[Query], limit: int | None, seed: int) -> list[Query]:
    """The first so many in an order drawn with the seed, back in the order of the file."""
    order = sorted(range(len(found)), key=lambda i: position("order", seed, found[i].uid))
    kept = set(order[:limit])
    return [one for i, one in enumerate(found) if i in kept]


def _of_records(
    stays: Sequence[Stay], asked: Request, limit: int | None, most: int, hours: int
) -> tuple[dict[str, dict[str, str]], list[Query]]:
    """The stays of a split as its documents, and queries with two facts each: one of words and one of a number."""
    pools: dict[str, dict[str, str]] = {}
    made: list[Query] = []
    for split in SPLITS:
        own = [stay for stay in stays if stay.split == split]
        if not own:
            continue
        pools[split] = {stay.uid: _TEXT.write(stay.record, asked.window_hours) for stay in own}
        facts = {stay.uid: (list(_named(stay)), list(_measured(stay))) for stay in own}
        held: dict[Fact, set[str]] = {}
        for uid, (named, measured) in facts.items():
            for fact in (*named, *measured):
                held.setdefault(fact, set()).add(uid)
        drawn = _pairs(facts, held, most, asked.seed)
        for number, ((kind, first), (_, second)) in enumerate(islice(drawn, limit)):
            relevant = held[kind, first] & held["number", second]
            uid = f"{split}:{number}"
            text = f"a patient who {first} and whose {second}"
            made.append(Query(uid, uid, split, kind, split, text, dict.fromkeys(sorted(relevant), 1)))
    return pools, made


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


def _pairs(facts, held: Mapping[Fact, set[str]], most: int, seed: int) -> Iterator[tuple[Fact, Fact]]:
    """Pairs of facts that 1 to `most` stays of the split have, none twice, a stay's turn after the other."""
    waiting = {uid: _shuffled(uid, own, seed) for uid, own in facts.items()}
    few: dict[tuple[Fact, Fact], bool] = {}  # False once a pair was taken, too
    while waiting:
        for uid in list(waiting):
            for pair in waiting[uid]:
                if pair not in few:
                    few[pair] = len(held[pair[0]] & held[pair[1]]) <= most
                if few[pair]:
                    few[pair] = False
                    yield pair
                    break
            else:
                del waiting[uid]


def _shuffled(uid: str, own: tuple[list[Fact], list[Fact]], seed: int) -> Iterator[tuple[Fact, Fact]]:
    yield from sorted(product(*own), key=lambda pair: position("fact", seed, uid, pair))


def _of_passages(
    stays: Sequence[Stay], asked: Request, limit: int | None, most: int, hours: int
) -> tuple[dict[str, dict[str, str]], list[Query]]:
    """The hours of a stay as its documents, and a query of each kind about it: above, below, started."""
    pools: dict[str, dict[str, str]] = {}
    made: list[Query] = []
    for split in SPLITS:
        asked_of: list[Query] = []
        for stay in (stay for stay in stays if stay.split == split):
            found = list(_within(stay, most, asked.seed))
            if found and (limit is None or len(asked_of) < limit):
                pools[stay.uid] = {f"{stay.uid}:{one.hour}": passage(one, hours) for one in stay.blocks}
                asked_of += [
                    Query(f"{stay.uid}:{kind}", stay.subject, split, kind, stay.uid, words, dict.fromkeys(relevant, 1))
                    for kind, words, relevant in found
                ]
        made += asked_of[:limit]
    return pools, made


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
    """(kind, words, relevant passages) of one query of each kind for which the stay has a fact, drawn with the seed."""
    charted: dict[str, dict[str, list[float]]] = {}
    begun: dict[str, list[str]] = {}
    for block in stay.blocks:
        uid = f"{stay.uid}:{block.hour}"
        for name, values in block.readings:
            decimals = concepts.readings()[name].decimals
            charted.setdefault(name, {})[uid] = [round(value, decimals) for value in values]
        for _, name in block.started:
            begun.setdefault(name, []).append(uid)
    found: dict[str, list[tuple[str, list[str]]]] = {"above": [], "below": [], "started": []}
    for name, by_block in charted.items():
        item = concepts.readings()[name]
        step, every = 10.0**-item.decimals, [value for values in by_block.values() for value in values]
        for side, end, edge in (("above", max(every), max(every) - step), ("below", min(every), min(every) + step)):
            relevant = [uid for uid, values in by_block.items() if end in values]
            if len(relevant) <= min(most, len(by_block) // 2):
                found[side].append((f"{name} {side} {edge:.{item.decimals}f} {item.unit}".rstrip(), relevant))
    found["started"] += [
        (f"{name} was started", uids) for name, uids in begun.items() if len(uids) <= min(most, len(stay.blocks) // 2)
    ]
    for kind, able in found.items():
        if able:
            words, relevant = min(able, key=lambda one: position("fact", seed, stay.uid, kind, one[0]))
            yield kind, words, relevant
