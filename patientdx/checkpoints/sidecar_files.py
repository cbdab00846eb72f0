"""What a checkpoint folder holds beside the weights: configuration, tokenizer, chat template, licence, model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patientdx.checkpoints.identity import BEHAVIOUR_FILES, TEMPLATES
from patientdx.checkpoints.manifest import FILE, summary
from patientdx.checkpoints.source import LOCAL_FOLDER, is_local

# Licences must be passed on.
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")
CARD = "README.md"


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


def model_card(stated: Mapping[str, Any]) -> bytes:
    """The README.md of a merged folder, from a statement with hashes (see `provenance.with_hashes`)."""
    title = summary(stated)
    hubs = [model["source"] for model in stated["models"] if _is_hub_id(model.get("source"))]
    front = ["---", "library_name: transformers", "tags:", "- merge", "- patientdx"]
    if hubs:
        front += ["base_model:", *(f"- {hub}" for hub in dict.fromkeys(hubs)), "base_model_relation: merge"]
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
    return "\n".join([*front, "---", text]).encode()


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
