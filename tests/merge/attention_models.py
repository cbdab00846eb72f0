"""Small random language models whose heads can be put in another order, and the merge of two of them."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from patientdx.merge.curve import evaluate
from patientdx.merge.hierarchical import hierarchical

TOKENS = torch.arange(3, 25).view(2, 11)
SHAPES = {  # attention of width 48: plain, grouped, and grouped with heads wider than width / heads
    "mha": {"num_attention_heads": 6, "num_key_value_heads": 6},
    "gqa": {"num_attention_heads": 6, "num_key_value_heads": 2},
    "wide": {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 12},
}
ATTENTION = "model.layers.0.self_attn."


def model(shape: str, seed: int, kind=LlamaConfig, **rest):
    """A random model in float32; biases and norms are random too."""
    config = kind(
        vocab_size=40, hidden_size=48, intermediate_size=40, num_hidden_layers=2, max_position_embeddings=64,
        tie_word_embeddings=True, **SHAPES[shape], **rest,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for weight in made.parameters():
            torch.nn.init.normal_(weight, float(weight.dim() == 1), 0.2)
    return made


def weights(of) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in of.named_parameters()}


def logits(of, tensors) -> torch.Tensor:
    of.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        return of(TOKENS).logits


def groups_of(tensors):
    """As a recipe hands them over: each layer together, all else alone."""
    layers = {}
    for name in tensors:
        layer = name.split(".")[2] if ".layers." in name else name
        layers.setdefault(layer, []).append(name)
    return list(layers.values())


def curves_of(a, b, ancestor, config, **numbers):
    found = {}
    for names in groups_of(a):
        parents = [{name: parent[name] for name in names} for parent in (a, b)]
        given = {name: ancestor[name] for name in names}
        found |= hierarchical(parents, ancestor=given, config=config.to_dict(), **numbers)
    return found


def points(curves, like):
    return {name: evaluate(curve, 0.0, torch.empty_like(like[name])) for name, curve in curves.items()}


def merged(a, b, ancestor, config, **numbers):
    return points(curves_of(a, b, ancestor, config, **numbers), a)


def reordered(tensors, config, seed=0):
    """The same model with groups, and query heads inside them, in a random order in each layer; written anew."""
    generator, moved, orders = torch.Generator().manual_seed(seed), dict(tensors), {}
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    each, size = heads // groups, getattr(config, "head_dim", None) or config.hidden_size // heads
    for layer in range(config.num_hidden_layers):
        group_order = torch.randperm(groups, generator=generator)
        head_order = torch.cat([g * each + torch.randperm(each, generator=generator) for g in group_order])
        rows = {
            "q": (head_order[:, None] * size + torch.arange(size)).flatten(),
            "k": (group_order[:, None] * size + torch.arange(size)).flatten(),
        }
        rows["v"], orders[layer] = rows["k"], (head_order, group_order)
        for name, tensor in tensors.items():
            if f"layers.{layer}.self_attn." in name and "norm" not in name:
                part = name.split(".")[4][0]
                if part == "o" and name.endswith("weight"):
                    moved[name] = tensor[:, rows["q"]].contiguous()
                elif part != "o":
                    moved[name] = tensor[rows[part]].contiguous()
    return moved, orders


def near(tensors, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    return {n: t + spread * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def close(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def bits(tensors):
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}
