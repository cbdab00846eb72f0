"""Task `mortality`: from the first hours of an ICU stay, will the patient die in the ICU?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from patientdx.refusal import Refusal
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.records import cohort, split, tables, text, window
from patientdx.tasks.records.synthetic import hospital

QUESTION = "Did this patient die in the intensive care unit? Answer Yes or No."
OPTIONS = (
    ("Yes", "yes", "YES", " Yes", " yes", " YES"),
    ("No", "no", "NO", " No", " no", " NO"),
)
FRACTIONS = MappingProxyType({"train": 0.3, "pilot": 0.3, "test": 0.4})
SYNTHETIC = MappingProxyType({"stays": 240, "seed": 0})


def load(
    *,
    cache: Path,
    seed: int = 0,
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, int] = SYNTHETIC,
    window_hours: int = 48,
    gap_hours: int = 6,
    death: str = "deathtime",
    diagnoses: str = "none",
    template: str = "intervals",
    fractions: Mapping[str, float] = FRACTIONS,
    limit: int | None = None,
    memory_limit: str = "2GB",
    threads: int | None = None,
    question: str = QUESTION,
) -> TaskData:
    """Adult ICU stays of at least window + gap hours as yes/no questions; label 1 is death in the ICU.

    `mimic_root` is a folder, or several of which the first that has a table wins, with hosp/ and icu/ in
    MIMIC-IV's layout; None takes the synthetic hospital, generated in `cache` on first use. `seed` draws the
    split by patient. `limit` keeps so many stays of each split, always the same ones. `memory_limit` and
    `threads` (None: all cores) bound DuckDB. Raises Refusal on any parameter, file or cohort that will not
    do, before anything expensive where that can be known.
    """
    written = text.template(template)
    shares = split.checked_fractions(fractions)
    needed = dict(cohort.NEEDED) | window.needed(diagnoses)
    _check_numbers(window_hours=window_hours, gap_hours=gap_hours, limit=limit, seed=seed)
    found = tables.find(_roots(Path(cache), mimic_root, synthetic), needed)
    facts = tables.provenance(found)
    origins = sorted({fact["origin"] for fact in facts.values()})
    if mimic_root is None and origins != [tables.SYNTHETIC]:
        folder = next(iter(found.values())).root
        raise Refusal(f"The synthetic hospital in {folder} was changed since it was made. Delete that folder.")
    with tables.opened(found, needed, memory_limit=memory_limit, threads=threads, spill=Path(cache) / "spill") as con:
        chosen = cohort.mortality(con, window_hours=window_hours, gap_hours=gap_hours, death=death)
        records = window.records(con, diagnoses=diagnoses, every_item=written.every_item)
    stays = _divided(chosen.stays, seed=seed, fractions=shares, limit=limit)
    split.check_splits([(part, label) for _, _, label, part in stays])
    texts = {stay: written.write(records[stay], window_hours) for stay, *_ in stays}
    examples = tuple(_example(*row, record=texts[row[0]], question=question) for row in stays)
    settings: dict[str, Any] = {
        "task": "mortality", "template": written.id, "template_sha256": written.sha256, "seed": seed,
        "window_hours": window_hours, "gap_hours": gap_hours, "death": death, "diagnoses": diagnoses,
        "fractions": shares, "limit": limit, "question": question,
    }  # fmt: skip
    return TaskData(
        name="mortality",
        kind="choice",
        examples=examples,
        open_data=tables.is_open(facts),
        fingerprint=fingerprint(examples, settings),
        provenance={"source": origins, "tables": facts, "settings": settings},
        cohort=chosen.attrition,
    )


def _example(stay: int, subject: int, label: int, part: str, *, record: str, question: str) -> Example:
    return Example(
        uid=str(stay),
        subject=str(subject),
        split=part,
        before="",
        record=record,
        after=f"\n\n{question}",
        options=OPTIONS,
        label=label,
    )


def _check_numbers(*, window_hours: int, gap_hours: int, limit: int | None, seed: int) -> None:
    least = {"window_hours": (window_hours, 1), "gap_hours": (gap_hours, 0), "seed": (seed, 0)}
    if limit is not None:
        least["limit"] = (limit, 1)
    for name, (value, low) in least.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            key = name if name == "seed" else f"task.{name}"
            raise Refusal(f"{key}={value!r}: a whole number of {low} or more is needed.")


def _roots(cache: Path, mimic_root: Sequence[str] | str | None, wanted: Mapping[str, int]) -> list[Path]:
    if mimic_root is None:
        unknown = sorted(set(wanted) - set(SYNTHETIC))
        if unknown:
            raise Refusal(f"task.synthetic has no {', '.join(unknown)}: it takes {', '.join(SYNTHETIC)}.")
        return [hospital(cache, **(dict(SYNTHETIC) | dict(wanted)))]
    roots = [mimic_root] if isinstance(mimic_root, str | Path) else list(mimic_root)
    if not roots:
        raise Refusal("task.mimic_root=[]: name at least one folder, or null for the synthetic hospital.")
    return [Path(root).expanduser() for root in roots]


def _divided(
    stays: Sequence[tuple[int, int, int]], *, seed: int, fractions: Mapping[str, float], limit: int | None
) -> list[tuple[int, int, int, str]]:
    """(stay, subject, label, split), split after split; inside one, in an order fixed by stay and seed."""
    order = sorted(stays, key=lambda row: split.position("order", seed, row[0]))
    parts = {name: [] for name in split.SPLITS}
    for stay, subject, label in order:
        parts[split.split_of(subject, seed=seed, fractions=fractions)].append((stay, subject, label))
    return [(*row, name) for name, rows in parts.items() for row in rows[:limit]]
