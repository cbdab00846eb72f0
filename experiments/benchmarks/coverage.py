"""How often intervals of each method cover the truth, by side, and the size of the paired test, in simulation.

python -m experiments.benchmarks.coverage
python -m experiments.benchmarks.coverage --settings 104-11-1-0.75 60-30-1-0.97 --datasets 200

A setting is rows, expected events, most stays a patient (1 or 3) and AUROC: patients have one to so many stays, scores
are normal and 40 % of their variance, 50 % of that of the outcome, is the patient's where there are several stays.
The second model of a difference has the AUROC after a slash (104-11-1-0.75/0.7), else the same: its differences are 0,
and 1 - coverage is the size of the test. Its noise has a correlation of 0.7 with the first's. Truths are integrals.
Method `used` is `patientdx.metrics.bootstrap.interval` and `paired_difference`, what every table has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, norm, t
from tqdm import tqdm

from experiments.benchmarks import harness
from patientdx.metrics.accuracy import accuracy_at_half
from patientdx.metrics.bootstrap import Bootstrap, difference_ends, ends, replicates, spreads
from patientdx.metrics.calibration import brier, calibration_intercept, calibration_slope
from patientdx.metrics.jackknife import Jackknife
from patientdx.metrics.ranking import auprc, auroc
from patientdx.metrics.specification import Metric, metric_spec
from patientdx.metrics.text_overlap import mean

SETTINGS = (
    "60-5-1-0.75", "60-10-1-0.92", "104-11-1-0.6", "104-11-1-0.75", "104-11-3-0.85", "104-11-1-0.97", "200-30-3-0.75",
    "200-30-1-0.9", "500-30-1-0.97", "500-100-3-0.82", "2000-30-1-0.82", "2000-200-3-0.9",
)  # fmt: skip
DIFFERENT = ("104-11-1-0.75/0.65", "104-11-3-0.85/0.8", "200-30-1-0.9/0.85", "500-30-1-0.97/0.94")
_SHIFT, _TILT = -0.3, 0.8  # how the logit of the probabilities is wrong: the truth plus 0.3, and too flat
_LEVEL = 0.95
_GROUPS = 500  # that are left out, of more patients than that
_SINGLE = ("slope", "intercept")  # what tables do not show differences of
MEASURES = ("AUROC", "AUPRC", "Brier", "slope", "intercept", "accuracy", "mean")
METHODS = ("used", "percentile", "BCa", "normal", "logit", "t by events")
Array = NDArray[Any]
Ends = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Setting:
    """Rows, expected events, most stays a patient, and the AUROC of two models."""

    rows: int
    events: float
    stays: int
    areas: tuple[float, float]

    @classmethod
    def of(cls, text: str) -> Setting:
        """As on the command line."""
        rows, events, stays, areas = text.split("-")
        first, _, second = areas.partition("/")
        return cls(int(rows), float(events), int(stays), (float(first), float(second or first)))

    @property
    def prevalence(self) -> float:
        """Of the event."""
        return self.events / self.rows

    def lift(self, model: int) -> float:
        """Standard deviations that an event adds to the score of a model."""
        return float(np.sqrt(2) * norm.ppf(self.areas[model]))

    def probability(self, score: Array) -> Array:
        """What both models make of their score."""
        return expit(logit(self.prevalence) + _SHIFT + _TILT * score)

    def draw(self, random: np.random.Generator) -> tuple[Array, Array, list[Array]]:
        """Subject and label (n,), and the scores of both models; at least two patients have the event."""
        subject = np.repeat(np.arange(self.rows), random.integers(1, self.stays + 1, self.rows))[: self.rows]
        label = np.zeros(self.rows, dtype=bool)
        while np.unique(subject[label]).size < 2:
            label = self._noise(random, subject, 0.5) > norm.ppf(1 - self.prevalence)
        shared, other = (self._noise(random, subject, 0.4) for _ in range(2))
        noises = shared, 0.7 * shared + np.sqrt(1 - 0.7**2) * other
        return subject, label, [noise + self.lift(model) * label for model, noise in enumerate(noises)]

    def _noise(self, random: np.random.Generator, subject: Array, share: float) -> Array:
        """(n,) standard normal, of which a share of the variance is the patient's."""
        share = share if self.stays > 1 else 0.0
        own = random.normal(size=subject[-1] + 1)[subject]
        return np.sqrt(share) * own + np.sqrt(1 - share) * random.normal(size=subject.size)

    def truths(self, model: int) -> dict[str, float]:
        """By measure, for infinitely many patients."""
        lift, prevalence = self.lift(model), self.prevalence
        score = np.linspace(-9, 9 + lift, 40001)
        ill, well = prevalence * norm.pdf(score - lift), (1 - prevalence) * norm.pdf(score)
        chance, integral = self.probability(score), partial(np.trapezoid, x=score)
        hits, alarms = prevalence * norm.sf(score - lift), (1 - prevalence) * norm.sf(score)
        rise = partial(lambda extra: integral((ill + well) * expit(logit(chance) + extra)) - prevalence)
        right = (score > 0) == (np.arange(2)[:, None] == 1)
        return {
            "AUROC": self.areas[model],
            "AUPRC": integral(ill / prevalence * hits / np.maximum(hits + alarms, 1e-300)),
            "Brier": integral(ill * (1 - chance) ** 2 + well * chance**2),
            "slope": lift / _TILT,
            "intercept": brentq(rise, -5, 5),
            "accuracy": integral(well * right[0] + ill * right[1]),
            "mean": integral((ill + well) * _overlap(score)),
        }


