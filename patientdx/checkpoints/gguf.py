"""A GGUF file turned once into a Hugging Face folder: bfloat16 safetensors, configuration, tokenizer."""

import logging
import struct
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError

# What llama.cpp splits into single digits before the merges. transformers reads the merges and the added
# tokens from the file but not this split, so runs of blanks before a number would come out as other tokens
# than in training.
DIGIT_SPLITTERS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})

# Part of the converted folder's name: raise it when the conversion's result changes, and old folders are left
# alone.
CONVERSION = 1

log = logging.getLogger(__name__)


def convert_gguf(file: Path, into: Path) -> None:
    """Dequantise ``file`` and write it into the folder ``into``.

    Weights are unpacked in float32 and rounded once to bfloat16. Tied embeddings stay tied: the head is not
    stored a second time.

    Raises:
        UserError: the file is no GGUF file, its architecture cannot be read, or it is damaged.
    """
    _check_magic(file)
    log.info("converting %s to safetensors: once, some 20 seconds for 135 million parameters", file.name)
    # Imported here: transformers takes a second, and a cached conversion does not need it.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, LookupError, struct.error) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{file} cannot be read as a GGUF model, is it complete? ({reason})") from error
    _restore_digit_split(file, tokenizer)
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def _restore_digit_split(file: Path, tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    # gguf's own reader takes every token apart, which costs seconds.
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(file))
    if metadata.get("tokenizer.ggml.pre") not in DIGIT_SPLITTERS:
        return
    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _check_magic(file: Path) -> None:
    with file.open("rb") as handle:
        magic = handle.read(4)
    if magic != b"GGUF":
        raise UserError(f"{file} is not a GGUF file: it begins with {magic!r} instead of b'GGUF'.")
