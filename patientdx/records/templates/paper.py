"""Template `paper`: five blocks in the order of the paper's data, in our own words.

Person and diagnoses, charted means, drugs with mean amounts, procedures, outputs. Three decimals, no units, no times,
nothing left out.

Source: the text encoding of the data set behind PatientDx (arXiv 2504.17360), as far as it is public.
"""

from collections.abc import Sequence

from patientdx.records.templates.intervals import SEX
from patientdx.records.templates.sections import Section
from patientdx.records.window import Record


def person(record: Record, window_hours: int) -> Section:
    """Sex, age, race and insurance."""
    sex = SEX.get(record.gender or "")
    race, insurance = record.race or "unknown", record.insurance or "unknown"
    return Section(
        (f"A {sex + ' ' if sex else ''}patient, {record.age} years old, race {race}, insured by {insurance}",)
    )


def diagnoses(record: Record, window_hours: int) -> Section:
    """Titles of the codes, in the person's sentence where they follow it."""
    return Section(record.diagnoses, before="diagnosed with ", separator="; ")


def readings(record: Record, window_hours: int) -> Section:
    """Means over the window."""
    means = [f"{value:.3f} for {name}" for name, value in record.readings]
    return Section(means, before=f"Charted in {window_hours} hours, on average: ", separator="; ")


def drugs(record: Record, window_hours: int) -> Section:
    """Mean amounts of the doses that ended in the window."""
    amounts = [name if mean is None else f"{mean:.3f} of {name}" for name, mean in record.drugs]
    return Section(amounts, before="Drugs, mean amount: ", separator="; ")


def procedures(record: Record, window_hours: int) -> Section:
    """Names."""
    return Section(record.procedures, before="Procedures: ", separator="; ")


def outputs(record: Record, window_hours: int) -> Section:
    """Names."""
    return Section(record.outputs, before="Outputs: ", separator="; ")


def join(texts: Sequence[tuple[str, str]]) -> str:
    """One paragraph; diagnoses right after the person go on with the person's sentence."""
    blocks: list[str] = []
    previous = None
    for name, text in texts:
        if name == "diagnoses" and previous == "person":
            blocks[-1] += ", " + text
        else:
            blocks.append(text[0].upper() + text[1:])
        previous = name
    return " ".join(block + "." for block in blocks)
