"""Hierarchical Cosine-OT-LERP: heads aligned by optimal transport, then joined by the deltas' cosine.

After arXiv 2511.13373. Its text gives w = max(0, cos) and the alignment of attention by transport; what it leaves open
(the atoms, the costs, where the weight goes) is our reading, stated at each function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patientdx.merge.curve import BLOCK, Curve
from patientdx.merge.gram import gram
from patientdx.merge.method import merge_method
from patientdx.merge.schedule import layer_of
from patientdx.merge.task_vectors import check_choice
from patientdx.merge.transport import Alignment, align

_CHOICES = {
    "alignment": ("hard", "soft", "none"),
    "weighting": ("literal", "normalised"),
    "order": ("base_first", "pivot_first"),
    "scope": ("tensor", "block"),
    "cosine": ("parents", "aligned"),
}
_PROJECTIONS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")
# By whose heads each tensor of an attention is divided, and along which axis; norms of one head are shared by all.
_AXES = {
    **dict.fromkeys(("q_proj.weight", "q_proj.bias", "q_norm.weight"), ("heads", 0)),
    **dict.fromkeys(("k_proj.weight", "k_proj.bias", "k_norm.weight"), ("groups", 0)),
    **dict.fromkeys(("v_proj.weight", "v_proj.bias"), ("groups", 0)),
    "o_proj.weight": ("heads", 1),
    "o_proj.bias": None,
}
_SHARED = ("q_norm.weight", "k_norm.weight")
_FUSED = re.compile(r"qkv|query_key_value|c_attn|in_proj|kv_proj|q_a_proj|kv_a_proj", re.IGNORECASE)


@merge_method(lambda_range=None, scope="layer")  # the weight follows from the parents; heads are moved within a layer
@torch.no_grad()
def hierarchical(
    parents: Sequence[Mapping[str, Tensor]],
    *,
    ancestor: Mapping[str, Tensor],
    config: Mapping[str, Any],
    alignment: str = "hard",
    weighting: str = "literal",
    order: str = "base_first",
    scope: str = "tensor",
    cosine: str = "parents",
    tau: float = 0.01,
    epsilon: float = 0.05,
    iterations: int = 200,
    tolerance: float = 1e-6,
) -> dict[str, Curve]:
    """The merged tensors of one layer, or of one tensor outside the layers, by name; no λ moves them.

    With A the base and B the pivot (`order` pivot_first: the other way round), W0 the ancestor:

        w = max(0, <A - W0, B - W0> / (|A - W0| |B - W0|))
        literal:  m = (1 - w) A + w B~        normalised:  m = (A + w B~) / (1 + w)

    B~ is B with its attention heads aligned to A's (see `_transport`): `alignment` hard moves whole heads, so B~
    computes what B does; soft mixes them, so it does not; none leaves them. w is taken for each tensor, or with `scope`
    block for all such tensors of the layer together, on B as it is, which is the paper's formula; with `cosine` aligned
    on B~, so that the order of B's heads cannot change the merge (on B it makes w of attention small). Where A = W0 B~
    is taken, where B = W0 A. Norms, and all outside the layers, are the plain mean.
    parents, ancestor: tensors of one layer, any floating dtype; config: the base's config.json.
    `tau`, `epsilon`, `iterations`, `tolerance`: as in `transport.align`.
    Raises ValueError for a word that is none of the above, other than two parents, tensors that do not fit together,
    and an attention that is not made of q_proj, k_proj, v_proj and o_proj in the sizes of the config.
    """
    choices = {"alignment": alignment, "weighting": weighting, "order": order, "scope": scope, "cosine": cosine}
    for name, choice in choices.items():
        check_choice(choice, name, _CHOICES[name])
    _check_fit(parents, ancestor)
    first, second = parents if order == "base_first" else (parents[1], parents[0])
    weighed = [name for name in first if layer_of(name) is not None and "norm" not in name]
    products = {name: _products(name, first, second, ancestor) for name in weighed}
    aligned, diagnostics = {}, {}
    if alignment != "none":
        solve = partial(align, tau=tau, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
        aligned, diagnostics = _aligned(first, second, config, partial(solve, hard=alignment == "hard"))
    if cosine == "aligned":
        products |= {name: _products(name, first, aligned, ancestor) for name in weighed if name in aligned}
    if scope == "block":
        aa, bb, ab = (sum(parts) for parts in zip(*products.values(), strict=True)) if products else (0.0, 0.0, 0.0)
        products = dict.fromkeys(products, (aa, bb, ab))
    curves = {}
    for name, tensor in first.items():
        pair, rule = _coefficients(products.get(name), weighting)
        terms = (tensor, aligned.get(name, second[name]))
        curves[name] = Curve(terms, lambda _, pair=pair: pair, rule | diagnostics.get(name, {}))
    return curves


def _coefficients(products: tuple[float, float, float] | None, weighting: str) -> tuple[tuple[float, float], dict]:
    """Coefficients of A and B~, and their diagnostics; without `products` the plain mean."""
    if products is None:
        return (0.5, 0.5), {"branch": "mean"}
    aa, bb, ab = products
    if not bb:  # where both parents equal W0 either is right
        return (1.0, 0.0), {"branch": "second is the ancestor", "w": 0.0, "cosine": 0.0}
    if not aa:
        return (0.0, 1.0), {"branch": "first is the ancestor", "w": 1.0, "cosine": 0.0}
    cosine = max(-1.0, min(1.0, ab / (aa**0.5 * bb**0.5)))
    w = max(0.0, cosine)
    coefficients = (1 - w, w) if weighting == "literal" else (1 / (1 + w), w / (1 + w))
    return coefficients, {"branch": "cosine", "w": w, "cosine": cosine}


def _products(name: str, *models: Mapping[str, Tensor]) -> tuple[float, float, float]:
    """<dA, dA>, <dB, dB> and <dA, dB> of A's and B's differences from the ancestor, the last of the three models."""
    a, b, ancestor = (model[name] for model in models)
    (aa, ab), (_, bb) = gram((a, b), ancestor)[0].tolist()
    if not math.isfinite(aa + bb + ab):
        raise ValueError(f"merge=hierarchical compares finite weights: {name} holds NaN or infinity in some parent")
    return aa, bb, ab


def _aligned(first, second, config, solve) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """The second parent's attention tensors in the first one's order of heads, and the diagnostics of each tensor."""
    fused = [name for name in first if layer_of(name) is not None and _FUSED.search(name)]
    if fused:
        raise ValueError(
            f"merge=hierarchical moves attention heads, but {fused[0]} holds several projections in one: its heads "
            "cannot be told apart here. Set merge.alignment=none, or use a method that sees tensors only (merge=slerp)"
        )
    tensors, diagnostics = {}, {}
    for prefix in dict.fromkeys(name.removesuffix(end) for name in first for end in _PROJECTIONS if name.endswith(end)):
        inside = {name.removeprefix(prefix): name for name in first if name.startswith(prefix)}
        heads, groups = _head_counts(prefix, {end: first[name] for end, name in inside.items()}, config)
        views = [_views({end: model[prefix + end] for end in _PROJECTIONS}, heads, groups) for model in (first, second)]
        matrices, costs = _transport(views[0], views[1], solve)
        for end, name in inside.items():
            diagnostics[name] = dict(costs)
            axes = _AXES[end]
            if axes is not None and not (end in _SHARED and first[name].numel() == _head_size(config)):
                atoms, axis = axes
                tensors[name] = _align_tensor(second[name], matrices[atoms], axis)
                diagnostics[name]["permutation"] = " ".join(str(i) for i in matrices[atoms].argmax(1).tolist())
    return tensors, diagnostics


def _transport(a: Mapping[str, Tensor], b: Mapping[str, Tensor], solve) -> tuple[dict[str, Tensor], dict]:
    """Matrices (heads, heads) and (groups, groups) that bring B's heads into A's order, and their costs.

    A key/value group is moved with its query heads and their columns of W_O; then query heads inside each
    group. Dimensions inside a head keep their order, which rotary positions fix. The cost of two groups (of two query
    heads) is the squared distance of their rows of W_K, W_V, W_Q and columns of W_O (of W_Q, W_O), each of the four
    divided by its mean Frobenius norm over its model's groups (over the group's heads).
    """
    sums = {part: _inner_products(a[part], b[part]) for part in a}
    heads, groups = len(sums["q"][0]), len(sums["k"][0])
    per_group = heads // groups
    outer = solve(_cost([sums["k"], sums["v"], *(_of_groups(sums[part], groups) for part in "qo")]))
    matrix = torch.kron(outer.matrix, torch.eye(per_group, dtype=torch.float64))
    inner: list[Alignment] = []
    if per_group > 1:
        aligned_sums = [(aa, ab @ matrix.T, matrix @ bb @ matrix.T) for aa, ab, bb in (sums["q"], sums["o"])]
        for group in range(groups):
            members = slice(group * per_group, (group + 1) * per_group)
            pairs = [(aa[members], ab[members, members], bb[members, members]) for aa, ab, bb in aligned_sums]
            inner.append(solve(_cost(pairs)))
        matrix = torch.block_diag(*(alignment.matrix for alignment in inner)) @ matrix
    diagnostics = {
        "accepted": "yes" if outer.accepted else "no",
        "cost_before": outer.before,
        "cost_after": outer.after,
        "groups_reordered_inside": float(sum(alignment.accepted for alignment in inner)),
    }
    return {"heads": matrix, "groups": outer.matrix}, diagnostics


def _cost(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Squared distances (n, n) of the features of A's and B's atoms, from the inner products of each part."""
    total = torch.zeros((), dtype=torch.float64)
    for aa, ab, bb in parts:
        bb = bb.diagonal()
        # A part that is zero throughout has no norm to divide by.
        mine, theirs = (norms.clamp(min=0).sqrt().mean().item() or 1.0 for norms in (aa, bb))
        total = total + aa[:, None] / mine**2 + bb / theirs**2 - ab * (2 / (mine * theirs))
    return total.clamp(min=0)  # rounding can leave the distance of equals just below 0


