"""Linear layers of a decoder in float8, by torchao: products in e4m3 (gradients in e5m2) with a scale for each tensor.

What a layer multiplies is cast as it is used (Micikevicius et al. 2022, arXiv:2209.05433): weights stay in their own
type, and a checkpoint is that of the same model without float8. The head is not cast: its loss is computed apart.
"""

from dataclasses import replace

import torch
from torch import nn

MULTIPLE = 16
"""torch._scaled_mm takes matrices whose sides are multiples of this."""
CAPABILITY = (8, 9)
"""The first of NVIDIA's with float8 products: Ada's; Hopper's is (9, 0)."""


def to_float8(layer: nn.Module, device: torch.device) -> None:
    """Replaces the layer's linear modules whose sides fit, in place. On a CPU the products are emulated, for tests.

    Raises:
        ValueError: torchao is not installed, or the GPU has no float8.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise ValueError("dtype fp8 needs torchao: pip install 'headrace[float8]'") from error
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} has no float8 products (Ada and Hopper were the first to): set "
            "dtype to bf16"
        )
    config = replace(Float8LinearConfig.from_recipe_name("tensorwise"), emulate=device.type == "cpu")
    convert_to_float8_training(layer, module_filter_fn=lambda module, name: _fits(module), config=config)


def _fits(module: nn.Module) -> bool:
    assert isinstance(module, nn.Linear)  # torchao asks for no others
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0
