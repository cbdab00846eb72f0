"""A collection to search, from local files: corpus.jsonl, queries.jsonl and qrels in BEIR's or TREC's form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular
from patientdx.records.splits import split_of
from patientdx.tasks.first_stage import Query
from patientdx.tasks.item_files import SPLIT_WORDS, rows

_FORM = (
    "A collection is a folder with corpus.jsonl (_id, text, perhaps title), queries.jsonl (_id, text, perhaps subject) "
    "and qrels: qrels/<split>.tsv or qrels.tsv (query-id, corpus-id, score) or TREC's four columns."
)
_HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Collection:
    """Documents by id, the queries that are judged, and sha256 by file."""

    documents: dict[str, str]
    queries: list[Query]
    files: dict[str, str]


def read_collection(folder: Path, fractions: Mapping[str, float] | None, seed: int, secret: bytes) -> Collection:
    """The files of the folder. The split of a query is that of its qrels file, or drawn by its subject, keyed
    with `secret`.

    Raises UserError for a file that is missing, a line that cannot be read, an id that occurs twice, a judgement of a
    query or document that is not there, and a query without any relevant document. Messages name file and line, and no
    id, which may be a patient's.
    """
    if not folder.is_dir():
        raise UserError(f"task.path={folder} is no folder; nothing is downloaded. {_FORM}")
    documents: dict[str, str] = {}
    for location, uid, row in _texts(folder, "corpus.jsonl"):
        title, text = str(row.get("title") or "").strip(), str(row["text"]).strip()
        if not title and not text:
            raise UserError(f"{location}: the document is empty.")
        documents[uid] = f"{title}\n{text}".strip()
    query_texts: dict[str, tuple[str, str]] = {}
    for location, uid, row in _texts(folder, "queries.jsonl"):
        if not str(row["text"]).strip():
            raise UserError(f"{location}: the query is empty.")
        query_texts[uid] = str(row["text"]).strip(), str(row.get("subject") or uid)
    files, queries, held = _qrels_files(folder), [], {}
    for file, split in files:
        judged = _judged(file, file.relative_to(folder).as_posix(), documents, query_texts)
        for uid, grades in judged.items():
            if uid in held:
                raise UserError(f"{file.relative_to(folder).as_posix()} judges a query that {held[uid]} judges too.")
            held[uid] = file.relative_to(folder).as_posix()
            text, subject = query_texts[uid]
            part = split if fractions is None else split_of(subject, seed=seed, fractions=fractions, secret=secret)
            queries.append(Query(uid, subject, part, "query", "", text, grades))
    read = [folder / "corpus.jsonl", folder / "queries.jsonl", *(file for file, _ in files)]
    return Collection(documents, queries, {file.relative_to(folder).as_posix(): sha256(file) for file in read})


def _texts(folder: Path, name: str) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """(place, id, row) of each line of a file of texts."""
    file, known = folder / name, {}
    if not is_regular(file):
        raise UserError(f"task.path={folder} has no {name}. {_FORM}")
    for location, row in rows(file, name):
        uid = row.get("_id", row.get("id"))
        lacking = [column for column, value in (("_id", uid), ("text", row.get("text"))) if value is None]
        if lacking:
            raise UserError(
                f"{location} has no {' and no '.join(lacking)}. Its columns are {', '.join(row) or 'none'}."
            )
        if str(uid) in known:
            raise UserError(f"{location}: the _id is that of {known[str(uid)]} too.")
        known[str(uid)] = location
        yield location, str(uid), row
    if not known:
        raise UserError(f"{name} in task.path={folder} is empty. {_FORM}")


def _qrels_files(folder: Path) -> list[tuple[Path, str]]:
    """Each file of judgements with its split; one that names none is the test split."""
    paths = sorted((*folder.glob("qrels/*"), *folder.glob("qrels*")))
    judgements = [file for file in paths if not file.is_dir() and is_regular(file)]
    if not judgements:
        raise UserError(f"task.path={folder} has no qrels. {_FORM}")
    splits = [next((SPLIT_WORDS[word] for word in _words(file) if word in SPLIT_WORDS), "test") for file in judgements]
    return list(zip(judgements, splits, strict=True))


def _words(file: Path) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in file.stem.lower()).split()


def _judged(file: Path, name: str, documents: Mapping, query_texts: Mapping) -> dict[str, dict[str, int]]:
    """Grades above 0 by query and document. A query whose every judgement is 0 is refused."""
    judgements: dict[str, dict[str, int]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(file, name), 1):
        location, parts = f"{name} line {number}", line.split()
        if not parts or (number == 1 and parts[-1].lower() == _HEADER[-1]):
            continue
        if len(parts) not in (3, 4):
            raise UserError(
                f"{location} has {len(parts)} columns. There are three ({', '.join(_HEADER)}), or TREC's four with a 0 "
                "in the second."
            )
        query, document, grade = parts[0], parts[-2], parts[-1]
        if not re.fullmatch(r"-?[0-9]{1,9}", grade):
            raise UserError(f"{location}: the grade is no whole number.")
        if query not in query_texts:
            raise UserError(f"{location} judges a query that is not in queries.jsonl.")
        if document not in documents:
            raise UserError(f"{location} judges a document that is not in corpus.jsonl.")
        grades = judgements.setdefault(query, {})
        if document in grades:
            raise UserError(f"{location} judges a document a second time for the same query.")
        grades[document] = max(int(grade), 0)
        lines.setdefault(query, number)
    if not judgements:
        raise UserError(f"{name} judges nothing. {_FORM}")
    for query, grades in judgements.items():
        if not any(grades.values()):
            raise UserError(
                f"{name} line {lines[query]}: this query has no relevant document, so no order of its candidates is "
                "better than another. Leave its judgements out."
            )
    return {query: {uid: grade for uid, grade in grades.items() if grade} for query, grades in judgements.items()}


def _lines(file: Path, name: str) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            yield from opened
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error.reason}. Convert it first.") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None
