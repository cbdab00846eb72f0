"""What a checkpoint folder holds beside the weights: configuration, tokenizer, chat template, licence, model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.checkpoints.identity import BEHAVIOUR_FILES, TEMPLATES
from patientdx.checkpoints.manifest import FILE, summary
from patientdx.checkpoints.source import LOCAL_FOLDER, is_local

# Licences must be passed on.
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")
CARD = "README.md"
_LICENCE = re.compile(r"[\w.+-]+")


def sidecar_files(
    base: Any, dtype: str | None, *, remote_code: bool = False, config: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The files of a merged folder that come from the base, a checkpoint or a view of one; name to content.

    `dtype`, if any, is written into the configuration. Python files and the configuration's references to them are left
    out unless `remote_code`: a merged model runs no remote code by default. config: the configuration of another parent
    (as a mapping), where the merged model takes that one's.
    """
    # The folder of a view with another vocabulary holds no licence of the weights.
    weights = getattr(base, "weights_folder", base.folder)
    code = sorted(file.name for file in weights.glob("*.py")) if remote_code else []
    files = {name: base.folder / name for name in BEHAVIOUR_FILES}
    files |= {f"{TEMPLATES}/{path.name}": path for path in sorted((base.folder / TEMPLATES).glob("*.jinja"))}
    files |= {name: weights / name for name in (*_LICENCES, *code)}
    contents = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
    stored = json.loads(contents["config.json"])
    changed = dict(stored if config is None else config)
    if dtype is not None:
        changed["torch_dtype" if "torch_dtype" in changed else "dtype"] = dtype
    if not remote_code:
        changed.pop("auto_map", None)
    if changed != stored:
        contents["config.json"] = (json.dumps(changed, indent=2) + "\n").encode()
    return contents


def model_card(stated: Mapping[str, Any], results: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The README.md of a merged folder, from a statement with hashes (see `provenance.with_hashes`).

    results: what a study measured, with the keys of `reporting.certificate_study.scores`; they stand in the front
    matter, as the hub reads it.
    """
    title = summary(stated)
    configuration, number = "Configuration,", stated.get("config_from")
    if number is not None:
        name = stated["models"][number]["name"]
        configuration = f"The parents' configurations compute differently, and this model has {name}'s. Its"
    rows = [
        f"| {model['role']} | {_cell(model['name'])} | {_cell(_public(model.get('source')))} "
        f"| {_cell(model.get('licence') or 'not stated')} | `{model['sha256']}` |"
        for model in stated["models"]
    ]
    text = f"""
# {title}

The weights of this model were computed from those of the models below; nothing was trained. {configuration} tokenizer
and chat template are the base's.

| role | name | source | licence | SHA-256 of weights, configuration and tokenizer |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

- method: `{stated["method"]}`
- arguments: `{json.dumps(stated["arguments"])}`
- λ: `{json.dumps(stated["lambda"], ensure_ascii=False)}`
- seed: {stated["seed"]}
- dtype: {stated["dtype"] or "the base's"}
- versions: {", ".join(f"{name} {version}" for name, version in stated["versions"].items())}

`{FILE}` holds the diagnostics and the SHA-256 of every tensor. `python -m patientdx.cli verify <this folder>` derives
the weights again from the models above and compares every bit. The licences of all these models apply.
"""
    return f"---\n{_front_matter(stated, title, results)}\n---\n{text}".encode()


def _front_matter(stated: Mapping[str, Any], title: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The lines that the hub reads; without a licence where a parent states none, or none that is a plain name."""
    from huggingface_hub import EvalResult, ModelCardData

    hubs = [model["source"] for model in stated["models"] if _is_hub_id(model.get("source"))]
    fields: dict[str, Any] = {"base_model": list(dict.fromkeys(hubs)), "base_model_relation": "merge"} if hubs else {}
    licences = list(dict.fromkeys(model.get("licence") or "" for model in stated["models"]))
    if all(_LICENCE.fullmatch(licence) for licence in licences):
        joined = {"license": "other", "license_name": "-and-".join(licences)}
        fields |= joined if len(licences) > 1 else {"license": licences[0]}
    evaluated = [
        EvalResult(
            task_type=result["task_type"], task_name=result["task"], dataset_type=result["task"],
            dataset_name=result["dataset"], dataset_split=result["split"], metric_type=result["metric"],
            metric_name=result["name"], metric_value=result["value"], metric_args=result["uncertainty"],
        )
        for result in results
    ]  # fmt: skip
    fields |= {"model_name": title, "eval_results": evaluated} if evaluated else {}
    return ModelCardData(library_name="transformers", tags=["merge", "patientdx"], **fields).to_yaml()


def _public(source: str | None) -> str:
    """A model's source without a path of this machine."""
    return LOCAL_FOLDER if is_local(source) else source or ""


def _cell(text: str) -> str:
    """A text that others wrote, as one cell of a table: no line, column, link or HTML of its own."""
    return re.sub(r"([\\`<>\[\]|])", r"\\\1", " ".join(text.split()))


def _is_hub_id(source: str | None) -> bool:
    """A source as org/name; a relative folder of two parts looks the same, so what exists is taken for a folder."""
    if not source or source.count("/") != 1 or source.startswith((".", "~", "/", "wheel:")):
        return False
    return not Path(source).exists() and not source.endswith(".gguf")
