"""What transformers makes of a configuration: the values that change the forward pass, and the tensors that it needs.

No weights are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

from patientdx.checkpoints.compatibility import follows_from_others
from patientdx.checkpoints.identity import Source
from patientdx.core.errors import UserError

# Values that cannot change what a causal language model computes in evaluation mode: names and versions, how weights
# are stored, training, and what generation_config.json or the caller decides. Any other value counts, even an unknown
# one.
_IRRELEVANT = frozenset({
    "_name_or_path", "name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "auto_map",
    "unsloth_version", "unsloth_fixed", "initializer_range", "attention_dropout", "hidden_dropout", "embd_pdrop",
    "resid_pdrop", "attn_pdrop", "classifier_dropout", "dropout", "embedding_dropout", "router_aux_loss_coef",
    "router_jitter_noise", "gradient_checkpointing", "pretraining_tp", "use_cache", "output_attentions",
    "output_hidden_states", "output_router_logits", "return_dict", "id2label", "label2id", "problem_type",
    "finetuning_task", "task_specific_params", "chunk_size_feed_forward", "tokenizer_class", "is_encoder_decoder",
    "is_decoder", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
    "keys_to_ignore_at_inference", "attn_implementation", "_attn_implementation",
})  # fmt: skip
# The vocabulary is compared token by token where parents are aligned.
_ELSEWHERE = frozenset({"vocab_size", "tie_word_embeddings"})
_WRAPPERS = {
    "_orig_mod.": "torch.compile", "module.": "DataParallel", "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP", "model.model.": "a wrapper of the model",
}  # fmt: skip


def forward_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration (config.json as a mapping) that can change the forward pass.

    They are those of transformers' configuration class, so that defaults and older names of the same value agree.
    Raises UserError where transformers has no such architecture or rejects a value.
    """
    values = _resolved(config)
    irrelevant = _IRRELEVANT | _ELSEWHERE
    rope = values.get("rope_parameters") or {}
    if isinstance(rope, Mapping) and rope.get("rope_type", "default") in ("default", "linear", "llama3"):
        irrelevant |= {"max_position_embeddings"}  # then it limits the length of a text and nothing else
    if values.get("use_sliding_window") is False:
        irrelevant |= {"max_window_layers", "sliding_window"}
    return {key: value for key, value in values.items() if key not in irrelevant}


def config_differences(parents: Sequence[Source], names: Sequence[str]) -> list[str]:
    """Where the forward passes of parents differ from the first's: `key: value in name, value in name` each."""
    if all(_raw(parent.config) == _raw(parents[0].config) for parent in parents):
        return []  # the same words: transformers need not be loaded
    first, differences = forward_config(parents[0].config), []
    for parent, name in zip(parents[1:], names[1:], strict=True):
        other = forward_config(parent.config)
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                differences.append(f"{key}: {first.get(key)} in {names[0]}, {other.get(key)} in {name}")
    return differences


def check_architecture(source: Source, name: str, cache: Path | None) -> None:
    """UserError where transformers would not load exactly the tensors of the checkpoint; see `architecture_errors`.

    cache: where names and shapes that passed are remembered, so that the next merge of this architecture starts without
    transformers; None: nowhere.
    """
    shapes = sorted((tensor, list(header.shape)) for tensor, header in source.tensors.items())
    checked = json.dumps([version("transformers"), source.config, source.tied, shapes], sort_keys=True)
    digest = hashlib.sha256(checked.encode()).hexdigest()
    file = None if cache is None else cache / "architectures" / digest
    if file is not None and file.is_file():
        return
    errors = architecture_errors(source, name)
    if errors:
        raise UserError(
            "These weights are not what their config.json describes, so a merge of them would load with others:\n- "
            + "\n- ".join(errors)
            + "\nOnly checkpoints in the model's own Hugging Face layout can be merged."
        )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def architecture_errors(source: Source, name: str) -> list[str]:
    """What of the checkpoint's tensors transformers would not find, or would fill with random numbers.

    Args:
        source: names and shapes of the tensors, and the configuration.
        name: what messages call it.
    """
    needed, ignored = expected_tensors(source.config)
    if needed is None:
        return []
    stored = {tensor: header.shape for tensor, header in source.tensors.items()}
    if source.tied:
        needed = {tensor: shape for tensor, shape in needed.items() if tensor != "lm_head.weight"}
    missing = [tensor for tensor in needed if tensor not in stored]
    strange = [tensor for tensor in stored if tensor not in needed and not _follows(tensor, source.tied, ignored)]
    errors = []
    if missing or strange:
        wrapper = next((made for prefix, made in _WRAPPERS.items() if strange and strange[0].startswith(prefix)), None)
        hint = f"; the names begin as those of {wrapper} do: save the model that it wraps" if wrapper else ""
        errors.append(
            f"{name}: {_architecture(source.config)} would fill {len(missing)} tensors with random numbers "
            f"({_first(missing)}), and would not take {len(strange)} that are stored ({_first(strange)}){hint}"
        )
    for tensor in needed.keys() & stored.keys():
        if tuple(needed[tensor]) != tuple(stored[tensor]):
            errors.append(f"{name}: {tensor} has shape {list(stored[tensor])}, config.json asks {list(needed[tensor])}")
    return sorted(errors)[:5]


def expected_tensors(config: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]] | None, tuple[str, ...]]:
    """Name and shape of every tensor that the architecture loads, and patterns of names that it ignores.

    None instead of the names for architectures whose files hold tensors in another layout than the model (as experts
    one by one), which transformers converts when it loads them.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if get_checkpoint_conversion_mapping(config["model_type"]):
        return None, ()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(_configuration(config), trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _unknown(config, error) from error
    ignored = tuple(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, ignored


def _raw(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _IRRELEVANT | _ELSEWHERE}


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _configuration(config).to_dict()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unknown(config, error) from error


def _configuration(config: Mapping[str, Any]):
    from transformers import AutoConfig

    values = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    return AutoConfig.for_model(config["model_type"], **values)


def _unknown(config: Mapping[str, Any], error: Exception) -> UserError:
    return UserError(
        f"transformers cannot make a causal language model of model_type {config.get('model_type')!r} from this "
        f"config.json ({type(error).__name__}: {shorten(str(error), 250)}). Code that comes with a model "
        "is never run: use a model whose architecture is part of transformers, with its makers' config.json."
    )


def _architecture(config: Mapping[str, Any]) -> str:
    return ", ".join(config.get("architectures") or [str(config.get("model_type"))])


def _follows(tensor: str, tied: bool, ignored: Iterable[str]) -> bool:
    """Whether a stored tensor follows from others, or the architecture ignores it on purpose."""
    return follows_from_others(tensor, tied) or any(re.search(pattern, tensor) for pattern in ignored)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) or "none"
