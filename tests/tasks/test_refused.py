"""Files and keys of public data sets that are refused: the message has file and line, and no text of closed data."""

import json
import math

import pytest
from pair_files import notes, summaries
from tasks_by_yaml import load

from patientdx.core.errors import UserError

OPTIONS = ["Aspirin", "Heparin", "2.5", "none"]


def item(**more) -> dict:
    return {"question": "Which one?", "options": dict(zip("ABCD", OPTIONS, strict=True)), "answer_idx": "B"} | more


def problem(**more) -> dict:
    return {"question": "How many?", "answer": "#### 2"} | more


def prompt(kind: str = "punctuation:no_comma", *arguments, **more) -> dict:
    return {"prompt": "Say it.", "instruction_id_list": [kind], "kwargs": list(arguments) or [{}]} | more


# The second line of a file whose first line is valid: task, first line, the lines with their messages.
WORDS, PARAGRAPHS = "length_constraints:number_words", "length_constraints:number_paragraphs"
LINES = {
    "multiple_choice": (item(), [
        (item(answer_idx="E"), "the answer is 'E', which is none of its 4 options (A to D)."),
        (item(answer_idx=4), "the answer is 4, which is none of its 4 options"),
        (item(answer_idx="²"), "the answer is '²', which is none of its 4 options"),
        (item(answer_idx="1" * 5000), "which is none of its 4 options"),
        (item(answer_idx=None), "has no answer. Its columns are question, options, answer_idx"),
        ({"prompt": "x", "reply": "y"}, "has no question and no options and no answer. Its columns are"),
        (item(question=""), "has no question"),
        (item(question={"stem": "Which one?"}), "the question is of type dict."),
        (item(context={"text": "An abstract."}), "the context is of type dict."),
        (item(options={"A": "fever", "B": " "}), "option B is empty."),
        (item(options=["Aspirin", None]), "option B is empty."),
        (item(options={"A": "fever"}, answer_idx="A"), "has 1 options; a question has 2 to 26"),
        (item(options="fever or cough"), "the options are one text"),
        (item(options=5), "the options are of type int. Give a list of texts"),
        (item(options={"text": OPTIONS, "label": 5}), "the options are of type int."),
        (item(options=["Aspirin", ["Heparin"]]), "option 2 is of type list. A text or a number is needed."),
        (item(options={"A": "Aspirin", "B": {"text": "Heparin"}}), "option 2 is of type dict."),
        (item(options=[{"key": "A", "value": "Aspirin"}, {"letter": "B", "body": "Heparin"}]),
         "options that are mappings have key and value or label and text, but option 2 has letter, body."),
        (item(options=[{"key": "A", "value": "Aspirin"}, "Heparin"]), "but option 2 is none."),
        (item(options=[{"key": "A", "value": "Aspirin"}, {"key": ["B"], "value": "Heparin"}]),
         "an option's label is of type list."),
        ({"question": "Which one?", "options": OPTIONS, "label": math.nan}, "has no answer. Its columns are"),
        ({"question": "Which one?", "options": OPTIONS, "label": math.inf}, "the answer is inf, which is none"),
        ("[1, 2]", "a row is a mapping of columns to values, not list"),
        ("{broken", "is no JSON"),
    ]),
    "gsm8k": (problem(), [
        (problem(answer=" "), "has no question or an empty answer."),
        ({"text": "How many?"}, "Its columns are text; GSM8K's are question and answer."),
        (problem(answer="18"), "the answer names no number behind ####"),
    ]),
    "ifeval": (prompt(key=1), [
        (prompt(prompt=""), "has no prompt."),
        (prompt(kwargs=[]), "instruction_id_list and kwargs must be lists of one length"),
        (prompt("keywords:rhyme"), "there is no rule for the instruction 'keywords:rhyme'."),
        (prompt("punctuation:no_comma", {"letter": "a"}), "no_comma takes no arguments, but kwargs has letter."),
        (prompt("startend:end_checker"), "takes end_phrase, but kwargs has none"),
        (prompt(PARAGRAPHS, {"num_paragraphs": "two"}), "needs a whole number as num_paragraphs, not 'two'"),
        (prompt(PARAGRAPHS, {"num_paragraphs": math.nan}), "needs a whole number as num_paragraphs, not nan"),
        (prompt(WORDS, {"num_words": 3, "relation": "exactly"}), "knows less than and at least as relation, not"),
        (prompt("keywords:existence", {"keywords": ["(a"]}), "and it is none"),
        (prompt("keywords:existence", {"keywords": []}), "needs a text as keywords"),
        (prompt("punctuation:no_comma", "{}"), "kwargs has a mapping for each instruction, but one of type str."),
        (prompt("length_constraints:nth_paragraph_first_word",
                {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"}),
         "needs a whole number of 1 or more as nth_paragraph, not 0"),
        (prompt("detectable_format:multiple_sections", {"section_spliter": "Part (", "num_sections": 2}),
         "detectable_format:multiple_sections reads 'Part (' as a regular expression, and it is none"),
        (prompt("detectable_content:postscript", {"postscript_marker": "P.S. [a"}),
         "detectable_content:postscript reads 'P.S. [a' as a regular expression, and it is none"),
        (prompt(key=1), "its key is that of test.jsonl line 1 too."),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "bad", "message"), [(task, *case) for task, (_, cases) in LINES.items() for case in cases]
)
def test_a_bad_line_is_named(tmp_path, task, bad, message):
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in (LINES[task][0], bad)))
    with pytest.raises(UserError, match=r"^test\.jsonl line 2") as refused:
        load(task, path=str(path))
    assert message in str(refused.value)


HEADER = "section_header,section_text,dialogue\n"
FILES = {  # task, name of the file, its text, message
    "a short row": ("multiple_choice", "test.csv", "question,A,B,answer\nWhich?,a,b,A\nWhich?,a,A\n",
                    "test.csv line 3 has 3 columns, but the first line has 4"),
    "no split in a name": ("multiple_choice", "folder/questions.jsonl", "{}", "holds no file whose name says its"),
    "a column that is missing": (
        "dialogue_to_section", "mine.csv", "ID,dialogue,note\n1,hello,x\n",
        "mine.csv line 2: task=dialogue_to_section needs the columns dialogue and section_text and section_header. Its "
        "columns are id, dialogue, note. MTS-Dialog"),
    "an empty reference": (
        "dialogue_to_section", "mine.csv", 'section_header,section_text,dialogue\nCC,Pain.,"a\nb"\nCC," ",hello\n',
        "mine.csv line 4: what was written of it is empty (dialogue and section_text and section_header are needed)."),
    "an empty text": ("dialogue_to_section", "mine.csv", HEADER + "CC,Pain.,\n", "mine.csv line 2: the text is empty"),
    "an empty header": ("dialogue_to_section", "mine.csv", HEADER + ",Pain.,hello\n",
                        "mine.csv line 2: section_header is empty. Fill it, or take the row out."),
    "a row of another length": ("dialogue_to_section", "mine.csv", HEADER + "CC,Pain.,hello,there\n",
                                "mine.csv line 2 has 4 columns, but the first line has 3."),
    "no JSON": ("dialogue_to_section", "mine.jsonl", "{\n", "mine.jsonl line 1 is no JSON"),
    "no sheet": ("dialogue_to_section", "mine.xlsx", "this is no zip",
                 "mine.xlsx cannot be read as an xlsx file: File is not a zip file."),
    "not compressed": ("dialogue_to_section", "mine.csv.gz", "this is no gzip",
                       "mine.csv.gz cannot be read: Not a gzipped file"),
    "another kind of file": ("dialogue_to_section", "mine.txt", "x", "mine.txt: rows are read from .jsonl, .json"),
    "no rows": ("dialogue_to_section", "mine.csv", HEADER, "mine.csv holds no row to ask about. MTS-Dialog"),
    "a list for a row": ("radiology_impression", "reports_test.jsonl", "[1, 2]",
                         "line 1: a row is a mapping of columns to values, not list"),
    "closed, without a header": (
        "hospital_course", "discharge.csv", "10001,777,Patient was SECRET\n10002,778,Another SECRET\n",
        "line 2: task=hospital_course needs the columns subject_id and hadm_id and text. It has 3 columns."),
    "closed, without a course": ("hospital_course", "discharge.csv", "subject_id,hadm_id,text\n10001,2,SECRET course\n",
                                 "holds no row with a brief hospital course"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_named_with_its_line_and_no_closed_text(tmp_path, case):
    task, name, text, message = FILES[case]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load(task, path=str(path if path.parent == tmp_path else path.parent))
    assert message in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert "10001" not in str(refused.value)


KEYS = {
    "medqa": [
        ({"path": None}, "task.path is missing: medqa is read from a local file or folder, or from hub:<owner>/<name>"),
        ({"path": "/nowhere"}, "/nowhere does not exist. Give a local file or folder, or hub:<owner>/"),
        ({"shots": 3}, "task.shots=3: worked examples come from train alone, and train of medqa has 0 to show."),
        ({"shots": -1}, "task.shots=-1: a whole number of 0 or more is needed."),
        ({"limit": 0}, "task.limit=0: a whole number of 1 or more is needed."),
        ({"answer": "number"}, "task.answer='number': it is letter or text"),
        ({"answers_from": 2}, "task.answers_from=2: the first option is number 0 or 1."),
        ({"fractions": {"dev": 1}}, "task.fractions={'dev': 1}: the shares of train, pilot, test"),
        ({"question_set": "medqb"}, "task.question_set='medqb': choose medqa or medmcqa"),
    ],
    "dialogue_to_section": [
        ({"path": None}, "task.path is missing: dialogue_to_section is read from a local file"),
        ({"path": "/nowhere"}, "does not exist. Give a local file or folder, or hub:"),
        ({"new_tokens": 0}, "task.new_tokens=0: a whole number of 1 or more"),
        ({"train_limit": -1}, "task.train_limit=-1: a whole number of 0 or more"),
        ({"fractions": {"test": 0.5}}, "task.fractions="),
        ({"bertscore": "/nowhere"}, "task.bertscore=/nowhere is no folder of an encoder with config.json, weights"),
        ({"corpus": "letters"}, "task.corpus='letters': choose dialogue_to_note or"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("task", "keys", "message"), [(task, *case) for task, cases in KEYS.items() for case in cases])
def test_keys_that_are_not_valid_are_refused(tmp_path, task, keys, message):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(item()))
    with pytest.raises(UserError) as refused:
        load(task, **({"path": str(path)} | keys))
    assert message in str(refused.value)


def test_a_file_that_was_not_copied_completely_is_refused(tmp_path):
    path = notes(tmp_path / "discharge.csv.gz", 30)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match=r"discharge\.csv\.gz cannot be unpacked: .*It may not have been copied whole"):
        load("hospital_course", path=str(path))
    book = summaries(tmp_path / "half.xlsx", [["1.txt", "a", "b"]])
    book.write_bytes(book.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"half\.xlsx cannot be read as an xlsx file"):
        load("question_summary", path=str(book))
