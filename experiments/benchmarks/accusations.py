"""How often models that saw no record are accused of it, and models that saw them: real tiny models, many seeds.

python -m experiments.benchmarks.accusations
python -m experiments.benchmarks.accusations --seeds 3 --kinds clean --steps 30

A seed makes invented records of its own, a tiny Llama that has learned to read such records, and models that start from
it: `clean` goes on learning from further records that are in no set, `tested` was taught the test set and `trained` the
train set by heart. Each is read as a run reads it (leakage test and the attacks together, Holm's correction), with a
`fresh` reference (other records of the same source) and a `resampled` one (new records in the words of train). Beside
it stand what would be said if Δ1 were read with a resampled reference, and if no test were corrected.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.benchmarks import harness
from patientdx.lm.logprobs import token_losses
from patientdx.metrics.bootstrap import Bootstrap
from patientdx.privacy import attacks
from patientdx.privacy.estimates import LossSet, attack, leakage_test, reading
from patientdx.privacy.resample import resampled

KINDS = ("clean", "tested", "trained")
READINGS = ("fresh", "resampled", "resampled, Δ1 read", "fresh, uncorrected")
_PATIENTS = 24
_STEPS = 60  # after which records are known by heart; after 30 they are not
_DRAWS = Bootstrap(resamples=1000)
_LETTERS = {letter: number for number, letter in enumerate("\n ./:0123456789abcdefghijklmnopqrstuvwxyz")}
_READINGS = (("heart rate", 40, 180), ("lactate", 1, 9), ("glucose", 60, 400))
Ids = list[list[int]]


@dataclass(frozen=True)
class Records:
    """Texts by set, and the patient of each: one or two texts a patient."""

    texts: Mapping[str, list[str]]
    subjects: Mapping[str, list[str]]

    def ids(self, name: str) -> Ids:
        """Letters as tokens."""
        return [[_LETTERS[letter] for letter in text] for text in self.texts[name]]


def records(seed: int) -> Records:
    """Those of one seed; `resampled` are in the words of train, and all others of one source."""
    random = np.random.default_rng(seed)
    texts: dict[str, list[str]] = {}
    subjects: dict[str, list[str]] = {}
    for name in ("train", "test", "fresh", "elsewhere", "further"):
        stays = random.integers(1, 3, _PATIENTS)
        subjects[name] = [f"{name} {i}" for i in np.repeat(np.arange(_PATIENTS), stays)]
        texts[name] = [_record(random) for _ in subjects[name]]
    count = len(texts["test"])
    texts["resampled"] = resampled(texts["train"], count, seed=seed)
    subjects["resampled"] = [f"new {i}" for i in range(count)]
    return Records(texts, subjects)


def _record(random: np.random.Generator) -> str:
    """Lines of readings, two of which depend on how ill the patient is: what a resampled record does not heed."""
    ill = random.normal()
    lines = [f"{name}: {int(np.clip((low + high) / 2 + (high - low) / 5 * (ill + random.normal() / 3), low, high))}"
             for name, low, high in _READINGS]  # fmt: skip
    return "\n".join(lines)


def taught(model: LlamaForCausalLM, ids: Ids, steps: int) -> LlamaForCausalLM:
    """A copy of the model after so many steps of AdamW on all records at once."""
    model = copy.deepcopy(model).train()
    longest = max(map(len, ids))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    target = torch.tensor([row + [-100] * (longest - len(row)) for row in ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=rows, labels=target).loss.backward()
        optimizer.step()
    return model.eval()


def models(made: Records, seed: int, kinds: Sequence[str], steps: int = _STEPS) -> dict[str, LlamaForCausalLM]:
    """The base and a model of each kind."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    start = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(_LETTERS), tie_word_embeddings=True))
    base = taught(start, made.ids("elsewhere"), _STEPS)
    of_kind = {"clean": "further", "tested": "test", "trained": "train"}
    return {"base": base} | {kind: taught(base, made.ids(of_kind[kind]), steps) for kind in kinds}


def losses(model: LlamaForCausalLM, ids: Ids, subjects: Sequence[str]) -> LossSet:
    """Of one set of records, with the patient of each."""
    places, found = token_losses(model, ids, batch_tokens=4096)
    ordered = [found[places.index(i)].nll for i in range(len(places))]
    total, tokens = np.array([nll.sum() for nll in ordered]), np.array([float(nll.size) for nll in ordered])
    return LossSet(subjects, total, tokens, np.array([nll[-1] for nll in ordered]))


def measured(model: Mapping[str, LossSet], base: Mapping[str, LossSet], reference: str) -> dict[str, Any]:
    """What privacy.json has of a model: leakage test, LOSS and the reference attack, against the base."""
    sets, before = ({"train": one["train"], "test": one["test"], "reference": one[reference]} for one in (model, base))
    mean, past = (
        np.concatenate([one[name].total / one[name].tokens for name in ("train", "test")]) for one in (sets, before)
    )
    subject = [*sets["train"].subject, *sets["test"].subject]
    member = np.repeat([1, 0], [len(sets[name].subject) for name in ("train", "test")])
    outside = np.flatnonzero(member == 0)
    is_drawn = np.array(subject)[:, None] != np.array(subject)[outside]
    scores = {
        "loss": (attacks.loss(mean), attacks.loss(past)),
        "reference": (attacks.reference(mean, past), 0 * past),
        "rmia": (attacks.rmia(np.exp(-mean), np.exp(-past), outside, is_drawn), np.ones_like(past)),
    }
    mia = {name: attack(*pair, member, subject, _DRAWS) for name, pair in scores.items()}
    return {"against": "base", "dlt": leakage_test(sets, before, _DRAWS), "mia": mia}


def accused(seed: int, kinds: Sequence[str], steps: int = _STEPS) -> dict[tuple[str, str], bool]:
    """By kind of model and by way of reading: whether any sentence accuses it."""
    made = records(seed)
    found = {
        name: {one: losses(model, made.ids(one), made.subjects[one]) for one in ("train", "test", "fresh", "resampled")}
        for name, model in models(made, seed, kinds, steps).items()
    }
    result = {}
    for kind in kinds:
        told = {name: measured(found[kind], found["base"], name) for name in ("fresh", "resampled")}
        result |= {(kind, name): _accuses(told[name], name) for name in told}
        result[kind, "resampled, Δ1 read"] = _accuses(told["resampled"], "fresh")
        result[kind, "fresh, uncorrected"] = _accuses_uncorrected(told["fresh"])
    return result


def _accuses(told: Mapping[str, Any], reference: str) -> bool:
    lines = reading("model", told, _DRAWS, reference)
    return any("a sign that" in line or ("found by" in line and "found by none" not in line) for line in lines)


def _accuses_uncorrected(told: Mapping[str, Any]) -> bool:
    over = [(-1, told["dlt"]["delta1"]["over_base"]), (1, told["dlt"]["delta2"]["over_base"])]
    over += [(1, one["over_base"]) for one in told["mia"].values()]
    return any(sign * one["value"] > 0 and one["p_value"] < 0.05 for sign, one in over if one["p_value"] is not None)


def lines(seeds: int, kinds: Sequence[str], steps: int = _STEPS) -> Iterator[tuple[str, ...]]:
    """A line for each kind and way of reading: how many of the models are accused, with the exact interval."""
    found = [accused(seed, kinds, steps) for seed in tqdm(range(seeds), desc="seeds")]
    for kind in kinds:
        for way in READINGS:
            count = sum(one[kind, way] for one in found)
            low, high = binomtest(count, seeds).proportion_ci()
            yield kind, way, f"{count} of {seeds}", f"{100 * low:.0f} to {100 * high:.0f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--steps", type=int, default=_STEPS, help="of training from the base, which had 60")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = ("model", "reference", "accused", "95 % interval")
    harness.show(harness.table("Accusations", columns, list(lines(args.seeds, args.kinds, args.steps)), 2))


if __name__ == "__main__":
    harness.run(main)
