"""Textbook facts and their questions: the files, the balance of answers, and what is held out of training."""

import random
import re
from collections import Counter, defaultdict

import pytest
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.records.concept_table import concepts
from patientdx.tasks import biomedical_generator as generator
from patientdx.tasks.biomedical_facts import ATTRIBUTES, EVEN, ODD, TRAIN, drugs, rows, textbook
from patientdx.tasks.biomedical_generator import KINDS, PARTS, STEMS, WORDINGS, conversation, held_out, source

OUTCOME = re.compile(
    r"\b(die[sd]?|dying|dead|death|mortal\w*|surviv\w*|fatal\w*|lethal|prognos\w*|discharge\w*)\b", re.I
)
KEYS = {"marked": 0.3, "lists": 0.2, "choices": 0.2}


def chats(count, **keys):
    rng = random.Random("chats")
    return [turn for _ in range(count) for turn in conversation(rng, **KEYS | keys)]


def stated(kind, text):
    """Subject and value of a yes/no question about a fact, from its words."""
    values = {value for fact in textbook()[kind] for value in fact.values}
    matches = set()
    for wording in WORDINGS[kind]:
        for fact in textbook()[kind]:
            before, after = wording.format(it=fact.subject, value="|").split("|")
            value = text.removeprefix(before).removesuffix(after)
            if text == before + value + after and value in values:
                matches.add((fact.subject, value))
    (match,) = matches
    return match


def test_the_tables_are_well_formed():
    sizes = {table: len(rows(table)) for table in ("drugs", "diagnoses", "procedures", "readings", "severity")}
    assert all(sizes[table] >= least for table, least in (("drugs", 150), ("diagnoses", 120), ("procedures", 50)))
    for table in sizes:
        for row in rows(table):
            assert None not in row, row
            assert all(cell == cell.strip() and "  " not in cell for cell in row.values()), row
            for cell in row.values():
                assert cell == "" or all(part for part in cell.split("|")), row
                assert len(set(cell.split("|"))) == len(cell.split("|")), row
        if table != "severity":
            names = [row["name"] for row in rows(table)]
            assert len(set(names)) == len(names)
    classes = {row["class"] for row in rows("drug_classes")}
    assert {part for row in drugs() for part in row["class"].split("|")} <= classes
    assert [row["name"] for row in rows("readings")] == list(concepts())
    assert all(row["worse"] in ("", concepts()[row["name"]].worse) for row in rows("readings"))
    pairs = {(row["graver"], row["milder"]) for row in rows("severity")}
    assert len(pairs) == len(rows("severity"))
    assert not pairs & {(milder, graver) for graver, milder in pairs}


def test_severity_has_no_circle():
    below = defaultdict(set)
    for row in rows("severity"):
        below[row["graver"]].add(row["milder"])
    for start in list(below):
        reached, todo = set(), [start]
        while todo:
            for milder in below.get(todo.pop(), ()):
                if milder not in reached:
                    reached.add(milder)
                    todo.append(milder)
        assert start not in reached


def test_no_question_is_about_an_outcome_or_a_number():
    asked = [question for part in PARTS for question in held_out(7, 20, part)] + chats(150)
    for question in asked:
        text = question.prompt + question.target
        assert not OUTCOME.search(text), text
        # Names of readings and diseases have digits of their own (PaO2, type 1), records' numbers never.
        assert not re.search(r"(?<![\w/])\d+\.\d|\b\d{3,}\b", text), text


def test_every_part_of_every_kind_can_be_asked_about():
    for kind in ATTRIBUTES:
        parts = Counter(fact.part for fact in textbook()[kind])
        assert parts[TRAIN] >= 0.6 * sum(parts.values())
        assert parts[EVEN] >= 4
        assert parts[ODD] >= 4
    for seed in (6, 7):
        for part in PARTS:
            asked = Counter(question.kind for question in held_out(seed, 8, part))
            assert asked == dict.fromkeys(KINDS, 8), part


def test_answers_are_balanced_by_kind_and_repeat():
    for part in PARTS:
        asked = list(held_out(7, 12, part))
        assert asked == list(held_out(7, 12, part))
        counts = Counter((question.kind, question.answer) for question in asked)
        for kind in KINDS:
            assert len({counts[kind, answer] for answer in range(4 if kind == "choice" else 2)}) == 1, (part, kind)


@pytest.mark.parametrize("kind", [kind for kind in WORDINGS if kind != "severity"])
def test_neither_subject_nor_value_gives_the_answer_away(kind):
    """Yes and no are equally often right for each subject and each value, up to the draw."""
    rng, origin = random.Random(f"balance {kind}"), source()
    by = {"subject": defaultdict(list), "value": defaultdict(list)}
    values = {value for fact in origin.by_kind[kind] for value in fact.values}
    for _ in range(2500):
        question = generator.stated(rng, kind, origin)
        subject = max((f.subject for f in origin.by_kind[kind] if f.subject in question.text), key=len)
        value = max((v for v in values if v in question.text.replace(subject, "")), key=len)
        by["subject"][subject].append(question.answer)
        by["value"][value].append(question.answer)
    for groups in by.values():
        for name, answers in groups.items():
            n = len(answers)
            assert abs(sum(answers) - n / 2) <= 4.5 * (n / 4) ** 0.5 + 1, (name, sum(answers), n)


