"""The check of all points of a sweep, or of a single run, before a launcher starts a process for any of them.

    patientdx preflight <the words of a run or a sweep>       # the check alone: nothing is scored or sent

A point that would be refused is named. Where every point would be, nothing is started.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from omegaconf import DictConfig
from rich.console import Console

from patientdx.cli import sweep_points
from patientdx.cli.compose import with_recipe
from patientdx.cli.user_errors import user_error
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import parse


def check(config: DictConfig, points: Sequence[Sequence[str]], *, sweep: bool) -> None:
    """Look at what each point needs, once where several need the same, and print it.

    config: Hydra's, of the sweep or the run. UserError, with one message, where no point would run.
    """
    from patientdx.evaluation.preflight import needs, preflight
    from patientdx.evaluation.session import Session

    console, session = Console(soft_wrap=True, highlight=False, markup=False), Session()
    refused: dict[str, list[int]] = {}
    outcomes: dict[Hashable, str | None] = {}
    for number, words in enumerate(points):
        try:
            composed = sweep_points.compose(config, words) if sweep else config
            parsed = parse(with_recipe(sweep_points.without_hydra(composed)), sweep=sweep, overrides=words)
            need = needs(parsed)
            if need in outcomes:
                _again(outcomes[need])
                continue
            outcomes[need] = None
            try:
                seen = preflight(session, parsed)
            except UserError as error:
                outcomes[need] = str(error)
                raise
            console.print("\n".join(f"{subject:<8}{text}" for subject, text in seen.items()))
        except Exception as error:
            mended = user_error(error)
            if mended is None:
                raise
            refused.setdefault(str(mended), []).append(number)
    lines = [_refusal(message, numbers, points) for message, numbers in refused.items()]
    if refused and sum(map(len, refused.values())) == len(points):
        raise UserError("\n".join(lines if len(points) > 1 else refused))
    for line in lines:
        console.print(line)
    console.print(f"checked: {len(points) - sum(map(len, refused.values()))} of {len(points)} can run")


def _again(message: str | None) -> None:
    if message is not None:
        raise UserError(message)


def _refusal(message: str, numbers: Sequence[int], points: Sequence[Sequence[str]]) -> str:
    """The message with the points that it is of."""
    if len(numbers) == len(points):
        return message
    common = set.intersection(*(set(words) for words in points))
    first = " ".join(word for word in points[numbers[0]] if word not in common)
    more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
    return f"run {numbers[0]} ({first}){more} will be refused: {message}"