def _of_groups(sums: tuple[Tensor, Tensor, Tensor], groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The inner products of whole groups, from those of their heads: heads of the same index in both are paired."""
    aa, *pairs = sums
    split = (groups, len(aa) // groups)
    ab, bb = (pair.view(split + split).diagonal(dim1=1, dim2=3).sum(-1) for pair in pairs)
    return aa.view(split).sum(1), ab, bb


def _inner_products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """<a_i, a_i> (n,), <a_i, b_j> and <b_i, b_j> (n, n), float64, of views (n, length, width), a block at a time."""
    count, length, width = a.shape
    aa, ab, bb = (torch.zeros(size, dtype=torch.float64) for size in ((count,), (count, count), (count, count)))
    step = max(1, BLOCK // (count * width))
    for start in range(0, length, step):
        x, y = (view[:, start : start + step].movedim(1, 0).double() for view in (a, b))
        # Batched: a product with one long inner axis is cut up by the number of threads, and its sum with it.
        aa += x.square().sum((0, 2))
        ab += torch.bmm(x, y.mT).sum(0)
        bb += torch.bmm(y, y.mT).sum(0)
    return aa, ab, bb


def _views(weights: Mapping[str, Tensor], heads: int, groups: int) -> dict[str, Tensor]:
    """The four projections (atoms, length, width): rows of W_Q, W_K, W_V by head, W_O's columns; nothing is copied."""
    q, k, v, o = (weights[end] for end in _PROJECTIONS)
    rows = {"q": q.unflatten(0, (heads, -1)), "k": k.unflatten(0, (groups, -1)), "v": v.unflatten(0, (groups, -1))}
    return rows | {"o": o.unflatten(1, (heads, -1)).movedim(1, 0)}


def _align_tensor(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """The tensor with its atoms along `axis` mixed by `matrix`: itself for the identity, an exact copy for any other
    permutation, else computed in float64 and stored in float32 (float64 if the tensor is)."""
    count = len(matrix)
    order = matrix.argmax(1)
    if torch.equal(matrix, torch.eye(count, dtype=torch.float64)):
        return tensor
    atoms = tensor.unflatten(axis, (count, -1))
    if torch.equal(matrix, torch.eye(count, dtype=torch.float64)[order]):
        return atoms.index_select(axis, order).flatten(axis, axis + 1)
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    mixed = torch.empty(atoms.shape, dtype=dtype)
    source, target = atoms.movedim(axis, 0), mixed.movedim(axis, 0)
    step = max(1, BLOCK // max(1, source[:, :1].numel()))
    for start in range(0, source.shape[1], step):
        block = slice(start, start + step)
        target[:, block] = torch.tensordot(matrix, source[:, block].double(), 1)
    return mixed.flatten(axis, axis + 1)


def _head_size(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _head_counts(prefix: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[int, int]:
    """Query heads and key/value groups; ValueError for an attention whose heads cannot be moved safely."""
    absent = [end for end in _PROJECTIONS if end not in tensors]
    unknown = [end for end in tensors if end not in _AXES]
    if absent or unknown:
        odd = f"lacks {absent[0]}" if absent else f"holds {unknown[0]}, which may belong to single heads"
        raise ValueError(
            f"merge=hierarchical moves the heads of q_proj, k_proj, v_proj and o_proj; {prefix.rstrip('.')} {odd}. "
            "Set merge.alignment=none, or use a method that sees tensors only (merge=slerp)"
        )
    if not config.get("num_attention_heads") or not (config.get("head_dim") or config.get("hidden_size")):
        raise ValueError("merge=hierarchical needs num_attention_heads and head_dim or hidden_size in config.json")
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    sizes = [heads * _head_size(config), *[groups * _head_size(config)] * 2]
    rows = [tensors[end].shape[0] for end in _PROJECTIONS[:3]]
    if heads % groups or rows != sizes or tensors["o_proj.weight"].shape[1] != sizes[0]:
        raise ValueError(
            f"config.json says {heads} heads in {groups} groups of head size {_head_size(config)}; {prefix.rstrip('.')}"
            f" has {rows[0]}, {rows[1]} and {rows[2]} rows of queries, keys and values and "
            f"{tensors['o_proj.weight'].shape[1]} columns of output: give parents whose config.json fits their weights"
        )
    return heads, groups


def _check_fit(parents: Sequence[Mapping[str, Tensor]], ancestor: Mapping[str, Tensor]) -> None:
    if len(parents) != 2:
        raise ValueError(f"merge=hierarchical joins exactly two parents, got {len(parents)}")
    for name, tensor in parents[0].items():
        for called, other in (("pivot", parents[1]), ("ancestor", ancestor)):
            if name not in other:
                raise ValueError(f"merge=hierarchical: the {called} has no tensor {name}")
            if other[name].shape != tensor.shape:
                raise ValueError(
                    f"merge=hierarchical joins tensors of one shape: {name} is {tuple(tensor.shape)} in the base and "
                    f"{tuple(other[name].shape)} in the {called}"
                )
