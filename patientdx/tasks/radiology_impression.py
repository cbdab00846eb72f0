"""Task `radiology_impression`: the impression of a chest radiograph's report from its findings.

IU X-ray (Demner-Fushman et al., JAMIA 2016) has both as columns of a csv; of MIMIC-CXR (Johnson et al., Sci. Data 2019)
they are cut out of the report's text. Reports without either are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from patientdx.tasks.example import TaskData
from patientdx.tasks.text_pairs import ENDS, Corpus, Request, task

# Words that are a heading: with a colon where a line begins, or in capitals within it; or alone on a line. What else
# stands in capitals before a colon (LINES AND TUBES:) is a part of the findings.
_NAMES = (
    "findings", "impression", "conclusion", "indication", "history", "comparison", "technique", "examination",
    "recommendation", "recommendations", r"recommendation\(s\)", "notification", "wet read", "addendum",
)  # fmt: skip
_HEADING = re.compile(
    rf"^[ \t]*(?P<line>(?i:{'|'.join(_NAMES)}))[ \t]*(?::|$)|(?<=\s)(?P<inside>{'|'.join(_NAMES).upper()})[ \t]*:",
    re.MULTILINE,
)


def sections(report: str) -> dict[str, str]:
    """The text under each heading of a report, by the heading in small letters; of one that recurs the first."""
    found: dict[str, str] = {}
    headings = list(_HEADING.finditer(report))
    for here, following in zip(headings, [*headings[1:], None], strict=True):
        name = (here["line"] or here["inside"]).strip().lower()
        text = report[here.end() : None if following is None else following.start()].strip()
        if text:
            found.setdefault(name, text)
    return found


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    if "findings" in row and "impression" in row:
        return str(row["findings"] or ""), str(row["impression"] or "")
    cut = sections(str(row["text" if "text" in row else "report"] or ""))
    return cut.get("findings", ""), cut.get("impression", "")


def _ask(heading: str) -> tuple[str, str]:
    return "Write the impression of a radiology report from its findings.\n\nFindings:\n", "\n\nImpression:"


REPORTS = Corpus(
    name="radiology_impression",
    columns=(("findings", "impression"), ("text",), ("report",)),
    pair=_pair,
    ask=_ask,
    stops=("\nFindings:", "Write the impression", *ENDS),
    source="A csv with findings and impression, as of IU X-ray, or with whole reports, as of MIMIC-CXR.",
    complete="with findings and impression",
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 128,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
    bertscore: str | None = None,
    open_data: bool = False,
) -> TaskData:
    """Findings to impression; every keyword is explained in conf/task/radiology_impression.yaml.

    Raises UserError as `patientdx.tasks.text_pairs.task` does.
    """
    asked = Request(path, seed, shots, chat, new_tokens, fractions, limit, train_limit, bertscore, open_data)
    return task(REPORTS, asked)
