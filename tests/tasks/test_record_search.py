"""Invented queries: what is relevant is what the tables say, whatever the text looks like; BM25 lists candidates."""

import math
import re
from collections import Counter
from functools import partial
from itertools import groupby

import pyarrow.parquet as pq
import pytest
from synthetic_wards import SIXTY_STAYS

from patientdx.core.errors import UserError
from patientdx.records.concepts import items
from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.first_stage import Search, bm25


@pytest.fixture(scope="module")
def make(load_synthetic):
    return partial(load_synthetic, "record_search")


@pytest.fixture(scope="module")
def records(make):
    return make(limit=12, depth=8)


@pytest.fixture(scope="module")
def passages(make):
    return make(unit="passage", limit=12)


def lists(data):
    """Example numbers of each query, by the query's number."""
    return {
        q: list(belonging) for q, belonging in groupby(range(len(data.examples)), key=data.ranking.query.__getitem__)
    }


def test_bm25_is_lucenes_formula_with_our_numbers_and_says_nothing(caplog):
    documents = ["Heart rate 88 bpm", "Propofol and norepinephrine, heart", "lactate high, high lactate"]
    words = [["heart", "rate", "88", "bpm"], ["propofol", "norepinephrine", "heart"], ["lactate", "high"] * 2]
    mean = sum(map(len, words)) / 3
    loaded = bm25(documents, ["the heart rate", "insulin", "Lactate heart"], Search(3, 0.9, 0.4, ""))
    for row, query in enumerate((["heart", "rate"], [], ["lactate", "heart"])):
        for column, belonging in enumerate(words):
            expected_value = 0.0
            for word in query:
                among, times = sum(word in each for each in words), belonging.count(word)
                idf = math.log(1 + (3 - among + 0.5) / (among + 0.5))
                expected_value += idf * times / (times + 0.9 * (0.6 + 0.4 * len(belonging) / mean))
            assert loaded[row, column] == pytest.approx(expected_value, abs=1e-6)
    assert not bm25(["the"], ["the heart"], Search(3, 0.9, 0.4, "")).any()  # no word is left
    assert not caplog.records


def test_candidates_are_the_best_of_the_querys_own_split(records):
    ranking = records.ranking
    for number, belonging in lists(records).items():
        scores = [ranking.first_stage[i] for i in belonging]
        assert len(belonging) == 8
        assert scores == sorted(scores, reverse=True)
        (split,) = {records.examples[i].split for i in belonging}
        assert ranking.queries[number].split(":")[0] == split
    of_split = {}
    for i, example in enumerate(records.examples):
        of_split.setdefault(example.split, set()).add(ranking.documents[ranking.document[i]])
    assert not of_split["pilot"] & of_split["test"]


def test_a_record_is_relevant_where_its_text_shows_both_facts(records):
    observed = Counter()
    for example in records.examples:
        drug, name, side = re.search(
            r"(?:given|procedure) (.+) and whose mean (.+) was (above|below)", example.suffix
        ).groups()
        line = re.search(rf"^{re.escape(name)} (-?[\d.]+) \(([\d.]+)-([\d.]+)\)", example.context, re.MULTILINE)
        named = re.search(rf"^(?:Drugs|Procedures): (?:.*, )?{re.escape(drug)}(?:,|$)", example.context, re.MULTILINE)
        value, low, high = map(float, line.groups()) if line else (math.nan, 0, 0)
        beyond = value > high if side == "above" else value < low
        assert example.label == int(bool(named) and beyond)
        observed[example.label] += 1
    assert observed[0] > observed[1] > 20


def test_relevant_records_that_were_not_listed_are_counted(make, records):
    longer = make(limit=12, depth=40)
    assert not any(longer.ranking.missed)
    full = {q: sum(longer.ranking.grade[i] for i in belonging) for q, belonging in lists(longer).items()}
    for q, belonging in lists(records).items():
        assert sum(records.ranking.grade[i] for i in belonging) + len(records.ranking.missed[q]) == full[q]
        assert 1 <= full[q] <= 5
    assert any(records.ranking.missed)


def test_a_passage_is_relevant_where_the_tables_say_so(passages, session_cache):
    """Trial up in the hospital's own tables, past every line of code that made the passages."""
    folder = hospital(session_cache, **SIXTY_STAYS)
    chart = dict(list(pq.read_table(folder / "icu/chartevents.parquet").to_pandas().groupby("stay_id")))
    stays = pq.read_table(folder / "icu/icustays.parquet").to_pandas().set_index("stay_id")
    known = {}
    for item in items():
        known.setdefault(item.name, []).append(item)
    compared = 0
    for example in passages.examples:
        _, passage = example.uid.split("/")
        requested = re.search(r"Search: (.+) (above|below) (-?[\d.]+)", example.suffix)
        if requested is None:
            continue
        stay, hour = map(int, passage.split(":"))
        name, side, edge = requested.groups()
        belonging = chart[stay]
        hours = (belonging["charttime"] - stays.loc[stay, "intime"]).dt.total_seconds() / 3600
        belonging = belonging[(hours >= hour) & (hours < hour + 4)]
        values = []
        for item in known[name]:
            loaded = belonging.loc[belonging["itemid"] == item.itemid, "valuenum"].dropna() * item.scale + item.offset
            values += [round(v, item.decimals) for v in loaded if item.minimum <= v <= item.maximum]
        beyond = [v > float(edge) if side == "above" else v < float(edge) for v in values]
        assert example.label == int(any(beyond)), example.uid
        compared += 1
    assert compared > 100


def test_a_stays_passages_are_candidates_of_its_own_queries_alone(passages):
    for example in passages.examples:
        query, passage = example.uid.split("/")
        assert query.split(":")[0] == passage.split(":")[0]
    started = [e for e in passages.examples if "was started" in e.suffix]
    assert started
    for example in started:
        name = re.search(r"Search: (.+) was started", example.suffix)[1]
        assert example.label == int(
            bool(re.search(rf"^Started: (?:.*, )?{re.escape(name)}(?:,|$)", example.context, re.M))
        )
    assert set(passages.groups["kind"]) == {"above", "below", "started"}


def test_the_same_words_make_the_same_task_and_others_another(make, records, passages):
    assert make(limit=12, depth=8).fingerprint == records.fingerprint
    others = [make(limit=12, depth=8, seed=1), make(limit=12, depth=8, k1=1.2)]
    assert len({each.fingerprint for each in (records, passages, *others)}) == 4
    assert records.open_data
    assert Counter(q.split(":")[0] for q in records.ranking.queries) == {"train": 12, "pilot": 12, "test": 12}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"unit": "page"}, r"task\.unit='page': what is searched for is a record or a passage"),
        ({"depth": 0}, r"task\.depth=0: a whole number of 1 or more"),
        ({"b": 1.5}, r"task\.b=1\.5: BM25's k1 is 0 or more, its b from 0 to 1"),
        ({"k1": -1}, r"task\.k1=-1: BM25's k1"),
        ({"most_relevant": 0}, r"task\.most_relevant=0: a whole number of 1 or more"),
        ({"unit": "passage", "block_hours": 48}, r"task\.block_hours=48: a passage is shorter than task\.window_hours"),
        ({"fractions": {"test": 2}}, r"task\.fractions="),
    ],
)
def test_what_makes_no_sense_is_refused(make, given, said):
    with pytest.raises(UserError, match=said):
        make(**given)
