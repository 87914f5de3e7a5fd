"""A matrix times one vector on a GPU, with what stands before and behind it in a decoder, in Triton.

One row's product does nothing but read the weights, so a kernel is as good as its share of the memory's bandwidth;
norm, bias, gate and residual are done on the way, as each would cost a launch of its own.

Shapes: N outputs, K inputs.
"""

# Triton's kernels have no types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor


def gemv(
    x_1K: Tensor,
    weight_NK: Tensor,
    *,
    norm_K: Tensor | None = None,
    eps: float = 0.0,
    bias_N: Tensor | None = None,
    gated: bool = False,
    residual_1N: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The product, [1, N].

    Args:
        norm_K: of an RMS norm over x before it.
        gated: the weight is [2N, K], gates above; the output is silu(gate) · up.
        residual_1N: added.
        dtype: of the output; x's by default.
    """
    rows, width = weight_NK.shape
    count = rows // 2 if gated else rows
    out_1N = torch.empty(1, count, dtype=dtype or x_1K.dtype, device=x_1K.device)
    _gemv[lambda options: (triton.cdiv(count, options["BLOCK_N"]),)](
        x_1K,
        weight_NK,
        x_1K if norm_K is None else norm_K,
        x_1K if bias_N is None else bias_N,
        x_1K if residual_1N is None else residual_1N,
        out_1N,
        count,
        eps,
        K=width,
        NORM=norm_K is not None,
        BIAS=bias_N is not None,
        GATED=gated,
        RESIDUAL=residual_1N is not None,
    )
    return out_1N


def _options() -> list[triton.Config]:
    shapes = (1, 1024, 2), (1, 2048, 4), (2, 512, 2), (2, 1024, 4), (2, 2048, 8), (4, 512, 4), (4, 1024, 8), (8, 256, 4)
    return [
        triton.Config({"BLOCK_N": rows, "BLOCK_K": width}, num_warps=warps, num_stages=1)
        for rows, width, warps in shapes
    ]


@triton.autotune(_options(), key=["count", "K", "GATED"])
@triton.jit
def _gemv(
    x_ptr,
    weight_ptr,
    norm_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    count,
    eps,
    K: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there_n = n < count
    rows_n = n.to(tl.int64) * K
    sum_nk = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    up_nk = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares_k = tl.zeros([BLOCK_K], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        there_nk = there_n[:, None] & (k < K)[None, :]
        w_nk = tl.load(
            weight_ptr + rows_n[:, None] + k[None, :], mask=there_nk, other=0.0, eviction_policy="evict_first"
        )
        x_k = tl.load(x_ptr + k, mask=k < K, other=0.0).to(tl.float32)
        if NORM:
            squares_k += x_k * x_k
            x_k *= tl.load(norm_ptr + k, mask=k < K, other=0.0).to(tl.float32)
        sum_nk += w_nk.to(tl.float32) * x_k[None, :]
        if GATED:
            u_nk = tl.load(
                weight_ptr + (rows_n + count.to(tl.int64) * K)[:, None] + k[None, :],
                mask=there_nk,
                other=0.0,
                eviction_policy="evict_first",
            )
            up_nk += u_nk.to(tl.float32) * x_k[None, :]
    factor = 1.0
    if NORM:
        factor = tl.rsqrt(tl.sum(squares_k, axis=0) / K + eps)
    out_n = tl.sum(sum_nk, axis=1) * factor
    if BIAS:
        out_n += tl.load(bias_ptr + n, mask=there_n, other=0.0).to(tl.float32)
    if GATED:
        out_n = out_n * tl.sigmoid(out_n) * (tl.sum(up_nk, axis=1) * factor)
    if RESIDUAL:
        out_n += tl.load(residual_ptr + n, mask=there_n, other=0.0).to(tl.float32)
    tl.store(out_ptr + n, out_n.to(out_ptr.dtype.element_ty), mask=there_n)
