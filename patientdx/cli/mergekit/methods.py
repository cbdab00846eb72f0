"""Each of mergekit's methods translated: the role of each model, what becomes λ, and the names of the numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from patientdx.cli.mergekit.numbers import Numbers, Weight
from patientdx.core.functions import dotted

# Sums of task vectors, and mergekit's defaults: whether it divides by the weights, and restores the L1 norm.
_SUMS = {
    "task_arithmetic": (False, False),
    "ties": (True, False),
    "dare_linear": (False, True),
    "dare_ties": (False, True),
    "della": (True, True),
    "della_linear": (False, True),
    "breadcrumbs": (False, False),
    "breadcrumbs_ties": (False, False),
}
_ELECTING = ("ties", "dare_ties", "della", "breadcrumbs_ties")
# (parents, ancestor, λ, arguments); models by their references
Mapped = tuple[list[str], str | None, Weight | None, dict[str, Any]]


class Method:
    """One method over the models of a recipe; what cannot be translated goes to the errors of `numbers`.

    base: reference of base_model, or None. listed: the models in the recipe's order. mergekit joins the base like the
    others where the method has no other use for it, even if it is not listed.
    """

    def __init__(self, name: str, base: str | None, listed: Sequence[str], numbers: Numbers) -> None:
        self.name, self.base, self.numbers = name, base, numbers
        self.entries = [*dict.fromkeys([base, *listed])] if base else list(listed)
        self.others = [reference for reference in listed if reference != base]
        self.named = inspect.signature(dotted(f"patientdx.merge.{name}.{name}")).parameters

    def mapped(self) -> Mapped:
        """The translated method; after an error any value."""
        mapped = METHODS[self.name](self)
        self.numbers.note_unused(self.name)
        return mapped

    def ends(self) -> Mapped:
        """slerp and nearswap: from the base to the other, t is λ."""
        self._needs(base=True, most=1)
        return self.entries, None, self.numbers.course("t"), {}

    def linear(self) -> Mapped:
        """λ is the share of all models beside the first."""
        if len(self.entries) < 2:
            self._add_error(f"models: linear joins at least 2 here, got {len(self.entries)}.")
            return self.entries, None, None, {}
        return self.entries, None, *self._share_arguments(self.entries, "normalize")

    def nuslerp(self) -> Mapped:
        """The base is no parent but the ancestor, if there is one."""
        flat = self.numbers.constant("nuslerp_flatten", True)
        if self.numbers.constant("nuslerp_row_wise", False) and not flat:
            self._add_error(
                "parameters.nuslerp_row_wise: one angle for each column is not done here; leave it out for one angle "
                "for each row, or set nuslerp_flatten: true for one for the whole tensor."
            )
        of = {"of": "deltas"} if self.base else {}
        fits = self._needs(least=2, most=2)
        weight = self.numbers.share(*self.others) if fits else None
        return self.others, self.base, weight, {"row_wise": not flat} | of

    def multislerp(self) -> Mapped:
        """λ is shared equally by all models but the first."""
        if self.base:
            self._add_error(
                "base_model: multislerp on differences from it is not done here; leave base_model out, or use nuslerp "
                "for two models."
            )
        if self.numbers.constant("eps", 1e-8) != 1e-8:
            self._add_error("parameters.eps: norms are not blurred here; leave it out.")
        if not self._needs(least=2):
            return self.others, None, None, {}
        weight, arguments = self._share_arguments(self.others, "normalize_weights")
        if len(set(arguments.get("weights", ()))) > 1:
            self._add_error(
                "parameters.weight: here multislerp shares λ equally among all models but the first; give those the "
                "same weight."
            )
        return self.others, None, weight, self._compat()

    def karcher(self) -> Mapped:
        """The plain mean, as mergekit knows no weights."""
        arguments = {"max_iter": int(self.numbers.constant("max_iter", 10)), "tol": self.numbers.constant("tol", 1e-5)}
        count = len(self.entries)
        if count < 2:
            self._add_error(f"models: karcher joins at least 2 here, got {count}.")
        return self.entries, None, 1.0 - 1.0 / max(1, count), arguments

    def model_stock(self) -> Mapped:
        """Has no λ."""
        self._needs(base=True, least=2)
        arguments = {"filter_wise": self.numbers.constant("filter_wise", False)}
        return self.others, self.base, None, arguments | self._compat()

    def sce(self) -> Mapped:
        """select_topk is our density, 1 the λ."""
        self._needs(base=True, least=2)
        self.numbers.constant("int8_mask", False)
        arguments = {"density": min(1.0, self.numbers.constant("select_topk", 1.0))}
        return self.others, self.base, 1.0, arguments | self._compat()

    def task_vectors(self) -> Mapped:
        """Sums of task vectors: lambda is λ, weights stay weights.

        The ancestor as first parent lends the configuration, as with mergekit; its own difference is nothing.
        """
        self._needs(base=True)
        numbers, (divided, _) = self.numbers, _SUMS[self.name]
        numbers.constant("int8_mask", False)  # the type of a mask, which changes no result
        weights = numbers.of_each("weight", self.others, None)
        normalize = numbers.constant("normalize", divided)
        if self.name in _ELECTING and normalize != divided:
            self._add_error(
                f"parameters.normalize: here {self.name} {'always' if divided else 'never'} divides by the agreeing "
                f"weights; set normalize: {str(divided).lower()}."
            )
        elif self.name not in _ELECTING and normalize and abs(sum(weights)) >= 1e-8:
            weights = [weight / sum(weights) for weight in weights]
        arguments = {} if self.name == "task_arithmetic" else self._sparse()
        weight = numbers.course("lambda", 1.0)
        return self.entries, self.base, weight, {"weights": [0.0, *weights], **arguments, **self._compat()}

    def _sparse(self) -> dict[str, float]:
        """density; gamma of breadcrumbs, epsilon of DELLA; and whether the rest is scaled up as here."""
        numbers, (_, restored) = self.numbers, _SUMS[self.name]
        density = min(1.0, numbers.of_all("density", self.others, 1.0))
        if numbers.constant("rescale", restored) != restored and density < 1.0:
            self._add_error(
                f"parameters.rescale: here {self.name} {'always' if restored else 'never'} restores the L1 norm; set "
                f"rescale: {str(restored).lower()}."
            )
        arguments = {"density": density}
        if "gamma" in self.named:
            gamma, most = numbers.of_all("gamma", self.others, 0.01), 1.0 - density
            if 0.0 < most < gamma:
                numbers.notes.append(f"gamma: {gamma:g} counts as {most:g}, all that density leaves, as with mergekit")
            arguments["gamma"] = min(gamma, most)
        if "epsilon" in self.named:
            epsilon = arguments["epsilon"] = numbers.of_all("epsilon", self.others, 0.15)
            if density == 1.0:
                plain = "ties" if self.name == "della" else "task_arithmetic"
                self._add_error(
                    f"parameters.density: {self.name} with density 1 prunes nothing; write {plain} instead."
                )
            elif not 0.0 < density - epsilon <= density + epsilon < 1.0:
                self._add_error(
                    f"parameters.epsilon: density {density:g} ± {epsilon:g} leaves (0, 1), which mergekit refuses too."
                )
        return arguments

    def _share_arguments(self, models: Sequence[str], normalize: str) -> tuple[Weight | None, dict[str, Any]]:
        """λ and, of more than two models, the weights of those beside the first."""
        normalized = self.numbers.constant(normalize, True)
        if len(models) == 2:
            return self.numbers.share(*models, normalized=normalized, switch=normalize), {}
        weights = self.numbers.of_each("weight", models, None)
        total = sum(weights)
        if min(weights) < 0 or total <= 0:
            numbers = ", ".join(f"{weight:g}" for weight in weights)
            self._add_error(f"parameters.weight: {numbers} are no shares; give numbers of at least 0, not all 0.")
            return None, {}
        if not normalized and abs(total - 1.0) > 1e-9:
            self._add_error(
                f"parameters.{normalize}: weights always count as shares of their sum here; set it to true."
            )
        return sum(weights[1:]) / total, {"weights": weights[1:]}

    def _compat(self) -> dict[str, str]:
        """mergekit's rules, where the method has a switch for them."""
        return {"compat": "mergekit"} if "compat" in self.named else {}

    def _needs(self, *, base: bool = False, least: int = 1, most: int | None = None) -> bool:
        """Whether there is a base_model where one is needed, and the number of others is right."""
        if base and self.base is None:
            self._add_error(f"base_model: {self.name} needs one, and none is given.")
        count = len(self.others)
        if fits := least <= count and (most is None or count <= most):
            return fits
        expected = str(least) if most == least else f"at least {least}"
        beside = " beside base_model" if base else ""
        self._add_error(f"models: {self.name} joins {expected}{beside} here, got {count}.")
        return fits

    def _add_error(self, words: str) -> None:
        self.numbers.errors.append(words)


METHODS: dict[str, Callable[[Method], Mapped]] = {
    "slerp": Method.ends,
    "nearswap": Method.ends,
    "linear": Method.linear,
    "nuslerp": Method.nuslerp,
    "multislerp": Method.multislerp,
    "karcher": Method.karcher,
    "model_stock": Method.model_stock,
    "sce": Method.sce,
    **dict.fromkeys(_SUMS, Method.task_vectors),
}
