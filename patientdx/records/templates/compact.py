"""Template `compact`: one line of abbreviations and means, H and L where a value is above or below its interval."""

from collections.abc import Iterable, Sequence

from patientdx.records import concepts
from patientdx.records.templates.narrative import MOST_DIAGNOSES, flag
from patientdx.records.templates.sections import Section
from patientdx.records.window import Record


def person(record: Record, window_hours: int) -> Section:
    """Age and sex, as 67M."""
    return Section((f"{record.age}{record.gender if record.gender in ('M', 'F') else ''}",))


def readings(record: Record, window_hours: int) -> Section:
    """Means over the window, in the units of items.csv, which are not printed."""
    texts = []
    for name, value in record.readings:
        item = concepts.readings()[name]
        printed = f"{value:.{item.decimals}f}"
        texts.append(f"{concepts.abbreviations()[name]} {printed}{flag(item, printed, ('L', 'H'))}")
    return Section(texts, before=f"{window_hours}h ", separator=" ")


def drugs(record: Record, window_hours: int) -> Section:
    """Short names, the most often given first."""
    return Section(_short(name for name, _ in record.drugs), before="Rx ", separator=", ")


def procedures(record: Record, window_hours: int) -> Section:
    """Short names."""
    return Section(_short(record.procedures), before="Px ", separator=", ")


def _short(names: Iterable[str]) -> list[str]:
    return [concepts.abbreviations().get(name, name) for name in names]


def outputs(record: Record, window_hours: int) -> Section:
    """Urine over the window in mL."""
    return Section(() if record.urine is None else (f"UO {max(record.urine, 0):.0f}",))


def diagnoses(record: Record, window_hours: int) -> Section:
    """Shortened titles of the codes, each once."""
    titles = dict.fromkeys(concepts.cleaned("title", title) for title in record.diagnoses)
    return Section(tuple(titles), before="Dx ", separator="; ", most=MOST_DIAGNOSES)


def join(texts: Sequence[tuple[str, str]]) -> str:
    """One line."""
    return " | ".join(text for _, text in texts)
