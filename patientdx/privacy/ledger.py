"""The account of ε: one line for every private draw, in a file that is only appended to.

The file is `PATIENTDX_LEDGER`, or ~/.local/share/patientdx/privacy_ledger.jsonl: outside the cache, so that deleting
the draws that are remembered there takes nothing off the account. A line stands before its draw is made, so that an
interrupted command can count a draw too many and never one too few.

Two draws are from the same patients where their hospitals have the same declared name, or the same tables. Draws on
another machine, with another ledger, or from other tables under another name are not known here. The ledger is no
release: that it has one draw more tells that tables were changed between two commands.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

from patientdx.core.atomic_io import sync_handle
from patientdx.core.disk import disk_error
from patientdx.core.errors import UserError
from patientdx.core.locks import locked
from patientdx.core.paths import expanded
from patientdx.core.regular_files import is_regular

PLACE = "PATIENTDX_LEDGER"  # the environment variable
_DEFAULT = "~/.local/share/patientdx/privacy_ledger.jsonl"


@dataclass(frozen=True)
class Draw:
    """One line. entry: 16 random hex digits, which name the draw and tell nothing of the patients.

    hospital: its declared name, or None. tables: hash of its table of stays. guaranteed: not drawn from a known seed.
    """

    hospital: str | None
    tables: str
    epsilon: float
    guaranteed: bool
    entry: str = ""

    def shares_patients(self, other: Draw) -> bool:
        """Whether both are from one hospital, as far as names and tables show."""
        return self.tables == other.tables or (self.hospital is not None and self.hospital == other.hospital)


@dataclass(frozen=True)
class Account:
    """What all draws from one hospital add up to (composition); those from a known seed promise nothing."""

    epsilon_spent: float
    draws: int
    draws_by_seed: int


def ledger_file() -> Path:
    """Where the ledger is, or will be."""
    return expanded(os.environ.get(PLACE, _DEFAULT))


@contextmanager
def ledger_locked() -> Iterator[None]:
    """Meanwhile no other process draws. UserError on a disk without locks."""
    file = ledger_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unusable(file, error) from error
    with locked(file.with_name(f".{file.name}.lock"), required=True):
        yield


def draws() -> list[Draw]:
    """Every line, in order. UserError where one cannot be read: an account is not guessed."""
    file = ledger_file()
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if is_regular(file) else []
    except OSError as error:
        raise _unusable(file, error) from error
    try:
        return [Draw(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file}, the account of ε, has a line that cannot be read. Restore it from a backup: without it nobody "
            "knows what was spent."
        ) from error


def account(draw: Draw) -> Account:
    """What the draws from the hospital of `draw` add up to."""
    same = {other.entry: other for other in draws() if other.shares_patients(draw)}.values()
    spent = sum((Fraction(str(other.epsilon)) for other in same if other.guaranteed), Fraction())
    counted = sum(other.guaranteed for other in same)
    return Account(float(spent), counted, len(same) - counted)


def account_of_entry(entry: str) -> Account | None:
    """The same for the draw of an entry, under every hospital it was made for; None where the ledger lacks it."""
    accounts = [account(draw) for draw in draws() if draw.entry == entry]
    return max(accounts, key=lambda each: each.epsilon_spent, default=None)


def check_budget(draw: Draw, budget: float | None) -> None:
    """UserError where a further draw would exceed the budget."""
    spent = Fraction(str(account(draw).epsilon_spent))
    if budget is not None and draw.guaranteed and spent + Fraction(str(draw.epsilon)) > Fraction(str(budget)):
        raise UserError(
            f"search.budget_epsilon={budget:g}: draws from this hospital have spent ε={float(spent):g}, and one more "
            f"of ε={draw.epsilon:g} would exceed it. Use the λ that was drawn before, give a smaller search.epsilon, "
            "or raise the budget."
        )


def append(draw: Draw, entry: str | None = None) -> str:
    """Write the line of a draw that is about to be made, or of an `entry` that was made before; returns the entry.

    Call it within `ledger_locked`.
    """
    line = replace(draw, entry=entry or secrets.token_hex(8))
    if line in draws():
        return line.entry
    file = ledger_file()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps(asdict(line)) + "\n").encode())
            sync_handle(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise _unusable(file, error) from error
    return line.entry


def _unusable(file: Path, error: OSError) -> UserError:
    return disk_error(error, file, f"Set {PLACE} to a file that you can write.") or UserError(
        f"{file}, the account of ε, cannot be used: {error.strerror}. Set {PLACE} to a file that you can write."
    )
