"""What the loader gives, as tensors on a rank's device.

Shape suffixes: B sequences of a micro-batch, C of a pack, L tokens of a sequence.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ray_jobs.model.loss import IGNORED

if TYPE_CHECKING:
    from ray_jobs.tokenizer.packing import PackedBatch


def on_device(
    batch: "np.ndarray | PackedBatch", num_tokens: int, device: torch.device, ignored: int = 0
) -> tuple[Tensor, ...]:
    """inputs_BL and targets_BL, and positions_BL where documents are packed. The first `ignored` sequences' targets are
    not scored."""
    if isinstance(batch, np.ndarray):
        arrays: tuple[np.ndarray, ...] = (batch,)
    else:
        arrays = (batch.inputs_CL, batch.targets_CL, batch.positions_CL)
    largest = max(array.max() for array in arrays[:2])
    if largest >= num_tokens:
        raise ValueError(
            f"the training data hold token {largest}, but the tokenizer has {num_tokens} tokens: train on tokens that "
            "this tokenizer made"
        )
    tensors = tuple(torch.from_numpy(array) for array in arrays)
    if device.type == "cuda":  # from memory that is not pinned, the copies would wait for all that the GPU has to do
        tensors = tuple(tensor.pin_memory() for tensor in tensors)
    tensors = tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
    inputs_BL, targets_BL, *rest = (tensors[0][:, :-1], tensors[0][:, 1:]) if len(tensors) == 1 else tensors
    if ignored:
        targets_BL = targets_BL.clone()
        targets_BL[:ignored] = IGNORED
    return inputs_BL, targets_BL, *rest