def test_what_is_true_is_answered_by_yes_and_what_could_be_defended_is_never_offered():
    true = {kind: {fact.subject: fact.values for fact in items} for kind, items in textbook().items()}
    for question in chats(60, marked=0.0, lists=0.0, choices=0.0):
        if question.kind == "severity":
            continue
        subject, value = stated(question.kind, question.text)
        assert (value in true[question.kind][subject]) == question.answer, question.text
        if question.answer:
            assert value == true[question.kind][subject][0]


def test_lists_and_options_hold_what_they_are_asked_for():
    classes = {row["name"]: row["class"].split("|") for row in drugs()}
    rng, origin = random.Random("lists"), source()
    seen = Counter()
    for _ in range(300):
        question = generator.contains(rng, origin)
        before, _, names = question.context.partition(": ")
        if before == "Drugs":
            value = next(
                each for each in sorted(set().union(*classes.values()), key=len, reverse=True) if each in question.text
            )
            assert any(value in classes[name] for name in names.split(", ")) == question.answer
            seen[question.answer] += 1
        question = generator.support(rng, origin)
        intensive = {f.subject for f in textbook()["drug_setting"] if f.values[0] == generator.INTENSIVE}
        a, b = (line.split(": ")[1].split(", ") for line in question.context.split("\n"))
        assert len(a) == len(b)
        assert (len(intensive & set(a)) > len(intensive & set(b))) == question.answer
        question = generator.choice(rng, origin)
        assert len(set(question.options)) == 4
        right = question.options[question.answer]
        assert any(f.subject in question.text and f.values[0] == right for kind in STEMS for f in textbook()[kind])
    assert min(seen.values()) > 20


def test_training_sees_neither_held_out_facts_nor_held_out_wordings():
    last = [wordings[-1] for wordings in WORDINGS.values()] + [stem[1] for stem in STEMS.values()]
    last += [each[-1] for _, _, each in generator.LISTS.values()] + [generator.SUPPORT[-1]]
    patterns = [re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(each))) for each in last]
    held = {(f.kind, f.subject) for items in textbook().values() for f in items if f.part != TRAIN}
    settings = {f.subject: f.part for f in textbook()["drug_setting"]}
    listed = {kind: {f.subject: f.part for f in textbook()[kind]} for kind in generator.LISTS}
    for question in chats(250):
        for pattern in patterns:
            assert not pattern.search(question.text), question.text
        if question.kind in WORDINGS and question.kind != "severity":
            assert (question.kind, stated(question.kind, question.text)[0]) not in held
        elif question.kind == "severity":
            assert not any(s in question.text and v[0] in question.text for s, v in severity_held())
        elif question.kind == "support":
            names = re.findall(r"List .: (.*)", question.context)
            assert all(settings[name] == TRAIN for line in names for name in line.split(", "))
        elif question.kind == "contains":
            before, _, names = question.context.partition(": ")
            kind = {"Drugs": "drug_class", "Procedures": "procedure_need", "Diagnoses": "organ"}[before]
            assert all(listed[kind][name] == TRAIN for name in re.split(r"[,;] ", names))
    training = {question.prompt for question in chats(400)}
    assert not training & {question.prompt for part in list(PARTS)[1:] for question in held_out(7, 20, part)}


def severity_held():
    return [(fact.subject, fact.values) for fact in textbook()["severity"] if fact.part != TRAIN]


def test_an_even_and_an_odd_seed_ask_about_different_textbook():
    for kind in WORDINGS:
        even, odd = ({f.subject + f.values[0] for f in source(part).by_kind[kind]} for part in (EVEN, ODD))
        assert even
        assert odd
        assert not even & odd


def test_a_control_knows_the_same_subjects_and_wrong_textbook():
    true, dealt = textbook(), textbook(5)
    assert dealt == textbook(5)
    assert dealt != textbook(6)
    for kind, items in true.items():
        if kind == "severity":
            turned = sum(a.subject != b.subject for a, b in zip(items, dealt[kind], strict=True))
            assert 0.3 < turned / len(items) < 0.7
            continue
        assert [f.subject for f in dealt[kind]] == [f.subject for f in items]
        assert [f.part for f in dealt[kind]] == [f.part for f in items]
        assert Counter(f.values for f in dealt[kind]) == Counter(f.values for f in items)
    classes = zip(true["drug_class"], dealt["drug_class"], strict=True)
    assert sum(a.values[0] == b.values[0] for a, b in classes) < 0.25 * len(true["drug_class"])
    assert chats(20) == chats(20)
    assert chats(20) != chats(20, control=5)


def test_the_task_asks_yes_or_no_about_other_facts_in_pilot_and_test():
    data = load("biomedical_questions", seed=3, per_kind=4)
    assert (data.name, data.kind, data.open_data) == ("biomedical_questions", "binary", True)
    for split, seed in (("pilot", 6), ("test", 7)):
        asked = [each for each in data.examples if each.split == split]
        expected = [question for question in held_out(seed, 4) if not question.options]
        assert [each.prefix + each.context + each.suffix for each in asked] == [each.prompt for each in expected]
        assert sum(each.label for each in asked) == len(asked) / 2
    assert set(data.groups["kind"]) == set(generator.YES_NO_KINDS)
    assert load("biomedical_questions", seed=3, per_kind=4).fingerprint == data.fingerprint
    prints = {load("biomedical_questions", seed=3, per_kind=4, part=part).fingerprint for part in PARTS}
    assert len(prints) == len(PARTS)
    with pytest.raises(UserError, match=r"task\.part='brief': choose taught or new_wordings or new_facts or new_both"):
        load("biomedical_questions", part="brief")
    with pytest.raises(UserError, match=r"task\.generator='surgical': choose numeric or biomedical"):
        load("biomedical_questions", generator="surgical")
