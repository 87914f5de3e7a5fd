"""Attention of decoded tokens over blocks on a CPU: each row and key-value head reads its own keys and values in place.

torch has no such kernel for CPUs; gathering the blocks first would copy the whole memory in use once a layer.

Shapes: R rows, H heads, G key-value heads, B blocks of the longest table, S slots, D width of a head.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from ray_jobs.inference.memory import Memory

if TYPE_CHECKING:
    from ray_jobs.inference.attention import Step


# Products of less than this, .1 ms, are not worth waking other threads for.
ONE_THREAD_UP_TO = 1_000_000


def write(memory: Memory, layer: int, slots_N: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> None:
    memory.write(layer, slots_N, k_NGD, v_NGD)


def attend(q_RHD: Tensor, step: "Step", layer: int, scaling: float, out_RHD: Tensor) -> None:
    """Fills `out_RHD`. Sums are fp32, whatever keys and values are kept as."""
    memory = step.memory
    if memory.key_scales is None or memory.value_scales is None:
        key_scales = value_scales = np.ones((0, 0), np.float32)
    else:
        key_scales, value_scales = memory.key_scales[layer].numpy(), memory.value_scales[layer].numpy()
    result = np.empty(q_RHD.shape, np.float32)
    kernel = _kernel(q_RHD.shape[1] // memory.keys[layer].shape[1], q_RHD.shape[2])
    arguments: tuple[Any, ...] = (
        np.ascontiguousarray(q_RHD.float().numpy()) * np.float32(scaling),
        _as_numpy(memory.keys[layer]),
        _as_numpy(memory.values[layer]),
        memory.keys[layer].dtype == torch.bfloat16,
        key_scales,
        value_scales,
        step.tables_RB.numpy(),
        step.lengths_R.numpy(),
        memory.block_size,
        result,
    )
    products = np.cumsum(arguments[7]) * q_RHD[0].numel()
    threads = min(torch.get_num_threads(), len(q_RHD)) if products[-1] > ONE_THREAD_UP_TO else 1
    # Each thread has rows of about as many products as the others.
    ends = np.searchsorted(products, products[-1] * np.arange(1, threads + 1) / threads, side="left") + 1
    shares = [(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True) if first < last]
    others = [_threads().submit(kernel, first, last, *arguments) for first, last in shares[1:]]
    kernel(*shares[0], *arguments)
    for other in others:
        other.result()
    out_RHD.copy_(torch.from_numpy(result))


def _as_numpy(cells_SGD: Tensor) -> np.ndarray:
    """numpy has no bf16: its bits."""
    return cells_SGD.view(torch.uint16).numpy() if cells_SGD.dtype == torch.bfloat16 else cells_SGD.numpy()


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that sleep: numba's own would spin beside torch's, and on two cores keep each other from working."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="attention")


@cache
def _kernel(group: int, width: int) -> Any:
    """Compiled for heads of one width, `group` to a key-value head: as constants they make it several times faster."""

    @numba.njit(nogil=True, fastmath=True, cache=True)
    def attend(  # type: ignore[no-untyped-def]
        first_row,
        last_row,
        q_RHD,
        keys_SGD,
        values_SGD,
        is_bf16,
        key_scales_SG,
        value_scales_SG,
        tables_RB,
        lengths_R,
        block_size,
        out_RHD,
    ):
        num_groups = keys_SGD.shape[1]
        has_scales = len(key_scales_SG) > 0
        for task in range(first_row * num_groups, last_row * num_groups):
            row, g = task // num_groups, task % num_groups
            length = lengths_R[row]
            q_hD = np.empty((group, width), np.float32)
            out_hD = np.zeros((group, width), np.float32)
            scores_hL = np.empty((group, length), np.float32)
            numbers_D = np.empty(width, np.float32)
            bits_D = numbers_D.view(np.uint32)
            for h in range(group):
                for d in range(width):
                    q_hD[h, d] = q_RHD[row, g * group + h, d]
            for place in range(-(-length // block_size)):
                first, base = place * block_size, np.int64(tables_RB[row, place]) * block_size
                for i in range(min(block_size, length - first)):
                    token, slot = first + i, base + i
                    if is_bf16:  # the upper half of fp32
                        for d in range(width):
                            bits_D[d] = np.uint32(keys_SGD[slot, g, d]) << np.uint32(16)
                    else:
                        for d in range(width):
                            numbers_D[d] = keys_SGD[slot, g, d]
                    scale = key_scales_SG[slot, g] if has_scales else np.float32(1)
                    for h in range(group):
                        total = np.float32(0)
                        for d in range(width):
                            total += q_hD[h, d] * numbers_D[d]
                        scores_hL[h, token] = total * scale
            for h in range(group):
                largest = scores_hL[h, 0]
                for token in range(length):
                    largest = max(largest, scores_hL[h, token])
                total = np.float32(0)
                for token in range(length):
                    weight = np.exp(scores_hL[h, token] - largest)
                    scores_hL[h, token] = weight
                    total += weight
                for token in range(length):
                    scores_hL[h, token] /= total
            for place in range(-(-length // block_size)):
                first, base = place * block_size, np.int64(tables_RB[row, place]) * block_size
                for i in range(min(block_size, length - first)):
                    token, slot = first + i, base + i
                    if is_bf16:
                        for d in range(width):
                            bits_D[d] = np.uint32(values_SGD[slot, g, d]) << np.uint32(16)
                    else:
                        for d in range(width):
                            numbers_D[d] = values_SGD[slot, g, d]
                    scale = value_scales_SG[slot, g] if has_scales else np.float32(1)
                    for h in range(group):
                        weight = scores_hL[h, token] * scale
                        for d in range(width):
                            out_hD[h, d] += weight * numbers_D[d]
            for h in range(group):
                for d in range(width):
                    out_RHD[row, g * group + h, d] = out_hD[h, d]

    return attend