def _overlap(score: Array) -> Array:
    """A number of each row like ROUGE of a text: 0 in some, skewed."""
    return np.where(score < -1, 0.0, expit(score - 1) ** 2)


def measures(setting: Setting) -> dict[str, tuple[Metric, Callable[[Array], Array], bool]]:
    """By name: the metric, what it takes of a score, and whether its label is the event."""
    chance = setting.probability
    return {
        "AUROC": (auroc, np.asarray, True),
        "AUPRC": (auprc, np.asarray, True),
        "Brier": (brier, chance, True),
        "slope": (calibration_slope, chance, True),
        "intercept": (calibration_intercept, chance, True),
        "accuracy": (accuracy_at_half, lambda score: (score > 0).astype(float), True),
        "mean": (mean, _overlap, False),
    }


def single(value: float, spread: Jackknife, drawn: Array, metric: Metric) -> Ends:
    """The interval of one value by each method."""
    spec, error = metric_spec(metric), spread.standard_error
    found = {"used": ends(value, spread, _LEVEL, metric), **_resampled(value, spread, drawn)}
    found["normal"] = value - 1.96 * error, value + 1.96 * error
    share = (value - spec.low) / (spec.high - spec.low) if np.isfinite(spec.high - spec.low) else 0.0
    if 0 < share < 1:  # for an area this is the logit interval of DeLong's variance, by patient
        reach = 1.96 * error / (share * (1 - share))
        found["logit"] = tuple(expit(logit(share) + np.array([-reach, reach])))
    else:
        found["logit"] = found["normal"]
    return found


def difference(value: float, spread: Jackknife, drawn: Array, patients: int) -> Ends:
    """The interval of a difference by each method."""
    low, high, _ = difference_ends(value, spread, patients, _LEVEL)
    reach = float(t.ppf(0.975, spread.degrees_of_freedom())) * spread.standard_error
    return {
        "used": (low, high), **_resampled(value, spread, drawn), "t by events": (value - reach, value + reach),
    }  # fmt: skip


def _resampled(value: float, spread: Jackknife, drawn: Array) -> Ends:
    if not drawn.size:
        return {}
    return {"percentile": _quantiles(drawn, (0.025, 0.975)), "BCa": _bca(value, spread, drawn)}


def _quantiles(drawn: Array, at: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, at)
    return low, high


