"""The corpora of texts with their references as data: their columns, their prompts, and how a row is read.

A new corpus is one entry of CORPORA and one yaml in conf/task/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_END_MARKS = ("</s>", "<|im_end|>")  # end marks that a model writes out as text
# The headers of MTS-Dialog in words; any other is named as it is written.
HEADERS = {
    "GENHX": "History of present illness",
    "FAM/SOCHX": "Family and social history",
    "PASTMEDICALHX": "Past medical history",
    "PASTSURGICAL": "Past surgical history",
    "CC": "Chief complaint",
    "ROS": "Review of systems",
    "ALLERGY": "Allergies",
    "MEDICATIONS": "Medications",
    "ASSESSMENT": "Assessment",
    "EXAM": "Physical examination",
    "DIAGNOSIS": "Diagnosis",
    "DISPOSITION": "Disposition",
    "PLAN": "Plan",
    "EDCOURSE": "Emergency department course",
    "IMMUNIZATIONS": "Immunizations",
    "IMAGING": "Imaging",
    "GYNHX": "Gynecologic history",
    "PROCEDURES": "Procedures",
    "OTHER_HISTORY": "Other history",
    "LABS": "Laboratory results",
}
# The history of a patient who came from another hospital may hold a course of that stay, so "brief" has priority.
_COURSE = [
    re.compile(rf"^[ \t]*{brief}hospital[ \t]+course(?:[ \t]+by[^\n:]*)?[ \t]*:", re.I | re.M)
    for brief in (r"brief[ \t]+", "")
]
_NEXT_SECTION = re.compile(
    r"^[ \t]*(?:(?:medications?|meds)[ \t]+on[ \t]+admission|admission[ \t]+medications?|discharge[ \t]+\w+|"
    r"follow[- \t]?up[ \t]+instructions?|facility)[ \t]*:",
    re.I | re.M,
)
# Words that are a heading: with a colon at the start of a line, or in capitals within it; or alone on a line. Other
# capitals before a colon (LINES AND TUBES:) are a part of the findings.
_HEADINGS = (
    "findings", "impression", "conclusion", "indication", "history", "comparison", "technique", "examination",
    "recommendation", "recommendations", r"recommendation\(s\)", "notification", "wet read", "addendum",
)  # fmt: skip
_HEADING = re.compile(
    rf"^[ \t]*(?P<line>(?i:{'|'.join(_HEADINGS)}))[ \t]*(?::|$)"
    rf"|(?<=\s)(?P<inside>{'|'.join(_HEADINGS).upper()})[ \t]*:",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Corpus:
    """How the files of a corpus are read, and how it asks.

    Attributes:
        columns: sets of columns; a row must have one of the sets.
        read: maps a row to (text, reference).
        instruction: the first line of the prompt; {heading} is the item's heading.
        text_title, answer_title: the words before the text and before the answer.
        stops: texts at which an answer ends, besides those that every prompt has.
        source: where the files are available.
        heading: column that says which of several texts was written; None if there is only one.
        group: (name, column) of the grouping; None if there is none.
        complete: rows without text or reference are left out, and the others counted under this name; None: such rows
            are an error.
        excluded: words in the names of files in the same folder that hold no such pairs.
    """

    columns: tuple[tuple[str, ...], ...]
    read: Callable[[Mapping[str, Any]], tuple[str, str]]
    instruction: str
    text_title: str
    answer_title: str
    stops: tuple[str, ...]
    source: str
    heading: str | None = None
    group: tuple[str, str] | None = None
    complete: str | None = None
    excluded: tuple[str, ...] = ()

    def prompt(self, heading: str) -> tuple[str, str]:
        """The prompt's texts before and after the text, for an item with that heading ("" without headings)."""
        title = HEADERS.get(heading, heading)
        prefix = f"{self.instruction}\n\n{self.text_title}:\n".format(heading=title)
        return prefix, f"\n\n{self.answer_title}:".format(heading=title)

    @property
    def all_stops(self) -> tuple[str, ...]:
        """Every text at which an answer ends."""
        return (*self.stops, *_END_MARKS)


