"""Texts beside what was written of them: five kinds of files, splits, worked examples, nothing given away."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from pair_files import NOTE, dialogues, notes, summaries, write_csv
from tasks_by_yaml import load

from patientdx.core.cache import id_secret
from patientdx.core.errors import UserError
from patientdx.records.splits import divided
from patientdx.tasks.corpora import HEADERS, report_sections, split_discharge_note
from patientdx.tasks.item_files import limited

SHARED = Path(os.environ.get("PATIENTDX_SHARED", "nowhere")) / "data" / "benchmarks"
shared = pytest.mark.skipif("PATIENTDX_SHARED" not in os.environ, reason="the shared data sets are elsewhere")


def test_the_header_is_asked_for_and_nothing_of_the_answer_is_in_the_prompt(tmp_path):
    data = load("dialogue_to_section", path=str(dialogues(tmp_path / "mine.csv", 5)), new_tokens=9)
    assert (data.kind, data.open_data, data.generation.length, data.generation.judge) == ("generation", True, 9, None)
    assert Counter(example.split for example in data.examples) == {"test": 5}
    example = data.examples[1]
    assert (
        example.prefix
        == 'Write the section "Chief complaint" of a clinical note from the conversation.\n\nConversation:\n'
    )
    assert example.context == "Doctor: a 1?\nPatient: It hurts, 1."
    assert example.suffix == "\n\nChief complaint:"
    assert example.reference == "a has pain 1."
    assert example.subject == example.uid == "dialogue_to_section:mine.csv line 4"  # the conversation takes two lines
    assert data.groups == {"section": ("GENHX", "CC", "GENHX", "CC", "GENHX")}
    assert data.cohort == [{"step": "read", "items": 5}, {"step": "kept", "items": 5, "test": 5}]


def test_files_say_their_split_and_worked_examples_come_from_train_alone(tmp_path):
    dialogues(tmp_path / "MTS-Dialog-TrainingSet.csv", 6, "train")
    dialogues(tmp_path / "MTS-Dialog-ValidationSet.csv", 3, "pilot")
    dialogues(tmp_path / "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", 4, "test")
    data = load("dialogue_to_section", path=str(tmp_path), shots=2)
    assert Counter(example.split for example in data.examples) == {"train": 6, "pilot": 3, "test": 4}
    for example in data.examples:
        assert example.prefix.count("Doctor: train") == 2
        assert re.search(r"(Chief complaint|History of present illness): train has pain \d\.\n\nWrite", example.prefix)
        assert example.reference not in example.prefix  # nor is one of train shown itself
    assert len({example.prefix.rpartition("Write")[0] for example in data.examples if example.split == "test"}) == 1
    other = load("dialogue_to_section", path=str(tmp_path), shots=2, seed=1)
    assert other.fingerprint != data.fingerprint
    assert other.examples[-1].prefix != data.examples[-1].prefix
    with pytest.raises(
        UserError, match=r"task\.shots=6: worked examples come from train alone, which has 6 to show, none"
    ):
        load("dialogue_to_section", path=str(tmp_path), shots=6)
    with pytest.raises(UserError, match=r"which has 0 to show"):
        load("dialogue_to_section", path=str(tmp_path), shots=1, train_limit=0)


def test_a_limit_keeps_the_same_items_whatever_else_is_kept(tmp_path):
    path = str(dialogues(tmp_path / "mine.csv", 40))
    parts_of = {"train": 0.4, "pilot": 0.2, "test": 0.4}
    full = load("dialogue_to_section", path=path, fractions=parts_of)
    few = load("dialogue_to_section", path=path, fractions=parts_of, limit=3, train_limit=5)
    fewer = load("dialogue_to_section", path=path, fractions=parts_of, limit=2, train_limit=0)
    assert Counter(example.split for example in few.examples) == {"train": 5, "pilot": 3, "test": 3}
    order = [example.uid for example in full.examples]
    for smaller, larger in ((few, full), (fewer, few)):
        kept = [example.uid for example in smaller.examples]
        assert set(kept) < {example.uid for example in larger.examples}
        assert kept == sorted(kept, key=order.index)  # as they stand in the file
    assert (
        load("dialogue_to_section", path=path, fractions=parts_of, limit=3, train_limit=5).fingerprint
        == few.fingerprint
    )


def test_limited_holds_no_more_than_it_keeps_and_takes_what_comes_first():
    places = [(("test", "train", "pilot")[i % 3], (i * 37) % 100 / 100) for i in range(100)]
    loaded = limited(range(100), places.__getitem__, {"train": 2, "test": None, "pilot": 0})
    train = sorted((i for i in range(100) if places[i][0] == "train"), key=lambda i: places[i][1])[:2]
    assert loaded == sorted([*train, *(i for i in range(100) if places[i][0] == "test")])


def test_notes_of_visits_have_their_data_set_as_group(tmp_path):
    rows = [
        ["aci", "D2N1", "[doctor] hi", "CHIEF COMPLAINT\n\nCough."],
        ["virt", "D2N2", "[doctor] hello", "PLAN\n\nRest."],
    ]
    path = write_csv(tmp_path / "clinicalnlp_taskB_test1.csv", ["dataset", "encounter_id", "dialogue", "note"], rows)
    data = load("dialogue_to_note", path=str(path))
    assert [example.reference for example in data.examples] == ["CHIEF COMPLAINT\n\nCough.", "PLAN\n\nRest."]
    assert data.groups == {"dataset": ("aci", "virt")}


def test_a_sheet_is_read_and_a_number_in_it_is_its_text(tmp_path):
    path = summaries(
        tmp_path / "MeQSum.xlsx", [["1.txt", "who makes it", "Who makes it?"], ["2.txt", 12, "What is 12?"]]
    )
    data = load("question_summary", path=str(path))
    assert [(example.context, example.reference) for example in data.examples] == [
        ("who makes it", "Who makes it?"),
        ("12", "What is 12?"),
    ]
    assert data.examples[0].uid == "question_summary:MeQSum.xlsx row 2"
    assert data.groups == {}


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 INDICATION:  ___F with cough, clinical impression: pneumonia

 FINDINGS:

 The lungs are clear.  LINES AND TUBES: none.
 There is no effusion.

 IMPRESSION:

 No acute process.

 NOTIFICATION:  discussed by phone
"""


