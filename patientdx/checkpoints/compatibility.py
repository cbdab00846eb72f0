"""Whether parents fit together tensor by tensor, judged before any weights are read."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from patientdx.checkpoints.identity import Source
from patientdx.checkpoints.tokenizer_files import read_tokens, some
from patientdx.core.errors import UserError

# Llama 3 and 3.1 name some of their never trained tokens differently; such rows mean nothing in either model.
_PLACEHOLDER = re.compile(r"<\|reserved_special_token_\d+\|>|<?\[?unused\d+\]?>?")

log = logging.getLogger(__name__)

_PLAIN = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def align(parents: Sequence[Source], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the tensors to merge, in the first parent's order.

    The parents may be views: with an adapter applied (`AdaptedCheckpoint`), or brought to one vocabulary
    (`VocabularyView`), without which theirs must agree.

    Rotary frequencies are left out (they follow from the configuration), and so is an output head that is
    stored although it is the embedding. Element types may differ; the merge computes in float64.

    Args:
        parents: two or more, base first.
        names: what messages call them, one each.

    Raises:
        UserError: architecture, tensors, shapes or vocabularies differ; one message lists every kind of
            difference.
    """
    for parent, name in zip(parents, names, strict=True):
        check_numbers(parent, name)
    tensors = [_merged_names(parent) for parent in parents]
    errors = [fault for parent, name in zip(parents, names, strict=True) for fault in _head_faults(parent, name)]
    speech = len({parent.config.get("vocab_size") for parent in parents}) > 1
    for other in range(1, len(parents)):
        pair, called = (parents[0], parents[other]), (names[0], names[other])
        errors += _config_faults(pair, called)
        errors += _name_faults((tensors[0], tensors[other]), called)
        errors += _shape_faults(pair, tensors[0], called)
        tokens = _token_faults(pair, called)
        errors, speech = errors + tokens, speech or bool(tokens)
    if errors:
        raise UserError(
            f"{' and '.join(names)} cannot be merged tensor by tensor:\n- "
            + "\n- ".join(errors)
            + "\nChoose parents of one family and size, with the same tokenizer and best a common ancestor."
            + (" Different vocabularies are brought to one by tokenizer=base, pivot or union." if speech else "")
        )
    for parent, name, kept in zip(parents, names, tensors, strict=True):
        if parent.tied and "lm_head.weight" in parent.tensors and "lm_head.weight" not in kept:
            log.info("%s stores an output head that equals its embedding; the embedding stands for both", name)
    return tuple(tensors[0])


def check_numbers(parent: Source, name: str, tensors: Iterable[str] | None = None) -> None:
    """UserError for weights that are no plain floating-point numbers: codes mean nothing without their scales.

    Args:
        parent: a checkpoint or a view of one; its headers are read.
        name: what messages call it.
        tensors: the names to look at; all by default.
    """
    kind = parent.config.get("quantization_config")
    if kind:
        method = kind.get("quant_method", "unknown") if isinstance(kind, dict) else "unknown"
        raise UserError(
            f"{name} is quantised ({method}), and quantised weights cannot be merged: give the model that it was "
            "made from, in bfloat16, float16 or float32."
        )
    for tensor in _merged_names(parent) if tensors is None else tensors:
        dtype = parent.tensors[tensor].dtype
        if dtype not in _PLAIN:
            raise UserError(
                f"{name} stores {tensor} as {str(dtype).removeprefix('torch.')}, which is no plain floating-point "
                "number: give a copy in bfloat16, float16 or float32."
            )


def _merged_names(parent: Source) -> dict[str, None]:
    """The parent's tensors, in order, without those that follow from others."""
    return {name: None for name in parent.tensors if not follows_from_others(name, parent.tied)}


def follows_from_others(name: str, tied: bool) -> bool:
    """Whether a stored tensor repeats the configuration or, where the head is tied, the embedding."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _head_faults(parent: Source, name: str) -> list[str]:
    """A head that is stored beside the embedding it should equal, and does not."""
    embedding = "model.embed_tokens.weight"
    if not parent.tied or "lm_head.weight" not in parent.tensors or embedding not in parent.tensors:
        return []
    head, rows = parent.tensors["lm_head.weight"], parent.tensors[embedding]
    if head.shape == rows.shape and torch.equal(parent.read("lm_head.weight"), parent.read(embedding)):
        return []
    return [
        f"{name} stores an lm_head.weight that differs from its embedding, but its config.json says "
        "tie_word_embeddings: set that to false in its config.json, or delete the tensor"
    ]


def _config_faults(pair: tuple[Source, Source], called: tuple[str, str]) -> list[str]:
    errors = []
    for key in (
        "model_type",
        "architectures",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ):
        first, second = (parent.config.get(key) for parent in pair)
        # Older configurations leave out what follows from the rest (head_dim); silence is no difference.
        if first is not None and second is not None and first != second:
            errors.append(f"{key}: {_plain(first)} in {called[0]}, {_plain(second)} in {called[1]}")
    if pair[0].tied != pair[1].tied:
        tied, untied = called if pair[0].tied else called[::-1]
        errors.append(f"output head: {tied} shares its embedding, {untied} has a head of its own")
    return errors


def _name_faults(tensors: tuple[dict[str, None], dict[str, None]], called: tuple[str, str]) -> list[str]:
    errors = []
    for mine, theirs, name in ((tensors[0], tensors[1], called[0]), (tensors[1], tensors[0], called[1])):
        only_here = [tensor for tensor in mine if tensor not in theirs]
        if only_here:
            errors.append(f"{_count(len(only_here), 'tensor')} only in {name}: {some(only_here)}")
    return errors


def _shape_faults(pair: tuple[Source, Source], tensors: Iterable[str], called: tuple[str, str]) -> list[str]:
    differing = []
    for tensor in tensors:
        if tensor in pair[1].tensors:
            first, second = (parent.tensors[tensor].shape for parent in pair)
            if first != second:
                differing.append(f"{tensor} {list(first)} and {list(second)}")
    if not differing:
        return []
    count = _count(len(differing), "tensor")
    return [f"{count} of other shape in {called[0]} and {called[1]}: {some(differing)}"]


def _token_faults(pair: tuple[Source, Source], called: tuple[str, str]) -> list[str]:
    """Ids that mean one token here and another there; ids without a row in an embedding do not count."""
    if _same_file(*(parent.folder / "tokenizer.json" for parent in pair)):
        return []
    first, second = (read_tokens(parent.folder).by_id for parent in pair)
    if not first or not second:
        return []  # a parent without a tokenizer is read through the other's
    rows = min(parent.config.get("vocab_size", 1 << 62) for parent in pair)
    differing, placeholders = [], 0
    for index in sorted(first.keys() | second.keys()):
        token, other_token = first.get(index), second.get(index)
        if token == other_token or index >= rows:
            continue
        if any(token is not None and _PLACEHOLDER.fullmatch(token) for token in (token, other_token)):
            placeholders += 1
        else:
            differing.append(f"{index} is {_quote(token)} and {_quote(other_token)}")
    if placeholders:
        log.info("%d placeholder tokens are named differently in %s and %s", placeholders, *called)
    if not differing:
        return []
    return [f"{_count(len(differing), 'token id')} differ in {called[0]} and {called[1]}: {some(differing)}"]


def _same_file(first: Path, second: Path) -> bool:
    if not (first.is_file() and second.is_file()) or first.stat().st_size != second.stat().st_size:
        return False
    return first.read_bytes() == second.read_bytes()


def _quote(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
