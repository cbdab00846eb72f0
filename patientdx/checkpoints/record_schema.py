"""What provenance.json of a merged folder must hold: whoever wrote it, it is checked before anything in it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from patientdx.merge.schedule import schedule


class _Plain(BaseModel):
    """A part of provenance.json: these keys, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _RecordedModel(_Plain):
    role: str
    name: str
    sha256: str
    source: str | None = None
    revision: str | None = None
    adapter: str | None = None
    gguf: str | None = None
    licence: str | None = None
    ancestor: str | None = None


class _RecordedShard(_Plain):
    bytes: int
    sha256: str


class _RecordedTensor(_Plain):
    weight: Any = Field(alias="lambda")
    sha256: str
    diagnostics: dict[str, Any] = Field(alias="facts")


class _Record(_Plain):
    format: Literal[1]
    method: str
    arguments: dict[str, Any]
    weight: Any = Field(alias="lambda")
    seed: int
    dtype: str | None
    tokenizer: str | None
    config_from: Literal[0, 1] | None = None
    models: list[_RecordedModel] = Field(min_length=2)
    versions: dict[str, str]
    code: str
    shards: dict[str, _RecordedShard] = Field(min_length=1)
    files: dict[str, str]
    tensors: dict[str, _RecordedTensor]

    @field_validator("weight")
    @classmethod
    def _is_schedule(cls, value: Any) -> Any:
        if value is not None:
            schedule(value)
        return value


def fault(content: Mapping[str, Any]) -> str | None:
    """The first key that is absent, unknown or of another type, and what it should be; None where all fit."""
    try:
        _Record.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
