"""Files of questions in their makers' own forms: lines in a .json, options as mappings, and lines that will not do."""

import json
import re
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.item_files import rows

OPTIONS = ["Aspirin", "Heparin", "2.5", "none"]


def written(path: Path, *lines) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def row(**more) -> dict:
    return {"question": "Which one?", "options": dict(zip("ABCD", OPTIONS, strict=True)), "answer_idx": "B"} | more


def test_medmcqas_own_json_files_hold_a_question_a_line(tmp_path):
    columns = dict(zip(("opa", "opb", "opc", "opd"), OPTIONS, strict=True))
    official = [{"question": f"Which\u2028{i}?", "exp": None, "cop": cop} | columns for i, cop in enumerate((4, 1))]
    written(tmp_path / "dev.json", *official)
    loaded = load("medmcqa", path=str(tmp_path)).examples
    assert [(example.gold, example.split) for example in loaded] == [(3, "test"), (0, "test")]
    assert loaded[1].uid == "medmcqa:medmcqa:dev.json line 2"
    for bad, message in (
        ("{broken", r"dev\.json line 3 is no JSON: Expecting property name"),
        ("9" * 5000, r"dev\.json line 3 cannot be read: Exceeds the limit"),
    ):
        written(tmp_path / "dev.json", *official, bad)
        with pytest.raises(UserError, match=message):
            load("medmcqa", path=str(tmp_path))


def test_one_json_value_of_many_lines_is_still_one(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"17": row(), "18": row()}, indent=1))
    assert [location for location, _ in rows(path, path.name)] == ["test.json item 17", "test.json item 18"]
    path.write_text(json.dumps({"patient 0042": row(), "patient 4711": row(question="")}))
    with pytest.raises(UserError, match=r"test\.json item 2 has no question\.") as refused:
        load("multiple_choice", path=str(path))
    assert "patient" not in str(refused.value)  # a key may be a patient's id
    path.write_text(json.dumps([row()], indent=1)[:-3])
    with pytest.raises(UserError, match=r"test\.json line 11 is no JSON"):
        list(rows(path, path.name))


@pytest.mark.parametrize(("label", "text"), [("key", "value"), ("label", "text")])
def test_options_that_are_mappings_give_their_texts_and_labels(tmp_path, label, text):
    options = [{label: name, text: option} for name, option in zip("wxyz", OPTIONS, strict=True)]
    path = written(tmp_path / "test.jsonl", row(options=options, answer_idx="x"))
    (loaded,) = load("multiple_choice", path=str(path)).examples
    assert loaded.suffix == "Question: Which one?\nA. Aspirin\nB. Heparin\nC. 2.5\nD. none\nAnswer:"
    assert loaded.gold == 1


def test_a_csv_of_other_columns_is_refused_by_them_and_one_without_a_header_is_read(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(f"prompt,first,second,target,{'a text of the file ' * 3}\nWhich?,one,two,A,x\n")
    with pytest.raises(
        UserError, match=r"^test\.csv line 1 names no known column: it has prompt, first, second"
    ) as message:
        load("multiple_choice", path=str(path))
    assert "Known are question, sent1 for the question, options, choices, endings, opa" in str(message.value)
    assert "a text of the file" not in str(message.value)
    for last, right in (("b", 1), ("0", 0), ("ONE", 0)):
        path.write_text(f"\nWhich?,one,two,{last}\n")
        assert [example.gold for example in load("multiple_choice", path=str(path)).examples] == [right]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.xlsx"])
def test_a_column_twice_is_refused(tmp_path, name):
    cells = [["question", "A", "B", "A", "answer"], ["Which?", "x", "y", "z", "A"]]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_arrays([[cell] for cell in cells[1]], names=cells[0]), tmp_path / name)
    elif name.endswith("xlsx"):
        book = openpyxl.Workbook()
        for line in cells:
            book.worksheets[0].append(line)
        book.save(tmp_path / name)
    else:
        blank = "," if name.endswith("csv") else "\t"
        (tmp_path / name).write_text("".join(f"{blank.join(line)}\n" for line in cells))
    with pytest.raises(UserError, match=rf"{re.escape(name)} (names|has) the column [aA] more than once"):
        list(rows(tmp_path / name, name))
