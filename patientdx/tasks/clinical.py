"""Clinical tasks: from a cohort to yes/no questions about the first hours of an ICU stay."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import cohort, groups, splits, templates, window
from patientdx.records.clinical_window import CLOCKS
from patientdx.records.parameters import check_choice, check_numbers
from patientdx.records.source import Source, SourceConfig, opened_source
from patientdx.tasks.clinical_records import read_records
from patientdx.tasks.elsewhere import elsewhere, with_elsewhere
from patientdx.tasks.example import Example, PromptVariant, TaskData, fingerprint
from patientdx.tasks.outcomes import OUTCOMES, ClinicalOutcome

OPTIONS = (
    ("Yes", "yes", "YES", " Yes", " yes", " YES"),
    ("No", "no", "NO", " No", " no", " NO"),
)
# The value of every switch that the user leaves null. `paper` is how PatientDx's data was made, with its flaws.
PRESETS: dict[str | None, dict[str, str]] = {
    None: {
        "death": "deathtime", "age": "admission", "stays": "all", "stepdown": "exclude", "diagnoses": "none",
        "split_by": "patient", "outliers": "range", "clock": "charttime", "template": "brief/2",
    },
    "paper": {
        "death": "dod", "age": "anchor", "stays": "all", "stepdown": "keep", "diagnoses": "discharge",
        "split_by": "stay", "outliers": "pipeline", "clock": "charttime", "template": "paper",
    },
}  # fmt: skip
log = logging.getLogger(__name__)

OUTLIERS = ("range", "train", "cohort", "pipeline")


@dataclass(frozen=True, kw_only=True)
class ClinicalTask(SourceConfig):
    """The keys of every clinical task, as conf/task/_clinical.yaml explains them.

    `days` to `predict_at` belong to single outcomes; None takes the outcome's default.
    """

    outcome: str
    window_hours: int
    gap_hours: int
    seed: int = 0
    preset: str | None = None
    death: str | None = None
    age: str | None = None
    stays: str | None = None
    stepdown: str | None = None
    diagnoses: str | None = None
    split_by: str | None = None
    outliers: str | None = None
    clock: str | None = None
    template: str | None = None
    sections: Mapping[str, int | None] | None = None
    fractions: Mapping[str, float] | None = None
    limit: int | None = None
    question: str | None = None
    prompt_variants: Sequence[Mapping[str, Any]] | None = None
    days: int | None = None
    condition: str | None = None
    readmission: str | None = None
    planned: bool | None = None
    observation: bool | None = None
    excluded_discharges: Sequence[str] | None = None
    competing_death: str | None = None
    predict_at: str | None = None
    external: Mapping[str, Any] | None = None
    external_years: Sequence[str] | None = None

    def load(self) -> TaskData:
        """One example per stay of the cohort; label 1 where the outcome happened.

        With `external` also one per stay of another hospital, all in the split external. Raises UserError on
        parameters, files or a cohort that are not valid, before anything expensive where possible.
        """
        inside = self._load()
        return inside if self.external is None else with_elsewhere(inside, elsewhere(self)._load(is_elsewhere=True))

    def _load(self, *, is_elsewhere: bool = False) -> TaskData:
        """The examples of one hospital; is_elsewhere: all of them are in the split external."""
        entry, switches = _entry(self.outcome), self.switches()
        parameters = self._parameters(entry)
        hours = {"window_hours": self.window_hours, "gap_hours": self.gap_hours}
        outcome, words = entry.define(switches | hours | parameters)
        template = _template(switches["template"], self.sections, outcome.predict_at, switches["clock"])
        fractions = splits.checked_fractions(self.fractions)
        years = {} if self.external_years is None else {"hosp/patients": {"anchor_year_group": "VARCHAR"}}
        needed = window.needed(
            switches["diagnoses"], cohort.NEEDED, outcome.needed, years, revision=template.revision,
            clock=switches["clock"],
        )  # fmt: skip
        check_numbers(
            window_hours=(self.window_hours, 1), gap_hours=(self.gap_hours, 0), limit=(self.limit, 1),
            seed=(self.seed, 0),
        )  # fmt: skip
        question = filled(entry.question if self.question is None else self.question, words)
        variants = checked_variants(entry.variants if self.prompt_variants is None else self.prompt_variants, words)
        with opened_source(self, needed, None if template.every_item else window.items_read()) as source:
            group = cohort.select(
                source.con, outcome, **hours, death=switches["death"], age=switches["age"], stays=switches["stays"],
                stepdown=switches["stepdown"],
            )  # fmt: skip
            group, rows, is_drawn = self._divided(source, group, switches["split_by"], is_elsewhere=is_elsewhere)
            read = read_records(
                source.con, rows, template, switches, self.window_hours, comorbidities=not outcome.asks_codes
            )
            people = _people(source.con, rows)
        _check_readings(read.unread, rows, self.window_hours)
        examples = _examples(rows, read.texts, question)
        settings: dict[str, Any] = {
            "task": self.outcome, **switches, "template": template.id, "template_sha256": template.sha256,
            "sections": dict(template.sections), "seed": self.seed, **hours, "limit": self.limit, "question": question,
            "fractions": fractions if is_drawn else splits.OF_SOURCE, **parameters,
        }  # fmt: skip
        settings |= {} if self.external_years is None else {"external_years": list(self.external_years)}
        provenance = {"source": source.data_sources, "tables": source.files, "absent": source.absent}
        provenance |= {"sections_cut": read.cut, "stays_without_readings": len(read.unread)}
        return TaskData(
            name=self.outcome,
            kind="binary",
            examples=examples,
            open_data=source.open_data,
            fingerprint=fingerprint(examples, settings),
            provenance=provenance | {"settings": {"preset": self.preset, **settings}},
            cohort=group.attrition,
            readings=read.readings,
            prompt_variants=variants,
            features=read.features,
            severity=read.severity,
            groups=groups.groups(tuple(person) for _, *person in people),
            times=tuple(time for time, *_ in people),
        )

    def switches(self) -> dict[str, str]:
        """The value of every switch: the user's, or where that is None the preset's.

        Raises UserError on unknown values; `death`, `age`, `diagnoses` and `template` are checked where they are used.
        """
        if self.preset not in PRESETS:
            raise UserError(
                f"task.preset={self.preset!r}: it is null (safe settings) or paper (as PatientDx's data was made)."
            )
        preset = PRESETS[self.preset]
        if self.preset is None and self.outcome in OUTCOMES and self._predict_at() != "admission":
            preset = preset | {"template": "intervals"}  # the default text tells of the first hours alone
        switches = {
            name: value if getattr(self, name) is None else getattr(self, name) for name, value in preset.items()
        }
        check_choice("split_by", switches["split_by"], splits.UNITS)
        check_choice("outliers", switches["outliers"], OUTLIERS)
        check_choice("clock", switches["clock"], CLOCKS)
        check_choice("stays", switches["stays"], cohort.STAYS)
        check_choice("stepdown", switches["stepdown"], cohort.STEPDOWN)
        return switches

    def _divided(
        self, source: Source, group: cohort.Cohort, unit: str, *, is_elsewhere: bool
    ) -> tuple[cohort.Cohort, list[splits.Row], bool]:
        """The cohort and its stays with their splits, and whether these are drawn; UserError for splits that lack an
        outcome.
        """
        is_drawn = self.fractions is not None or unit != "patient" or is_elsewhere or source.splits is None
        of_patients = None if is_drawn else source.splits
        group = group.of_patients(of_patients)
        external = {subject for _, subject, _ in group.stays} if is_elsewhere else self._external_patients(source.con)
        rows = splits.divided(
            group.stays, by=unit, seed=self.seed, fractions=splits.checked_fractions(self.fractions),
            limit=self.limit, of_patients=of_patients, external=external, secret=source.secret,
        )  # fmt: skip
        # Before texts are written. A split on which λ is chosen is checked where it is used: a private search must end
        # the same way whoever is in it.
        scored = (*(() if is_elsewhere else ("test",)), *((splits.EXTERNAL,) if external else ()))
        splits.check_splits([(split, label) for _, _, label, split in rows], scored)
        return group, rows, is_drawn

    def _external_patients(self, con: duckdb.DuckDBPyConnection) -> set[int]:
        """The patients of `external_years`. UserError where there are none, or no others."""
        if self.external_years is None:
            return set()
        rows = con.execute("SELECT subject_id, trim(anchor_year_group) FROM patients").fetchall()
        present = sorted({str(years) for _, years in rows})
        chosen = {str(years) for years in self.external_years}
        if not chosen or chosen - set(present) or chosen == set(present):
            raise UserError(
                f"task.external_years={sorted(chosen)}: name one or more of the values of anchor_year_group in "
                f"patients, but not all: {', '.join(present)}."
            )
        return {subject for subject, years in rows if years in chosen}

    def _predict_at(self) -> str:
        return self.predict_at or OUTCOMES[self.outcome].parameters.get("predict_at", "admission")

    def _parameters(self, entry: ClinicalOutcome) -> dict[str, Any]:
        """The keys that only this outcome has, with their values."""
        of_others = {name for other in OUTCOMES.values() for name in other.parameters} - set(entry.parameters)
        for name in sorted(of_others):
            if getattr(self, name) is not None:
                raise UserError(f"task.{name}: task={self.outcome} has no such key. Leave it out.")
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in entry.parameters.items()
        }


def _entry(outcome: str) -> ClinicalOutcome:
    check_choice("outcome", outcome, OUTCOMES)
    return OUTCOMES[outcome]


def _template(name: str, sections: Mapping[str, int | None] | None, predict_at: str, clock: str) -> templates.Template:
    """The template of that name. UserError where records of revision 1, which it prints, cannot hold what is needed."""
    template = templates.template(name, sections=sections)
    if template.revision == 1:
        of_others = f"task.predict_at={predict_at}" if predict_at != "admission" else ""
        of_others = f"task.clock={clock}" if clock != "charttime" else of_others
        if of_others:
            raise UserError(
                f"{of_others}: task.template={template.id} tells of the first hours as they were charted. Set "
                f"task.template={template.name}, its newest version."
            )
    return template


def _examples(rows: Sequence[splits.Row], texts: Mapping[int, str], question: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            uid=str(stay), subject=str(subject), split=split, prefix="", context=texts[stay],
            suffix=f"\n\n{question}", options=OPTIONS, label=label,
        )
        for stay, subject, label, split in rows
    )  # fmt: skip


def _check_readings(unread: set[int], rows: Sequence[splits.Row], hours: int) -> None:
    """Say how many stays have no reading in the window; UserError where none has one."""
    outside = [stay for stay, _, _, split in rows if split != splits.WITHHELD]
    if unread.issuperset(outside):
        raise UserError(
            f"none of the {len(outside)} stays has a reading in its first {hours} h: chart events hold nothing of "
            "them, have other item ids than MIMIC-IV, or all values lie outside the plausible ranges of "
            "records/concepts. Check icu/chartevents, or set task.outliers=cohort, which judges by this hospital alone."
        )
    if unread:
        log.warning("%d of %d stays have no reading in the window of %d h", len(unread), len(rows), hours)


def _people(con: duckdb.DuckDBPyConnection, rows: Sequence[splits.Row]) -> list[tuple]:
    """(prediction time, age, gender, race, insurance) of each stay, in their order."""
    table = con.execute("SELECT stay_id, prediction_time, age, gender, race, insurance FROM cohort").fetchall()
    people = {stay: tuple(rest) for stay, *rest in table}
    return [people[stay] for stay, *_ in rows]


def filled(question: str, words: Mapping[str, Any]) -> str:
    """The question with every {name} of `words` filled in."""
    for name, word in words.items():
        question = question.replace(f"{{{name}}}", str(word))
    return question


def checked_variants(variants: Iterable[Mapping[str, Any]], words: Mapping[str, Any]) -> tuple[PromptVariant, ...]:
    """Prompt variants from their form in a yaml. Raises UserError on another form or a name that is used twice."""
    checked: list[PromptVariant] = []
    for number, variant in enumerate(variants):
        rest = dict(variant) if isinstance(variant, Mapping) else {}
        name, question, inverted = rest.pop("name", None), rest.pop("question", None), rest.pop("inverted", False)
        valid = isinstance(name, str) and isinstance(question, str) and isinstance(inverted, bool)
        if rest or not valid or name in {other.name for other in checked}:
            raise UserError(
                f"task.prompt_variants[{number}]={variant!r}: a prompt variant has a name of its own, a question and, "
                "where Yes then means that the outcome did not happen, inverted: true."
            )
        checked.append(PromptVariant(name, f"\n\n{filled(question, words)}", OPTIONS, inverted))
    return tuple(checked)
