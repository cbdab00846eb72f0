"""What a message advises helps, and what a command promises not to write is not written."""

import torch
from command_line import forked, small
from safetensors.torch import load_file, save_file


def merge(base, pivot, *more):
    return [*(word for word in small(base, pivot) if not word.startswith("task.")), "task=none", "lambda=0.5", *more]


def test_the_advice_for_what_float16_does_not_hold_helps(tmp_path, make_tiny):
    base, pivot = make_tiny(dtype=torch.float16), make_tiny(noise_seed=1, dtype=torch.float32)
    tensors = load_file(pivot / "model.safetensors")
    tensors["model.norm.weight"] *= 1e6
    save_file(tensors, pivot / "model.safetensors", metadata={"format": "pt"})
    words = merge(base, pivot, f"save={tmp_path / 'merged'}")
    failed, bfloat, single = forked(
        tmp_path, [words, [*words, "save_dtype=bfloat16"], [*words[:-1], "save=other", "save_dtype=float32"]]
    )
    assert failed.returncode == 2
    assert "choose save_dtype=bfloat16 or save_dtype=float32." in failed.stderr
    assert (bfloat.returncode, single.returncode) == (0, 0), bfloat.stderr + single.stderr


def test_a_dry_run_writes_nothing(tmp_path, tiny_base, tiny_pivot):
    work, cache, packed = tmp_path / "work", tmp_path / "cache", tmp_path / "small.gguf"
    work.mkdir()
    packed.write_bytes(b"GGUF" + bytes(1000))
    words = ["dry_run=true", f"cache={cache}"]
    plain, unconverted, scored = forked(
        work,
        [
            merge(tiny_base, tiny_pivot, *words),
            merge(packed, tiny_pivot, *words),
            [*small(tiny_base, tiny_pivot, "lambda=0.5"), *words, "tokenizer=union"],
        ],
    )
    assert plain.returncode == unconverted.returncode == scored.returncode == 0, plain.stderr + scored.stderr
    assert "writes" in plain.stdout
    assert f"small.gguf (0.00 GB) is converted first, once, to at most 0.00 GB in {cache}." in unconverted.stdout
    assert list(work.iterdir()) == []
    assert not cache.exists()
