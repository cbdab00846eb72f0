"""The parameters of a mergekit recipe: scopes, filters and gradients resolved to one number each, or to λ's course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Weight = float | list[float] | dict[str, float | list[float]]  # λ as `merge.schedule.schedule` takes it

# Tensors outside the layers: parts of their names, and whether mergekit counts them to the first slice or the last.
_OUTSIDE = (("embed_tokens", "model.embed_tokens.weight", 0), ("model.norm", "model.norm.weight", -1))
_OUTSIDE += (("lm_head", "lm_head.weight", -1),)


@dataclass(frozen=True)
class Slice:
    """Layers `layers` (first, one past the last; None: all) of every model; sources: parameters by model."""

    sources: dict[str, dict[str, Any]]
    layers: tuple[int, int] | None
    parameters: dict[str, Any]


@dataclass(frozen=True)
class _Course:
    """A number over the depth of a slice: the sum of gradients `over`, divided by the sum of `under` if there is one.

    A gradient's values stand at equal distances from depth 0 to depth 1, with straight lines between.
    """

    over: tuple[tuple[float, ...], ...]
    under: tuple[tuple[float, ...], ...] = ()

    def at(self, depth: float) -> float:
        """Its value; ZeroDivisionError where the divisor is 0."""
        return sum(_between(values, depth) for values in self.over) / self.divisor(depth)

    def divisor(self, depth: float) -> float:
        """The sum of `under`, 1 without."""
        return sum(_between(values, depth) for values in self.under) if self.under else 1.0

    def corners(self) -> list[float]:
        """The depths at which one of its gradients may bend."""
        lengths = {len(values) for values in (*self.over, *self.under)}
        return sorted({i / max(1, length - 1) for length in lengths for i in range(length)})

    def gradient(self) -> list[float] | None:
        """It as one gradient; None where it is none, as the divisor changes or gradients bend in different places."""
        lengths = {len(values) for values in (*self.over, *self.under)} - {1}
        divisors = [self.divisor(corner) for corner in self.corners()]
        if len(lengths) > 1 or max(divisors) - min(divisors) > 1e-12 * max(map(abs, divisors)):
            return None
        return [self.at(corner) for corner in self.corners()]


Courses = list[tuple[str, _Course]]  # by filter; the first that is part of a tensor's name decides


class Numbers:
    """The parameters of a recipe, as a method reads them.

    Scopes as in mergekit: the model's, its slice's, the recipe's; in each the first filter that matches decides, and
    the next scope where none does. What cannot be resolved goes to `errors`, what mergekit ignores to `notes`.
    layers: of the models, where slices count them.
    """

    def __init__(
        self, slices: Sequence[Slice], parameters: dict[str, Any], base: str | None, errors: list[str], notes: list[str]
    ) -> None:
        self.slices, self.parameters, self.base, self.errors, self.notes = slices, parameters, base, errors, notes
        self.layers = slices[-1].layers[1] if slices and slices[-1].layers else None
        self._read: set[tuple[str, str | None]] = set()

    def constant(self, name: str, default: Any) -> Any:
        """A parameter of the method that must be one number, or yes or no, for all tensors."""
        self._read.add((name, None))
        return self._single(name, None, default)

    def of_each(self, name: str, models: Sequence[str], default: float | None) -> list[float]:
        """A parameter of each model, one number for all tensors; without a default it must be given."""
        self._read.update((name, model) for model in models)
        return [self._single(name, model, default) for model in models]

    def of_all(self, name: str, models: Sequence[str], default: float) -> float:
        """A parameter of each model that must be the same in all."""
        values = self.of_each(name, models, default)
        if len(set(values)) > 1:
            self._add_error(
                f"parameters.{name}: it is {', '.join(map(str, values))}, and here one number serves all models."
            )
        return values[0] if values else default

    def course(self, name: str, default: float | None = None) -> Weight | None:
        """A parameter of the method that becomes λ, and so may change with depth and tensor."""
        self._read.add((name, None))
        by_slice = []
        for part in self.slices:
            courses = [(key, _Course((values,))) for key, values in self._gradients(name, None, part, default)]
            if not courses:
                self._add_error(f"parameters.{name} is missing.")
                return None
            by_slice.append(courses)
        return self._weight(name, by_slice)

    def share(self, first: str, second: str, *, normalized: bool = True, switch: str = "normalize") -> Weight | None:
        """λ of two models by their weights: the second's share of the sum, which may change with depth and tensor."""
        self._read.update({("weight", first), ("weight", second)})
        by_slice = []
        for part in self.slices:
            sides = [self._gradients("weight", model, part, None) for model in (first, second)]
            for model, side in zip((first, second), sides, strict=True):
                if not side:
                    self._add_error(f"parameters.weight is missing for {model}.")
            if not all(sides):
                return None
            keys = _common_filters([[key for key, _ in side] for side in sides])
            if keys is None:
                self._add_error("parameters.weight: the two models have different filters; give both the same.")
                return None
            by_filter = [dict(side) for side in sides]
            pairs = [(key, *(side[key] if key in side else side["*"] for side in by_filter)) for key in keys]
            by_slice.append([(key, _Course((mine,), (other, mine))) for key, other, mine in pairs])
        divisors = [
            course.divisor(corner) for courses in by_slice for _, course in courses for corner in course.corners()
        ]
        if not normalized and any(abs(divisor - 1.0) > 1e-9 for divisor in divisors):
            self._add_error(f"parameters.{switch}: weights always count as shares of their sum here; set it to true.")
        return self._weight("weight", by_slice)

    def note_unused(self, method: str) -> None:
        """Note the parameters in the recipe that the method does not read."""
        names = {name for name, _ in self._read}
        scopes = [("parameters", self.parameters, names)]
        for part in self.slices:
            scopes.append(("slices.parameters", part.parameters, names))
            for model, parameters in part.sources.items():
                scopes.append((model, parameters, {name for name, reader in self._read if reader == model}))
        for where, keys, used in scopes:
            for name in keys:
                note = f"{where}: mergekit's {method} passes over {name}"
                if name not in used and note not in self.notes:
                    self.notes.append(note)

    def _single(self, name: str, model: str | None, default: Any) -> Any:
        """The only value over all slices and tensors; the default after a fault."""
        values = []
        for part in self.slices:
            pairs = self._settings(name, model, part)
            values += [item for _, value in pairs for item in (value if isinstance(value, list) else [value])]
            if not pairs or pairs[-1][0] != "*":
                values.append(default)
        typed = [
            item if isinstance(default, bool) and isinstance(item, bool) else self._number(name, item)
            for item in values
        ]
        if None in values and default is None:
            self._add_error(f"parameters.{name} is missing for {model}.")
        elif len(set(typed)) > 1:
            self._add_error(
                f"parameters.{name}: it changes with depth, tensor or slice, and here only λ can; give one number."
            )
        elif typed and typed[0] is not None:
            return typed[0]
        return 1.0 if default is None else default

    def _gradients(
        self, name: str, model: str | None, part: Slice, default: float | None
    ) -> list[tuple[str, tuple[float, ...]]]:
        """(filter, gradient) in the order in which they decide."""
        pairs = self._settings(name, model, part)
        if default is not None and (not pairs or pairs[-1][0] != "*"):
            pairs.append(("*", default))
        values = []
        for key, value in pairs:
            numbers = [self._number(name, item) for item in (value if isinstance(value, list) else [value])]
            values.append((key, tuple(0.0 if number is None else float(number) for number in numbers)))
        return values

    def _settings(self, name: str, model: str | None, part: Slice) -> list[tuple[str, Any]]:
        """(filter, value) from the nearest scope to the farthest, up to the first without a filter."""
        values: list[tuple[str, Any]] = []
        for scope in (part.sources.get(model, {}) if model else {}, part.parameters, self.parameters):
            value = scope.get(name)
            for item in value if isinstance(value, list) and any(isinstance(v, dict) for v in value) else [value]:
                key = str(item.get("filter") or "*") if isinstance(item, dict) else "*"
                content = item.get("value") if isinstance(item, dict) else item
                if content is None or content == []:
                    continue
                if key not in dict(values):
                    values.append((key, content))
                if key == "*":
                    return values
        return values

    def _number(self, name: str, value: Any) -> float | int | None:
        """YAML takes 1e-5 for a word; mergekit and we for a number."""
        try:
            if isinstance(value, bool):
                raise ValueError
            return value if value is None or isinstance(value, int | float) else float(value)
        except (TypeError, ValueError):
            self._add_error(f"parameters.{name}: {value!r} is not a number.")
            return None

    def _weight(self, name: str, slices: list[Courses]) -> Weight | None:
        try:
            if len(slices) == 1:
                gradients = {key: gradient for key, course in slices[0] if (gradient := course.gradient()) is not None}
                if len(gradients) == len(dict(slices[0])):
                    return _plain(gradients)
            if self.layers is not None:
                return self._by_layer(name, slices)
        except ZeroDivisionError:
            self._add_error("parameters.weight: weights that sum to 0 give no share.")
            return None
        self._add_error(
            f"parameters.{name}: weights whose sum changes with depth make no gradient of λ; let the two sum to 1 "
            "everywhere, or write the layers as slices."
        )
        return None

    def _by_layer(self, name: str, slices: list[Courses]) -> Weight | None:
        """λ with one value for each layer; tensors outside the layers by their slice, at depth 0."""
        keys = _common_filters([[key for key, _ in courses] for courses in slices])
        if keys is None:
            self._add_error(f"parameters.{name}: slices with different filters make no one λ; give all the same.")
            return None
        by_slice = [
            {key: courses[key] if key in courses else courses["*"] for key in keys} for courses in map(dict, slices)
        ]
        by_layer: dict[str, list[float]] = {key: [] for key in keys}
        for part, courses in zip(self.slices, by_slice, strict=True):
            first, stop = part.layers or (0, 0)
            count = stop - first
            for key in keys:
                by_layer[key] += [courses[key].at(i / (count - 1) if count > 1 else 1.0) for i in range(count)]
        outside = {}
        for short, full, position in _OUTSIDE:
            key = next((key for key in keys if key == "*" or key in full), None)
            if key is not None and by_slice[position][key].at(0.0) != by_layer[key][0]:
                outside[short] = [by_slice[position][key].at(0.0)]
        return _plain(outside | {key: value for key, value in by_layer.items() if key not in outside})

    def _add_error(self, words: str) -> None:
        if words not in self.errors:
            self.errors.append(words)


def _common_filters(filters: list[list[str]]) -> list[str] | None:
    """The filters of all, where they are the same; those without any ("*" alone) go with all that end in it."""
    longest = max(filters, key=len)
    fits = all(keys == longest or (keys == ["*"] and longest[-1] == "*") for keys in filters)
    return longest if fits else None


def _plain(values: dict[str, list[float]]) -> Weight:
    """In the fewest words: one number where all are the same, no filter where there is but one."""
    short = {key: value[0] if len(set(value)) == 1 else value for key, value in values.items()}
    return short["*"] if list(short) == ["*"] else short


def _between(values: Sequence[float], depth: float) -> float:
    position = depth * (len(values) - 1)
    left = min(int(position), len(values) - 1)
    share = position - left
    return values[left] if share == 0 else (1.0 - share) * values[left] + share * values[left + 1]
