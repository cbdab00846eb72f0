"""Models whose linear layers have 8-bit or 4-bit weights, made by transformers' quantiser of torchao, for scoring.

int8: a scale for each row of a weight. int4: 16 values, a scale and offset for each 32 inputs; kernels of torchao that
pack two of them into a byte need a GPU of certain kinds, so each takes a byte here, and int4 shows what four bits do to
answers, not what they save. Embedding, output head and everything between the layers stay in floating point, as is
transformers' default; layers compute in the model's dtype.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patientdx.core.errors import UserError
from patientdx.lm.load import named_errors, storage

GROUP = 32  # inputs that share a scale in int4


class Blank:
    """The model in `folder` (or of `config` instead) without weights; `quantised` makes models of it.

    names: of the checkpoint's tensors. UserError where they do not fill the model, or its layers cannot be `load`.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        *,
        load: str,
        dtype: torch.dtype,
        device: torch.device,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        for name in ("torchao", "torch.utils._pytree"):  # warn of kernels for GPUs and of torch's future at import
            logging.getLogger(name).setLevel(logging.ERROR)
        from transformers import AutoConfig, AutoModelForCausalLM

        self.load, self.dtype, self.device = load, dtype, device
        with named_errors(folder, "no model that can be built", "It is built as config.json describes it"):
            computed = AutoConfig.from_pretrained(folder) if config is None else AutoConfig.for_model(**config)
            self.config = deepcopy(computed)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(computed, dtype=dtype, trust_remote_code=False)
        self.kind: Any = type(model)
        self.shapes = {name: tensor.shape for name, tensor in storage(model, names).items()}
        head = model.get_output_embeddings()
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
        if not layers:
            raise UserError(
                f"load={load}: {self.kind.__name__} has no linear layers of torch, which alone are quantised. Leave "
                "load out."
            )
        widths = sorted({layer.in_features for layer in layers if layer.in_features % GROUP})
        if load == "int4" and widths:
            raise UserError(
                f"load=int4: {self.kind.__name__} has linear layers of {widths[0]} inputs, and a scale is for {GROUP} "
                "of them. Use load=int8."
            )

    def quantised(self, write: Callable[[str, Tensor], Tensor]) -> nn.Module:
        """A model in evaluation mode with the weights that `write` gives.

        write: of a tensor's name and an empty tensor of its shape, in the model's dtype and on its device, which it
        fills and returns. It is called for one tensor after another, each of which is quantised before the next: in
        floating point the model is never in memory as one.
        """
        from transformers import TorchAoConfig

        weights = {name: _Deferred(self._empty, write, name) for name in self.shapes}
        model = self.kind.from_pretrained(
            None,
            config=deepcopy(self.config),
            state_dict=weights,
            quantization_config=TorchAoConfig(_scheme(self.load)),
            dtype=self.dtype,
            device_map={"": self.device},
        )
        return model.eval().requires_grad_(False)

    def _empty(self, name: str) -> Tensor:
        return torch.empty(self.shapes[name], dtype=self.dtype, device=self.device)


class _Deferred:
    """A tensor that is made when transformers reads it, which it does by slicing, as with tensors in safetensors."""

    def __init__(self, empty: Callable[[str], Tensor], write: Callable[[str, Tensor], Tensor], name: str) -> None:
        self._empty, self._write, self._name = empty, write, name

    def __getitem__(self, index: Any) -> Tensor:
        return self._write(self._name, self._empty(self._name))[index]


def _scheme(load: str) -> Any:
    """torchao's configuration of a precision."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig  # pyright: ignore
    from torchao.quantization.granularity import PerGroup  # pyright: ignore

    if load == "int8":
        return Int8WeightOnlyConfig()
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))  # pyright: ignore
