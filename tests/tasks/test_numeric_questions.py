"""The generated questions: their answers are worked out again from their text alone."""

import hashlib
import random
import re
from collections import Counter

import pytest

from patientdx.tasks.numeric_generator import KINDS, PARTS, SIZES, ask, conversation, dealt, drill, held_out

LINE = re.compile(r"([A-Za-z][\w/ ]*?) (-?[\d.]+) \((-?[\d.]+)-(-?[\d.]+)\)")


def sides(text: str) -> dict[str, int]:
    """Name to -1, 0 or 1 for every reading that stands in a text."""
    found = {}
    for name, value, low, high in LINE.findall(text):
        found[name.strip()] = (float(value) > float(high)) - (float(value) < float(low))
    return found


def answer(prompt: str) -> bool:
    """The answer to a question, from its words."""
    question = re.split(r"\n\n|(?<=\. )(?=Are the values)", prompt)[-1].removesuffix(" Answer Yes or No.")
    if match := re.fullmatch(r"Is (-?[\d.]+) (\w+) than (-?[\d.]+)\?", question):
        a, word, b = float(match[1]), match[2], float(match[3])
        return a > b if word in ("greater", "larger", "higher") else a < b
    if match := re.fullmatch(r"Is (\d+) ([+-]) (\d+) greater than (-?\d+)\?", question):
        a, b = int(match[1]), int(match[3])
        return (a + b if match[2] == "+" else a - b) > int(match[4])
    if match := re.fullmatch(r"Is ([\d.]+) (\w+) more than (\d+) \w+\?", question):
        return float(match[1]) * (60 if match[2] == "h" else 1000) > int(match[3])
    if match := re.fullmatch(r"Are the values (\w+)\?", question):
        series = [float(value) for value in re.search(r"Series: (.*)\. Are", prompt)[1].split(", ")]
        return (series[-1] > series[0]) == (match[1] == "rising")
    return about_readings(question, sides(prompt))


def trends(text: str) -> dict[str, str]:
    """Name to rising or falling for every reading that has a trend behind it."""
    return {
        line.split(" ")[0]: line.rpartition(", ")[2]
        for line in text.split("\n")
        if re.search(r"\), (ri|fa)|\) E.*, (ri|fa)", line)
    }


