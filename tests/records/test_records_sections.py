"""Sections on, off, in order and within budgets; whole items are dropped, and counted."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patientdx.core.errors import UserError
from patientdx.records import templates
from patientdx.records.templates import sections
from patientdx.records.window import Course, Record, Times

NAMES = ("intervals/1", "paper/1", "narrative/1", "compact/1")
CROWD = dataclasses.replace(
    templates.SPECIMEN,
    drugs=tuple((f"Drug{'ab'[n % 2] * (n % 9)} {n}", None if n % 3 else n / 7) for n in range(40)),
    drug_times=tuple(Times(n + 1, n / 2, n / 2 + 1) for n in range(40)),
    procedures=tuple(f"Procedure {n}" for n in range(15)),
    procedure_times=tuple(Times(1, n, n) for n in range(15)),
    diagnoses=tuple(f"Disease of the {n}th kind, unspecified" for n in range(30)),
    outputs=tuple(f"Drain #{n}" for n in range(5)),
)


@pytest.mark.parametrize(
    ("counted", "tokens"),
    [
        ("", 0),
        (" \n", 0),
        ("a", 1),
        ("rate", 1),
        ("heart rate", 3),
        ("Norepinephrine", 4),
        ("112", 3),
        ("7.38", 4),
        ("Heart rate 112 (60-100) bpm", 15),
        ("°C", 2),
        ("mg/dL", 3),
        ("HCO3", 2),
        ("Übelkeit", 2),
        ("snake_case", 4),
    ],
)
def test_each_sign_and_digit_counts_one_and_a_word_one_for_each_started_four_letters(counted, tokens):
    assert sections.count(counted) == tokens


@settings(deadline=None)
@given(pieces=st.lists(st.text(max_size=12), max_size=8))
def test_pieces_count_no_less_than_their_whole(pieces):
    assert sections.count("".join(pieces)) <= sum(map(sections.count, pieces))


def test_the_mapping_switches_sections_on_and_orders_them():
    template = templates.template("compact/1", {"drugs": None, "person": None})
    assert template.write(templates.SPECIMEN, 48) == "Rx norepi, Propofol | 67M"
    assert template.sections == {"drugs": None, "person": None}
    assert templates.template("compact/1").sections == dict.fromkeys(
        ("person", "diagnoses", "readings", "drugs", "procedures", "outputs")
    )


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_no_section_exceeds_its_budget_and_what_is_left_out_is_counted(name, data):
    chosen = data.draw(
        st.dictionaries(st.sampled_from(templates.SECTIONS), st.none() | st.integers(1, 400), min_size=1),
        label="sections",
    )
    template = templates.template(name, chosen)
    full, dropped = template.written(CROWD, 48)
    assert template.write(CROWD, 48) == full
    texts = []
    for section, budget in chosen.items():
        made = template.parts[section](CROWD, 48)
        words, missing = sections.fitted(made, budget)
        assert dropped.get(section, 0) == missing
        kept = list(made.items)[: len(made.items) - missing]
        assert words == ("" if not kept else made.before + made.separator.join(kept) + made.after)
        if budget is not None:
            assert sections.count(words) <= budget
            if missing:  # one more would have been too much
                more = list(made.items)[: len(kept) + 1]
                pieces = [made.before, made.after, *more, *[made.separator] * (len(more) - 1)]
                assert sum(map(sections.count, pieces)) > budget
        if words:
            texts.append((section, words))
    assert template.join(texts) == full


def test_a_long_chart_never_cuts_the_drugs():
    wanted = {"person": None, "readings": 60, "drugs": 40}
    short = dataclasses.replace(templates.SPECIMEN, readings=(), courses=())
    for name in NAMES:
        template = templates.template(name, wanted)
        long, none = template.written(templates.SPECIMEN, 48), template.written(short, 48)
        assert long.dropped.keys() == {"readings"}
        assert none.dropped == {}
        drugs = sections.fitted(template.parts["drugs"](short, 48), 40)[0]
        assert drugs in long.text
        assert drugs in none.text


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("intervals/1", {"drugs": 32, "procedures": 7, "diagnoses": 22, "readings": 5}),
        ("narrative/1", {"diagnoses": 10}),
        ("compact/1", {"diagnoses": 10}),
        ("paper/1", {}),
    ],
)
def test_a_budget_takes_the_place_of_the_own_limits_of_a_template(name, own):
    assert templates.template(name).written(CROWD, 48).dropped == own
    assert templates.template(name, dict.fromkeys(templates.SECTIONS)).written(CROWD, 48).dropped == own
    assert templates.template(name, dict.fromkeys(templates.SECTIONS, 10_000)).written(CROWD, 48).dropped == {}


def test_a_budget_too_small_for_one_item_leaves_the_section_out():
    template = templates.template("narrative/1", {"person": None, "drugs": 3})
    assert template.written(templates.SPECIMEN, 48) == ("67-year-old man.", {"drugs": 2})
    assert templates.template("paper/1", {"drugs": 1}).written(templates.SPECIMEN, 48) == ("", {"drugs": 2})


def test_an_empty_section_leaves_nothing_and_drops_nothing():
    bare = Record(age=50, gender="F")
    for name in NAMES:
        assert templates.template(name, {"drugs": 5, "outputs": None}).written(bare, 48) == ("", {})


def test_what_was_left_out_is_summed_for_the_provenance():
    template = templates.template("compact/1", {"drugs": 9, "readings": 30})
    few = Record(age=50, gender="F", readings=(("Lactate", 2.0),), courses=(Course(2.0, 2.0, 2.0, 2.0, 1, 3, 3),))
    texts = [template.written(record, 48) for record in (CROWD, templates.SPECIMEN, few)]
    assert texts[2].dropped == {}
    assert templates.left_out(texts) == {
        section: {
            "records": sum(section in made.dropped for made in texts),
            "items": sum(made.dropped.get(section, 0) for made in texts),
        }
        for section in ("readings", "drugs")
    }
    assert templates.left_out(texts[2:]) == {}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {},
            r"^task\.sections=\{\}: name at least one section with its budget of tokens or null, "
            r"as in \{person: null, drugs: 80\}\.$",
        ),
        (
            ["drugs"],
            r"^task\.sections=\['drugs'\]: name at least one section with its budget of tokens or null, "
            r"as in \{person: null, drugs: 80\}\.$",
        ),
        (
            {"labs": 3, "drugs": None, "notes": None},
            r"^task\.sections has no labs, notes: there are person, readings, drugs, procedures, outputs, diagnoses\.$",
        ),
        *(
            (
                {"drugs": budget},
                rf"^task\.sections\.drugs={budget!r}: a budget is a whole number of tokens, 1 or more, or null for "
                r"none; leave the section out to switch it off\.$",
            )
            for budget in (0, -3, 1.5, True)
        ),
    ],
)
def test_sections_that_make_no_sense_are_refused(wanted, words):
    with pytest.raises(UserError, match=words):
        templates.template("intervals/1", wanted)