def _columns(text: str, reference: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda row: (str(row[text] or ""), str(row[reference] or ""))


def split_discharge_note(note: str) -> tuple[str, str]:
    """The part of a discharge note before the brief hospital course, and the course up to the next heading.

    ("", "") without a course, and where the text before already holds the course word for word. What follows the course
    (drugs at discharge, diagnoses, instructions) tells of it, and is in no prompt.
    """
    heading = next(filter(None, (pattern.search(note) for pattern in _COURSE)), None)
    if heading is None:
        return "", ""
    rest = note[heading.end() :]
    end = _NEXT_SECTION.search(rest)
    before, course = note[: heading.start()], rest[: None if end is None else end.start()].strip()
    return ("", "") if " ".join(course.split()) in " ".join(before.split()) else (before, course)


def report_sections(report: str) -> dict[str, str]:
    """The text under each heading of a radiology report, by heading in lower case; the first of a repeated heading."""
    sections: dict[str, str] = {}
    headings = list(_HEADING.finditer(report))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        name = (heading["line"] or heading["inside"]).strip().lower()
        text = report[heading.end() : None if following is None else following.start()].strip()
        if text:
            sections.setdefault(name, text)
    return sections


def _read_report(row: Mapping[str, Any]) -> tuple[str, str]:
    if "findings" in row and "impression" in row:
        return str(row["findings"] or ""), str(row["impression"] or "")
    sections = report_sections(str(row["text" if "text" in row else "report"] or ""))
    return sections.get("findings", ""), sections.get("impression", "")


CORPORA = {
    # the whole note of a visit from its conversation (Yim et al., Sci. Data 2023; CC BY 4.0)
    "dialogue_to_note": Corpus(
        columns=(("dialogue", "note"),),
        read=_columns("dialogue", "note"),
        instruction="Write the clinical note of a visit from the conversation of doctor and patient.",
        text_title="Conversation",
        answer_title="Clinical note",
        stops=("\nConversation:", "Write the clinical note"),
        source="ACI-Bench, the csv files of data/challenge_data: github.com/wyim/aci-bench.",
        group=("dataset", "dataset"),
        excluded=("metadata",),
    ),
    # a section of a clinical note from a conversation (Ben Abacha et al., EACL 2023; CC BY 4.0)
    "dialogue_to_section": Corpus(
        columns=(("dialogue", "section_text", "section_header"),),
        read=_columns("dialogue", "section_text"),
        instruction='Write the section "{heading}" of a clinical note from the conversation.',
        text_title="Conversation",
        answer_title="{heading}",
        stops=("\nConversation:", "Write the section"),
        source="MTS-Dialog, the csv files of Main-Dataset: github.com/abachaa/MTS-Dialog.",
        heading="section_header",
        group=("section", "section_header"),
    ),
    # the brief hospital course of a discharge note (MIMIC-IV-Note, Johnson et al., PhysioNet 2023; credentialed)
    "hospital_course": Corpus(
        columns=(("subject_id", "hadm_id", "text"),),
        read=lambda row: split_discharge_note(str(row["text"] or "")),
        instruction="Write the brief hospital course of a discharge note from the part of the note before it.",
        text_title="Note",
        answer_title="Brief hospital course",
        stops=("\nMedications on Admission:", "\nDischarge ", "\nNote:", "Write the brief hospital course"),
        source="MIMIC-IV-Note, discharge.csv.gz: physionet.org/content/mimic-iv-note (credentialed).",
        complete="with a brief hospital course",
    ),
    # a consumer's long health question as a short one (Ben Abacha and Demner-Fushman, ACL 2019; CC BY 4.0)
    "question_summary": Corpus(
        columns=(("chq", "summary"),),
        read=_columns("chq", "summary"),
        instruction="Summarise the health question in one short question.",
        text_title="Health question",
        answer_title="Short question",
        stops=("\nHealth question:", "Summarise the health question"),
        source="MeQSum, the xlsx file with the columns File, CHQ and Summary: github.com/abachaa/MeQSum.",
    ),
    # the impression of a chest radiograph's report from its findings. IU X-ray (Demner-Fushman et al., JAMIA 2016) has
    # both as columns; of MIMIC-CXR (Johnson et al., Sci. Data 2019) they are cut out of the report's text
    "radiology_impression": Corpus(
        columns=(("findings", "impression"), ("text",), ("report",)),
        read=_read_report,
        instruction="Write the impression of a radiology report from its findings.",
        text_title="Findings",
        answer_title="Impression",
        stops=("\nFindings:", "Write the impression"),
        source="A csv with findings and impression, as of IU X-ray, or with whole reports, as of MIMIC-CXR.",
        complete="with findings and impression",
    ),
}