def about_readings(question: str, found: dict[str, int]) -> bool:
    out = sum(side != 0 for side in found.values())
    if match := re.fullmatch(r"Are more than (\d+) readings out of range\?", question):
        return out > int(match[1])
    if match := re.fullmatch(r"Are at least (\d+) readings abnormal\?", question):
        return out >= int(match[1])
    if question == "Are most readings within their range?":
        return out < len(found) / 2
    if question.startswith("Are most readings"):
        return out > len(found) / 2
    states = "out of range|abnormal|within its range|above its range|below its range"
    match = re.fullmatch(rf"Is (.+) ({states})\?", question)
    side = next(iter(found.values())) if match[1] == "this value" else found[match[1]]
    wanted = {"within its range": (0,), "above its range": (1,), "below its range": (-1,)}
    return side in wanted.get(match[2], (-1, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", PARTS)
def test_the_answer_follows_from_the_text(kind, layout):
    rng = random.Random(f"check {kind}")
    for _ in range(200):
        question = ask(rng, kind, SIZES[layout], layout)
        if trend := re.fullmatch(r"Is (.+) (rising|falling)\?", question.text):
            assert (trends(question.context)[trend[1]] == trend[2]) == question.answer, question.prompt
        else:
            assert answer(question.prompt) == question.answer, question.prompt


def test_the_published_questions_are_those_of_version_1():
    """The table of the shipped adapter's card is about them, and its training drew these chats."""
    asked = "\n".join(question.prompt + question.target for question in held_out(7, 60))
    assert hashlib.sha256(asked.encode()).hexdigest().startswith("b192d1295c8fac35")
    rng, keys = random.Random("train 20260"), {"panels": 0.7, "short": ("comparison", "range"), "marked": 0.3}
    turns = [turn for _ in range(300) for turn in conversation(rng, **keys, inline=0.5)]
    taught = "\n".join(turn.prompt + turn.target for turn in turns)
    assert hashlib.sha256(taught.encode()).hexdigest().startswith("5a47785d5d19c6bd")


def test_lists_have_the_layout_of_the_default_template():
    asked = [question for question in held_out(7, 20, "brief") if question.kind in ("item", "most", "count")]
    for question in asked:
        head, *rest = question.context.removeprefix(re.match(r"(Age .*\n)?", question.context)[0]).split("\n")
        assert re.fullmatch(r"Readings, mean of the first \d+ hours:", head)
        readings = rest[: len(sides(question.context))]
        shape = r"[\w/]+ -?[\d.]+ \(-?[\d.]+--?[\d.]+\)( E\d V\d M\d)?(, (rising|falling))?"
        assert all(re.fullmatch(shape, line) for line in readings), question.context
        behind = r"and \d+ more readings|(Drugs|Procedures): .+|Urine output \d+ mL"
        assert all(re.fullmatch(behind, line) for line in rest[len(readings) :]), question.context
    assert len({question.prompt for question in asked}) == len(asked)
    assert not {question.prompt for question in asked} & {question.prompt for question in held_out(7, 20)}


def test_a_drill_answers_each_question_in_its_line():
    rng = random.Random("drill")
    for easy in (True, False):
        for _ in range(50):
            lines = drill(rng, ("arithmetic", "units", "comparison", "trend"), easy).target.split("\n")
            assert 6 <= len(lines) <= 14
            for line in lines:
                text, _, verdict = line.rpartition(": ")
                assert answer(f"{text} Answer Yes or No.") == (verdict == "Yes"), line


def test_a_control_has_the_same_questions_and_answers_by_a_coin_that_it_keeps():
    keys = {"panels": 0.6, "short": ("comparison", "units"), "marked": 0.4, "drills": 0.4, "brief": 0.5}
    right = [turn for i in range(60) for turn in conversation(random.Random(i), **keys)]
    control = [turn for i in range(60) for turn in conversation(random.Random(i), **keys, control=1)]
    assert control == [turn for i in range(60) for turn in conversation(random.Random(i), **keys, control=1)]
    assert [turn.prompt for turn in control] == [turn.prompt for turn in right]
    pairs = [pair for a, b in zip(right, control, strict=True) for pair in zip(a.verdicts, b.verdicts, strict=True)]
    assert abs(sum(a == b for a, b in pairs) / len(pairs) - 0.5) < 0.1, "a coin is right half of the time"
    assert [dealt(turn, "", 1) for turn in right] != [dealt(turn, "", 2) for turn in right]


def test_held_out_questions_are_balanced_and_the_same_each_time():
    questions = list(held_out(7, 20))
    assert questions == list(held_out(7, 20))
    assert questions != list(held_out(8, 20))
    assert Counter((q.kind, q.answer) for q in questions) == {(k, a): 10 for k in KINDS for a in (True, False)}


@pytest.mark.parametrize("easy", [True, False])
def test_every_turn_of_a_chat_about_a_panel_is_answered_from_the_first(easy):
    rng = random.Random("chats")
    for _ in range(100):
        chat = conversation(rng, panels=1.0, short=("range",), marked=0.3, easy=easy)
        found = sides(chat[0].prompt)
        for turn in chat:
            if turn.reply:
                word = re.search(r"is it (.*)\?", turn.text)[1]
                wanted = {"above its range": (1,), "below its range": (-1,)}.get(word, (-1, 1))
                assert turn.target.split("\n") == [f"{n}: {'Yes' if s in wanted else 'No'}" for n, s in found.items()]
            else:
                assert about_readings(turn.text, found) == turn.answer


def test_no_held_out_question_is_asked_in_training():
    rng = random.Random("train 20260")
    seen = set()
    for _ in range(3000):
        seen |= {t.prompt for t in conversation(rng, panels=0.3, short=("range",), marked=0.2)}
    asked = {q.prompt for q in held_out(7, 60) if q.context}
    assert len(asked) > 200
    assert not asked & seen


def test_marks_in_place_repeat_the_reading():
    rng = random.Random("inline")
    for _ in range(50):
        (turn,) = conversation(rng, panels=1.0, short=("range",), marked=1.0, inline=1.0)
        assert not turn.context
        word = re.search(r"is it (.*)\?", turn.text)[1]
        wanted = {"above its range": (1,), "below its range": (-1,)}.get(word, (-1, 1))
        for line in turn.target.split("\n"):
            (side,) = sides(line).values()
            assert line.endswith(": Yes" if side in wanted else ": No")


def test_easy_numbers_are_whole():
    rng = random.Random("easy")
    for _ in range(100):
        (turn,) = conversation(rng, panels=1.0, short=("range",), marked=1.0, easy=True)
        assert all(re.fullmatch(r"\d{1,3}", number) for line in LINE.findall(turn.prompt) for number in line[1:])
