"""What the sections of a configuration have in common: where a value is in the Hydra config, and calls in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, ClassVar, cast, get_args

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from patientdx.core.functions import Call, checked
from patientdx.core.validation import ConfigErrors

MERGED = "merged"  # the model that is none of conf/model's tabular ones


class Loop(IntEnum):
    """How the loops of a sweep are nested, outermost first.

    To load a model costs most, then to compute a curve, then to fill the model with a point of it. Of λ and task λ is
    the outer one: a model that is filled then answers every task, and the texts and tokens of a task are kept.
    """

    LOAD = 1
    OTHER = 2
    CURVE = 3
    WEIGHT = 4
    TASK = 5
    SCORES = 6


class Section(BaseModel):
    """A part of the configuration, immutable. It is validated from the whole Hydra config, of which it takes its keys.

    The validation context holds `plain` (the whole config) and `sweep` (whether the run is one of several).
    """

    model_config = ConfigDict(frozen=True)

    loop: ClassVar[Loop] = Loop.OTHER  # of the keys that declare none

    @classmethod
    def is_absent(cls, plain: Mapping[str, Any]) -> bool:
        """Whether the config asks for none of it, as with ``finetune=none``; the section is None then."""
        return False

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """The fields that are sections themselves."""
        types = {name: (field.annotation, *get_args(field.annotation)) for name, field in cls.model_fields.items()}
        return {
            name: option
            for name, options in types.items()
            for option in options
            if isinstance(option, type) and issubclass(option, Section)
        }

    @classmethod
    def key_fields(cls) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
        """Path in the Hydra config and field, of all values of this section and of those in it."""
        for section in cls.sections().values():
            yield from section.key_fields()
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasPath):
                yield tuple(map(str, field.validation_alias.path)), field

    @classmethod
    def loops(cls) -> dict[str, Loop]:
        """Where a sweep over each key is nested."""
        loops = {}
        for section in cls.sections().values():
            loops |= section.loops()
        for field in cls.model_fields.values():
            if isinstance(field.validation_alias, AliasPath):
                loops[str(field.validation_alias.path[0])] = _extra(field)["loop"] or cls.loop
        return loops

    @classmethod
    def key_of(cls, location: Sequence[str | int]) -> str:
        """The key in the Hydra config of pydantic's location, which begins with names of sections."""
        section = cls.sections().get(str(location[0])) if location else None
        return ".".join(map(str, location)) if section is None else section.key_of(location[1:])

    @model_validator(mode="before")
    @classmethod
    def _pass_on(cls, plain: Any) -> Any:
        """Sections take their values from the whole config too."""
        if not isinstance(plain, Mapping):
            return plain
        sections = {
            name: None if section.is_absent(plain) else plain
            for name, section in cls.sections().items()
            if not isinstance(plain.get(name), Section)
        }
        return {**plain, **sections}


def key(*path: str, loop: Loop | None = None, language_model: bool = False, **options: Any) -> Any:
    """A field whose value is at `path` in the Hydra config.

    loop: where a sweep over the key is nested; None: as the section says. language_model: only runs with a language
    model depend on the key, and the others leave it out of their record.
    """
    extra: dict[str, Any] = {"loop": loop, "language_model": language_model}
    return Field(validation_alias=AliasPath(*path), json_schema_extra=extra, **options)


def model_key(*path: str, loop: Loop | None = None, **options: Any) -> Any:
    """A key that only runs with a language model depend on."""
    return key(*path, loop=loop, language_model=True, **options)


def of_language_model(field: FieldInfo) -> bool:
    """Whether only runs with a language model depend on a field."""
    return _extra(field)["language_model"]


def _extra(field: FieldInfo) -> dict[str, Any]:
    return cast(dict[str, Any], field.json_schema_extra)


def as_call(*beside: str, supplied: tuple[str, ...] = ()) -> BeforeValidator:
    """A group's node as a call, its arguments checked.

    beside: keys of the group that are no arguments. supplied: parameters that the pipeline gives.
    """

    def validate(node: Any) -> Call:
        return node if isinstance(node, Call) else to_call(node, beside, supplied)

    return BeforeValidator(validate)


def to_call(node: Any, beside: tuple[str, ...], supplied: tuple[str, ...], where: str = "") -> Call:
    """The call that a node names. Raises ConfigErrors; where: its key, as far as the validator does not add it."""
    errors: list[str] = []
    arguments = {name: value for name, value in dict(node).items() if name not in beside}
    result = checked(arguments, where, supplied, errors)
    if errors:
        raise ConfigErrors(errors)
    return result


def group_name(plain: Mapping[str, Any], group: str) -> Any:
    """The choice of a group, as in ``task=mortality``; None where it is missing."""
    node = plain.get(group)
    return node.get("name") if isinstance(node, Mapping) else None