def test_findings_and_impression_are_cut_out_of_a_report():
    assert report_sections(REPORT)["findings"] == "The lungs are clear.  LINES AND TUBES: none.\n There is no effusion."
    assert report_sections(REPORT)["impression"] == "No acute process."
    flat = "EXAMINATION: chest. FINDINGS: Clear lungs. IMPRESSION: Normal chest. RECOMMENDATION(S): none"
    assert report_sections(flat)["findings"] == "Clear lungs."
    assert report_sections(flat)["impression"] == "Normal chest."
    assert report_sections("Findings\nClear.\nImpression\nNormal.")["impression"] == "Normal."
    assert "findings" not in report_sections("FINDINGS AND IMPRESSION: Normal.")
    twice = "FINDINGS: A.\nIMPRESSION: B.\nFINDINGS: C.\nIMPRESSION: D."
    assert (report_sections(twice)["findings"], report_sections(twice)["impression"]) == ("A.", "B.")


def test_reports_are_read_as_columns_or_as_a_whole_and_by_patient(tmp_path):
    rows = [
        ["1", "", "Clear.", "Normal."],
        ["2", "cough", "", "Normal."],
        ["3", "", "Hazy.", ""],
        ["4", "", "Big heart.", "Big."],
    ]
    path = write_csv(tmp_path / "indiana_reports.csv", ["uid", "indication", "findings", "impression"], rows)
    data = load("radiology_impression", path=str(path), open_data=True)
    assert [(example.context, example.reference) for example in data.examples] == [
        ("Clear.", "Normal."),
        ("Big heart.", "Big."),
    ]
    assert data.open_data
    assert data.cohort[:2] == [{"step": "read", "items": 4}, {"step": "with findings and impression", "items": 2}]
    rows = [[1 + i // 2, i, REPORT.replace("clear", f"clear {i}")] for i in range(12)]
    path = write_csv(tmp_path / "mimic_cxr.csv.gz", ["subject_id", "study_id", "text"], rows)
    data = load("radiology_impression", path=str(path), fractions={"pilot": 0.5, "test": 0.5})
    assert not data.open_data
    split = {}
    for example in data.examples:
        assert split.setdefault(example.subject, example.split) == example.split  # a patient is on one side
        assert example.context.startswith("The lungs are clear ")
        assert "No acute process" not in example.prefix + example.context + example.suffix
    assert len(split) == 6
    assert set(split.values()) == {"pilot", "test"}


def test_a_discharge_note_gives_away_neither_its_course_nor_what_stands_behind_it(tmp_path):
    before, course = split_discharge_note(NOTE.format(n=3))
    assert course == "Patient 3 was treated for heart failure.\nTRANSITIONAL ISSUES:\n- weigh daily 3"
    assert before.endswith("BNP 4000\n\n")
    assert "there she had diuretics 3" in before  # the course of another stay
    assert split_discharge_note("HPI: x\nHOSPITAL COURSE BY SYSTEM:\nDid well.\nDischarge Medications:\nnone") == (
        "HPI: x\n",
        "Did well.",
    )
    assert split_discharge_note("Summary: Did well.\nBrief Hospital Course:\nDid  well.\n") == (
        "",
        "",
    )  # nothing is left to write
    data = load("hospital_course", path=str(notes(tmp_path / "discharge.csv.gz", 4)), limit=6)
    assert not data.open_data
    assert len(data.examples) == 6
    assert data.cohort[:2] == [{"step": "read", "items": 9}, {"step": "with a brief hospital course", "items": 8}]
    for example in data.examples:
        prompt = example.prefix + example.context + example.suffix
        assert not any(word in prompt for word in ("treated for heart", "weigh daily", "furosemide", "SECRET"))
        assert "Brief Hospital Course" not in example.context
        assert re.fullmatch(r"10\d+", example.subject)


def test_a_patient_is_in_the_split_that_the_tasks_of_records_put_that_patient_in(tmp_path):
    parts_of = {"train": 0.4, "pilot": 0.3, "test": 0.3}
    path = str(notes(tmp_path / "discharge.csv", 30))
    data = load("hospital_course", path=path, fractions=parts_of, seed=3)
    loaded = {example.subject: example.split for example in data.examples}
    stays = [(1000 + k, int(subject), 0) for k, subject in enumerate(loaded)]
    secret = id_secret(Path(os.environ["PATIENTDX_CACHE"]))
    rows = divided(stays, by="patient", seed=3, fractions=parts_of, limit=None, secret=secret)
    assert rows != divided(stays, by="patient", seed=3, fractions=parts_of, limit=None)
    assert {str(subject): split for _, subject, _, split in rows} == loaded
    assert set(loaded.values()) == set(parts_of)


def test_no_worked_example_is_of_the_same_patient(tmp_path):
    keys = {"path": str(notes(tmp_path / "discharge.csv", 4, each=3)), "fractions": {"train": 1.0}}
    data = load("hospital_course", **keys, shots=2)
    for example in data.examples:
        belonging = {int(re.search(r"diuretics (\d+)", example.context)[1]) // 3}
        assert len(belonging & {int(n) // 3 for n in re.findall(r"diuretics (\d+)", example.prefix)}) == 0
        assert example.prefix.count("Patient ") == 2


@shared
def test_the_shared_files_are_read_and_no_reference_is_cut_by_a_stop():
    sections = load("dialogue_to_section", path=str(SHARED / "mts-dialog"))
    notes = load("dialogue_to_note", path=str(SHARED / "aci-bench"))
    questions = load("question_summary", path=str(next((SHARED / "meqsum").glob("*.xlsx"))))
    for data, sizes in (
        (sections, {"pilot": 100, "test": 400}),
        (notes, {"pilot": 20, "test": 80}),
        (questions, {"test": 1000}),
    ):
        assert Counter(example.split for example in data.examples) == sizes
        for example in data.examples:
            assert example.context
            assert example.reference
            assert not any(stop in example.reference for stop in data.generation.stops)
    assert set(sections.groups["section"]) <= set(HEADERS)
    assert questions.examples[0].reference == "Who manufactures cetirizine?"