def _bca(value: float, spread: Jackknife, drawn: Array) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated interval (J. Am. Stat. Assoc. 1987)."""
    drawn, influence = drawn[~np.isnan(drawn)], spread.without.mean() - spread.without
    bias = norm.ppf(((drawn < value).mean() + (drawn <= value).mean()) / 2)
    if not np.isfinite(bias) or not influence.any():
        return drawn.min(), drawn.max()
    speed = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    steps = bias + norm.ppf([0.025, 0.975])
    return _quantiles(drawn, norm.cdf(bias + steps / (1 - speed * steps)))


def intervals_of(
    setting: Setting, seed: int, resamples: int, names: Sequence[str] = MEASURES
) -> Iterator[tuple[str, Ends]]:
    """Every interval of one data set: measures of the first model, and differences of both."""
    random = np.random.default_rng([seed, setting.rows, round(setting.events), setting.stays])
    subject, label, scores = setting.draw(random)
    draws = Bootstrap(resamples=_GROUPS, level=_LEVEL, seed=seed)
    for name in names:
        metric, taken, has_events = measures(setting)[name]
        right, values, kinds, drawn = label if has_events else np.ones(label.size), [], [], []
        models = scores[:1] if name in _SINGLE else scores
        try:
            for score in map(taken, models):
                values.append(float(metric(score, right)))
                kinds.append(spreads({"": metric}, score, right, subject, draws)[""])
                drawn.append(_drawn(metric, score, right, subject, resamples, seed))
        except ValueError:  # separated classes have no slope
            continue
        if np.isnan([kind.standard_error for kind in kinds]).any():
            continue
        yield name, single(values[0], kinds[0], drawn[0], metric)
        if len(models) == 2:
            patients, spread = np.unique(subject).size, kinds[0] - kinds[1]
            yield f"difference of {name}", difference(values[0] - values[1], spread, drawn[0] - drawn[1], patients)


def _drawn(metric: Metric, score: Array, label: Array, subject: Array, resamples: int, seed: int) -> Array:
    if not resamples:
        return np.empty(0)
    return replicates({"": metric}, score, label, subject, resamples=resamples, seed=seed)[""]


def row(text: str, datasets: int, resamples: int, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A line a measure: setting, measure, data sets, truth, and of each method its coverage and both sides."""
    setting = Setting.of(text)
    first, second = (setting.truths(model) for model in range(2))
    truths = first | {f"difference of {name}": value - second[name] for name, value in first.items()}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for seed in range(datasets):
        for name, made in intervals_of(setting, seed, resamples, names):
            for method, pair in made.items():
                found.setdefault(name, {}).setdefault(method, []).append(pair)
    for name, by_method in found.items():
        texts = [_covered(truths[name], np.array(by_method[method])) if method in by_method else ""
                 for method in METHODS]  # fmt: skip
        yield text, name, str(len(by_method["used"])), f"{truths[name]:.3f}", *texts


def _covered(truth: float, pairs: Array) -> str:
    """Coverage in per cent, and how many intervals lie above and below the truth; ! where these tails are not alike."""
    above, below = int((truth < pairs[:, 0]).sum()), int((truth > pairs[:, 1]).sum())
    shares = (100 * count / len(pairs) for count in (len(pairs) - above - below, above, below))
    return "{:.1f} ({:.1f}, {:.1f})".format(*shares) + ("!" if tails_differ(above, below) else "")


def tails_differ(above: int, below: int) -> bool:
    """Whether one side has more than twice the misses of the other: binomial, one-sided, at 5 %."""
    misses = above + below
    return misses > 0 and bool(binom.sf(max(above, below) - 1, misses, 2 / 3) < 0.05)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS, *DIFFERENT])
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=MEASURES)
    parser.add_argument("--datasets", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=400, help="of percentile and BCa intervals; 0 for none")
    args = parser.parse_args(arguments)
    columns = ("setting", "measure", "sets", "truth", *METHODS)
    error = 100 * (0.95 * 0.05 / args.datasets) ** 0.5
    note = "per cent covered (intervals above the truth, below it; !: one more than twice the other, beyond chance); "
    note += f"the standard error of 95.0 is {error:.1f}"
    for text in tqdm(args.settings, desc="settings"):
        lines = list(row(text, args.datasets, args.resamples, args.measures))
        harness.show(harness.table("Coverage of 95 % intervals", columns, lines, 2, note), width=200)


if __name__ == "__main__":
    harness.run(main)
