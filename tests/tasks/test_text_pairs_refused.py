"""Files of texts and references that will not do: what is said, with file and line, and nothing of what is closed."""

import json

import pytest
from pair_files import dialogues, notes, summaries
from tasks_by_yaml import load

from patientdx.core.errors import UserError

BAD = {  # file name, what is in it, what is said
    "a column that is missing": (
        "mine.csv",
        "ID,dialogue,note\n1,hello,x\n",
        "mine.csv line 2: task=dialogue_to_section needs the columns dialogue and section_text and section_header. Its "
        "columns are id, dialogue, note. MTS-Dialog",
    ),
    "an empty reference": (
        "mine.csv",
        'section_header,section_text,dialogue\nCC,Pain.,"a\nb"\nCC," ",hello\n',
        "mine.csv line 4: what was written of it is empty (dialogue and section_text and section_header are needed).",
    ),
    "an empty text": (
        "mine.csv",
        "section_header,section_text,dialogue\nCC,Pain.,\n",
        "mine.csv line 2: the text is empty",
    ),
    "an empty header": (
        "mine.csv",
        "section_header,section_text,dialogue\n,Pain.,hello\n",
        "mine.csv line 2: section_header is empty. Fill it, or take the row out.",
    ),
    "a row of another length": (
        "mine.csv",
        "section_header,section_text,dialogue\nCC,Pain.,hello,there\n",
        "mine.csv line 2 has 4 columns, but the first line has 3.",
    ),
    "no JSON": ("mine.jsonl", "{\n", "mine.jsonl line 1 is no JSON"),
    "no sheet": ("mine.xlsx", "this is no zip", "mine.xlsx cannot be read as an xlsx file: File is not a zip file."),
    "nothing packed": ("mine.csv.gz", "this is no gzip", "mine.csv.gz cannot be read: Not a gzipped file"),
    "another kind of file": ("mine.txt", "x", "mine.txt: questions are read from .jsonl, .json, .csv"),
    "no rows": ("mine.csv", "section_header,section_text,dialogue\n", "mine.csv holds no row to ask about. MTS-Dialog"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_line(tmp_path, name):
    file, content, said = BAD[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as refused:
        load("dialogue_to_section", path=str(tmp_path / file))
    assert said in str(refused.value)


def test_a_file_that_was_not_copied_whole_is_refused(tmp_path):
    path = notes(tmp_path / "discharge.csv.gz", 30)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match=r"discharge\.csv\.gz cannot be unpacked: .*It may not have been copied whole"):
        load("hospital_course", path=str(path))
    book = summaries(tmp_path / "half.xlsx", [["1.txt", "a", "b"]])
    book.write_bytes(book.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"half\.xlsx cannot be read as an xlsx file"):
        load("question_summary", path=str(book))


def test_bad_parameters_are_refused(tmp_path):
    path = str(dialogues(tmp_path / "mine.csv", 4))
    for given, said in (
        ({"path": None}, r"task\.path is missing: dialogue_to_section is read from a local file"),
        ({"path": str(tmp_path / "no")}, "does not exist. Give a local file or folder, or hub:"),
        ({"path": str(tmp_path)}, "holds no file whose name says its split"),
        ({"new_tokens": 0}, r"task\.new_tokens=0: a whole number of 1 or more"),
        ({"train_limit": -1}, r"task\.train_limit=-1: a whole number of 0 or more"),
        ({"fractions": {"test": 0.5}}, r"task\.fractions="),
        ({"bertscore": str(tmp_path)}, r"task\.bertscore=.* is no folder of an encoder with config\.json, weights"),
    ):
        with pytest.raises(UserError, match=said):
            load("dialogue_to_section", **({"path": path} | given))


def test_what_is_said_of_a_closed_file_holds_nothing_of_it(tmp_path):
    """A file without a header: its first line is a patient's."""
    path = tmp_path / "discharge.csv"
    path.write_text("10001,777,Patient was SECRET\n10002,778,Another SECRET\n")
    with pytest.raises(UserError, match=r"discharge\.csv line 2: .*hadm_id and text\. It has 3 columns\.") as refused:
        load("hospital_course", path=str(path))
    assert "SECRET" not in str(refused.value)
    assert "10001" not in str(refused.value)
    path.write_text("subject_id,hadm_id,text\n1,2,Nothing of a SECRET course\n")
    with pytest.raises(UserError, match="holds no row with a brief hospital course") as refused:
        load("hospital_course", path=str(path))
    assert "SECRET" not in str(refused.value)


def test_a_row_of_json_is_a_mapping_and_has_its_columns(tmp_path):
    lines = [{"findings": "Clear.", "impression": "Normal."}, {"findings": "Hazy.", "impression": None}]
    path = tmp_path / "reports_test.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert len(load("radiology_impression", path=str(path)).examples) == 1
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(UserError, match=r"line 1: a question is a mapping of columns to values, not list"):
        load("radiology_impression", path=str(path))
