"""A LoRA adapter in peft's format, applied to a checkpoint tensor by tensor."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patientdx.checkpoints.identity import BEHAVIOUR_FILES, derivation
from patientdx.checkpoints.patient_mark import mark, marked
from patientdx.checkpoints.reader import Checkpoint, TensorHeader, read_header
from patientdx.checkpoints.writer import write_safetensors
from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object
from patientdx.core.regular_files import is_regular

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_PREFIX = "base_model.model."
# Settings that are read here, or do not change what the adapter adds to the weights. Any other one, known or unknown to
# this version, is refused unless it is empty or false.
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version", "r",
    "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
    "init_lora_weights", "qalora_group_size",
})  # fmt: skip
# Initial factors under which the base's weights stay what they are; all others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, …)
# take a part of the base's weights away first, which the adapter's files do not hold.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_NAMES = {
    "use_dora": "DoRA",
    "modules_to_save": "whole modules saved beside the low-rank ones",
    "fan_in_fan_out": "transposed weights",
    "lora_bias": "biases of its own",
    "use_qalora": "QA-LoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "parameters outside linear modules",
    "trainable_token_indices": "trained token rows",
    "alora_invocation_tokens": "activation by tokens",
    "arrow_config": "routing between adapters",
}


@dataclass(frozen=True)
class Adapter:
    """Low-rank differences to a model: W becomes W + scale · B A.

    ``factors`` maps the changed tensor's name to A [r, in], B [out, r] and the scale; ranks may differ.
    """

    folder: Path
    factors: dict[str, tuple[Tensor, Tensor, float]]

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """``weight`` [out, in] with its difference added: float32, one rounding to the weight's dtype."""
        if name not in self.factors:
            return weight
        down, up, scale = self.factors[name]
        change = (up.float() @ down.float()) * scale
        return change.add_(weight.float()).to(weight.dtype)


def read_adapter(folder: Path, tensors: dict[str, TensorHeader]) -> Adapter:
    """Open a peft folder for the model whose tensors are given.

    Raises:
        UserError: files are absent or damaged, the adapter is of a kind other than plain LoRA, or it does not
            fit the model's names and shapes.
    """
    config = _adapter_config(folder)
    headers = {header.name: header for header in read_header(folder / ADAPTER_FILES[1])}
    pairs, others = _pair_up(headers)
    if others:
        raise UserError(f"The adapter {folder} holds more than lora_A and lora_B pairs: {_some(others)}.")
    if not pairs:
        raise UserError(f"The adapter {folder} holds no lora_A and lora_B pairs.")
    unknown = [name for name in pairs if name not in tensors]
    if unknown:
        raise UserError(
            f"The adapter {folder} changes {len(unknown)} tensors that the model does not have: "
            f"{_some(unknown)}. "
            f"It was trained on {config.get('base_model_name_or_path')}: set source to that model."
        )
    ranks = _per_module(folder, config, "rank_pattern", "r", pairs)
    alphas = _per_module(folder, config, "alpha_pattern", "lora_alpha", pairs)
    misfits = []
    for name, (down, up) in pairs.items():
        shape, rank = tensors[name].shape, ranks[name]
        if len(shape) != 2 or down.shape != (rank, shape[1]) or up.shape != (shape[0], rank):
            misfits.append(f"{name} {list(shape)} against B {list(up.shape)} A {list(down.shape)}, rank {rank}")
    if misfits:
        raise UserError(f"The adapter {folder} of rank {config['r']} does not fit the model: {_some(misfits)}.")
    stored = _load(folder / ADAPTER_FILES[1])
    factors = {}
    for name, (down, up) in pairs.items():
        scale = alphas[name] / (math.sqrt(ranks[name]) if config.get("use_rslora") else ranks[name])
        factors[name] = (stored[down.name], stored[up.name], scale)
    return Adapter(folder, factors)


def _per_module(folder: Path, config: dict, pattern: str, default: str, names: Iterable[str]) -> dict[str, float]:
    """Tensor name to its rank or alpha. peft takes keys for regular expressions; here each is a module's full name."""
    values = config.get(pattern) or {}
    parameters = {name: values.get(name.removesuffix(".weight"), config[default]) for name in names}
    strange = sorted(set(values) - {name.removesuffix(".weight") for name in parameters})
    if strange:
        raise UserError(
            f"The adapter {folder} has a {pattern} for {_some(strange)}, which is not the full name of a module it "
            "changes. Merge it with peft's merge_and_unload and give the merged folder as source."
        )
    return parameters


