"""What merges and fine-tunes give away of their records: scores, leakage test, attacks and canaries in one table.

    python run.py experiment=leakage                        # run it
    python -m experiments.leakage                           # read it
    python -m experiments.leakage --output DIR --name NAME  # read one run with output=DIR name=NAME

λ of each merge is its yaml's. Every number of leakage is set against the model that a model started from.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.comparison import score_table, score_text
from experiments.published import MARKS, Block, published
from experiments.reading import Content, command, folder, script
from experiments.study import Run, Study, last_sweep
from patientdx.core.errors import UserError
from patientdx.core.tables import Table

ATTACK = "reference"  # the strongest with no more than the model and what it started from
_NONE = "–"


@dataclass(frozen=True)
class Model:
    """One line: the model's row of metrics, its entry of privacy.json, and what that was measured on."""

    name: str
    row: Mapping[str, Any]
    leaked: Mapping[str, Any]
    told: Mapping[str, Any]

    @property
    def fine_tuned(self) -> bool:
        """Whether it was trained on records."""
        return self.row["role"] == "finetuned"


def models(study: Study) -> list[Model]:
    """Every model of the sweep once: parents, merges, fine-tunes. UserError where a run measured no leakage."""
    found: dict[str, Model] = {}
    for run in study.runs:
        told = _told(run)
        for row in run.rows:
            if row["split"] == told["reported"] and row["role"] in told["models"]:
                name = _name(row)
                found.setdefault(name, Model(name, row, told["models"][row["role"]], told))
    order = {"base": 0, "pivot": 1, "merged": 2, "finetuned": 3}
    return sorted(found.values(), key=lambda model: order[model.row["role"]])


def _told(run: Run) -> dict[str, Any]:
    file = run.folder / "privacy.json"
    if not file.is_file():
        raise UserError(f"{run.folder} has no privacy.json: run the study with privacy=all.")
    told = json.loads(file.read_text(encoding="utf-8"))
    lacking = [name for name in ("dlt", "mia") if any(name not in one for one in told["models"].values())]
    if lacking:
        raise UserError(f"{run.folder} lacks {' and '.join(lacking)}: run the study with privacy=all.")
    return told


def _name(row: Mapping[str, Any]) -> str:
    if row["method"] is None:
        return row["role"]
    return row["method"] if row["lambda"] is None else f"{row['method']} λ={row['lambda']:g}"


def scores(found: Sequence[Model]) -> Table:
    """What each model can do, and the two differences of its losses."""
    names = ("", "AUROC", "AUPRC", "Δ1 minus start's", "Δ2 minus start's", "Δ2, perplexity")
    rows = []
    for one in found:
        deltas = [one.leaked["dlt"][name] for name in ("delta1", "delta2")]
        over = [_signed(delta["over_base"]) if "over_base" in delta else _NONE for delta in deltas]
        perplexity = f"{deltas[1]['perplexity']['value']:+.2f}"
        rows.append((one.name, score_text(one.row, "auroc", 2), score_text(one.row, "auprc", 2), *over, perplexity))
    return score_table("Scores and leakage test (nats a token)", names, rows)


def attacks(found: Sequence[Model]) -> Table:
    """How well members are told from non-members, and how far canaries are exposed."""
    copies = sorted({times for one in found for times in _canaries(one)}, key=int)
    names = ("", "MIA AUC", "minus start's", "TPR at 1 % FPR", *(f"canary ×{times}, bits" for times in copies))
    rows = []
    for one in found:
        attack = one.leaked["mia"].get(ATTACK)
        cells = (_NONE,) * 3
        if attack is not None:
            cells = _plain(attack["auc"]), _signed(attack["over_base"]), _plain(attack["tpr"]["0.01"])
        canaries = _canaries(one)
        bits = [f"{canaries[times]['exposure']:.1f}" if times in canaries else _NONE for times in copies]
        rows.append((one.name, *cells, *bits))
    return score_table(f"Membership inference ({ATTACK} attack) and canaries", names, rows)


def _canaries(one: Model) -> Mapping[str, Any]:
    return one.leaked.get("canaries", {}).get("copies", {})


def controls(found: Sequence[Model]) -> Iterator[str]:
    """Whether the controls are as they must be: merges show nothing, training on the whole record shows."""
    for one in found:
        if one.leaked["against"] is None or one.row["role"] == "pivot":
            continue
        first, second = (one.leaked["dlt"][name]["over_base"] for name in ("delta1", "delta2"))
        signs = (["Δ1 below 0"] if first["high"] < 0 else []) + (["Δ2 above 0"] if second["low"] > 0 else [])
        yield f"{one.name}: {' and '.join(signs) or 'no sign of leakage'}, against {one.leaked['against']}."


def direction(found: Sequence[Model], block: Block) -> Iterator[str]:
    """Ours beside the paper's: whether fine-tuned models show what merged ones do not."""
    signs = {True: [], False: []}
    for one in found:
        if one.fine_tuned or one.row["role"] == "merged":
            signs[one.fine_tuned].append(one.leaked["dlt"]["delta2"]["over_base"]["low"] > 0)
    tuned, merged = signs[True], signs[False]
    same = any(tuned) and not any(merged)
    yield (
        f"Δ2 above 0 beyond its interval: {sum(tuned)} of {len(tuned)} fine-tuned and {sum(merged)} of {len(merged)} "
        f"merged models; the paper's direction (fewer signs with merging): {'same' if same else 'not shown'}."
    )
    yield f"Published: {block.paper}; {block.setting.strip()}."
    cells = ", ".join(f"{name} {cell.text} [{cell.mark}]" for name, cell in block.cells.items())
    yield f"{cells}. Marks: {', '.join(f'{mark} {meaning}' for mark, meaning in MARKS.items())}."


def notes(found: Sequence[Model]) -> Iterator[str]:
    """What the table needs beside it."""
    told = found[-1].told
    sides = told["members"], told["non_members"]
    yield (
        f"{sides[0]['n']} members and {sides[1]['n']} non-members of {sides[0]['mean_tokens']:.0f} and "
        f"{sides[1]['mean_tokens']:.0f} tokens on average; reference: {told['reference']} records."
    )
    blind = {name: _plain(one["auc"]) for name, one in told["blind"].items()}
    yield f"Without any model: words {blind['bag_of_words']}, length {blind['length']}; 0.5 is chance."
    most = next((one.leaked["canaries"]["most"] for one in found if "canaries" in one.leaked), None)
    if most is not None:
        yield f"Exposure is at most {most:.1f} bits, and about 1.4 for a model that never saw the canary."
    tpr = next(one["tpr"]["0.01"] for one in found[-1].leaked["mia"].values())
    if tpr["value"] is None:
        yield f"TPR at 1 % FPR: {tpr['reason']}."


def _plain(one: Mapping[str, Any]) -> str:
    return _NONE if one["value"] is None else f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _signed(one: Mapping[str, Any]) -> str:
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def contents(args: Namespace) -> Iterator[Content]:
    """Both tables, and what they need beside them."""
    study = last_sweep(folder(args), command(args))
    found, block = models(study), published("leakage")
    yield from (scores(found), attacks(found))
    yield from (*notes(found), *controls(found), *direction(found, block))


main = script("leakage", __doc__, contents)

if __name__ == "__main__":
    raise SystemExit(main())
