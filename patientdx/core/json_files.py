"""JSON files of others: read, or refused with the file and the cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular


def read_object(file: Path, remedy: str = "Download or write it again.") -> dict[str, Any]:
    """The JSON object in a file. UserError where it cannot be read or holds anything else; remedy: what helps."""
    is_regular(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}). {remedy}") from error
    except (ValueError, RecursionError) as error:
        cause = "its brackets are nested too deep" if isinstance(error, RecursionError) else error
        raise UserError(f"{file} is not valid JSON ({cause}). {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object. {remedy}")
    return content