class AdaptedCheckpoint:
    """A checkpoint with a LoRA adapter applied in memory, tensor by tensor: nothing is written, no model is kept.

    Stands wherever a `Checkpoint` is read for merging. What ``read`` gives equals, bit for bit, what `apply_adapter`
    writes, and so does the content hash (`identity.content_hash`). ``folder`` is the base's: its configuration and
    tokenizer hold for both, the weights in it do not. A changed tensor is computed at each read; its header
    points to the base's bytes.

    Raises:
        UserError: see `read_adapter`; or the base has tied embeddings and the adapter changes one end of the
            tie.
    """

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        self._base, self._adapter = base, read_adapter(folder, base.tensors)
        embedding = [name for name in self._adapter.factors if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
        if base.tied and embedding:
            raise UserError(
                f"The adapter {folder} changes {embedding[0]}, but the model ties its embedding and its output "
                "head: one tensor cannot hold both."
            )
        self.folder, self.config, self.tensors, self.tied = base.folder, base.config, base.tensors, base.tied

    def read(self, name: str) -> Tensor:
        """The adapted tensor, of the base's shape and dtype; one that the adapter leaves alone is the mapped file's.

        Raises:
            KeyError: there is no such tensor.
        """
        return self._adapter.apply(name, self._base.read(name))

    def read_bytes(self, name: str) -> Tensor:
        """The bytes [nbytes], uint8, of what `read` gives."""
        return self.read(name).reshape(-1).view(torch.uint8)

    @property
    def derivation(self) -> tuple[str, tuple[Path, ...]]:
        """See `identity.derivation`."""
        rule, files = derivation(self._base)
        return f"{rule} with adapter", (*files, *(self._adapter.folder / name for name in ADAPTER_FILES))


def apply_adapter(base: Checkpoint, folder: Path, into: Path) -> None:
    """Write base + adapter into the folder ``into``: same shards, tensor order, dtypes and tokenizer as the
    base. A merge needs only an `AdaptedCheckpoint`, which takes no disk space.

    Raises:
        UserError: see `AdaptedCheckpoint`.
    """
    adapted = AdaptedCheckpoint(base, folder)
    shards: dict[Path, list[TensorHeader]] = {}
    for header in base.tensors.values():
        shards.setdefault(header.file, []).append(header)
    for file, headers in shards.items():
        write_safetensors(into / file.name, headers, adapted.read)
    for name in (*BEHAVIOUR_FILES, "model.safetensors.index.json"):
        if is_regular(base.folder / name):
            shutil.copyfile(base.folder / name, into / name)
    if marked(base.folder) or marked(folder):
        mark(into)


def _adapter_config(folder: Path) -> dict:
    for name in ADAPTER_FILES:
        if not is_regular(folder / name):
            raise UserError(
                f"The adapter folder {folder} has no {name}: give a folder that peft's save_pretrained made."
            )
    try:
        config = read_object(folder / ADAPTER_FILES[0])
        kind, rank, alpha = config["peft_type"], config["r"], config["lora_alpha"]
    except KeyError as error:
        raise UserError(f"{folder / ADAPTER_FILES[0]} is not a LoRA configuration ({error!r}).") from error
    if kind != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(f"The adapter {folder} is {kind} with r={rank}, lora_alpha={alpha}; only LoRA can be applied.")
    unsupported = [_NAMES.get(key, key) for key, value in config.items() if value and key not in _HARMLESS]
    if config.get("bias", "none") != "none":
        unsupported.append(f"bias={config['bias']}")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        unsupported.append(f"init_lora_weights={config['init_lora_weights']}, which changes the base's weights")
    if unsupported:
        raise UserError(
            f"The adapter {folder} uses {', '.join(unsupported)}; only plain LoRA can be applied. "
            "Merge it with peft's merge_and_unload and give the merged folder as source."
        )
    return config


def _pair_up(
    headers: dict[str, TensorHeader],
) -> tuple[dict[str, tuple[TensorHeader, TensorHeader]], list[str]]:
    """Changed tensor's name to its (A, B) headers, and the names that belong to no pair."""
    pairs, others = {}, []
    for name, header in headers.items():
        module, is_a, _ = name.removeprefix(_PREFIX).partition(".lora_A.weight")
        partner = headers.get(f"{_PREFIX}{module}.lora_B.weight")
        if name.startswith(_PREFIX) and is_a and partner is not None:
            pairs[f"{module}.weight"] = (header, partner)
    used = {header.name for pair in pairs.values() for header in pair}
    others = [name for name in headers if name not in used]
    return pairs, others


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _some(items: Iterable[str]) -> str:
    """The first three, and how many more."""
    listed = list(items)
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest
