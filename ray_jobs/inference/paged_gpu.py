"""Writing to blocks, and attention of decoded tokens over them, on a GPU, in Triton.

Each program reads a part of a sequence for the heads of one key-value head, with the softmax online (Dao et al. 2022,
arXiv:2205.14135); a second kernel joins the parts by their log-sums ("flash-decoding", Dao et al. 2023), so that one
long sequence keeps all of the GPU busy. The grid does not depend on lengths, so that a CUDA graph serves all of them.

Shapes: R rows, H heads, G key-value heads, D width of a head, P parts of a sequence.
"""

# Triton's kernels have no types.
# mypy: disable-error-code="no-untyped-def"

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from ray_jobs.inference.memory import Memory

if TYPE_CHECKING:
    from ray_jobs.inference.attention import Step

TILE = 64  # tokens read at once: 16 kB of keys of width 128 in bf16
MIN_ROWS = LEAST_WIDTH = 16  # of a tensor core's product
PROGRAMS_PER_PROCESSOR = 4
MAX_PARTS = 32


def write(memory: Memory, layer: int, slots_N: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> None:
    """New keys and values to their slots."""
    count, groups, width = k_NGD.shape
    scales = _scales(memory, layer)
    assert k_NGD.stride(2) == v_NGD.stride(2) == 1
    _write[(count, groups)](
        k_NGD,
        v_NGD,
        memory.keys[layer],
        memory.values[layer],
        *scales,
        slots_N,
        k_NGD.stride(0),
        k_NGD.stride(1),
        v_NGD.stride(0),
        v_NGD.stride(1),
        groups,
        D=width,
        BLOCK_D=triton.next_power_of_2(width),
        INT8=memory.key_scales is not None,
        num_warps=1,
    )


def turned(
    qkv_RO: Tensor,
    cos_RD: Tensor,
    sin_RD: Tensor,
    memory: Memory,
    layer: int,
    slots_R: Tensor,
    heads: int,
    norms_D: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Queries [R, H, D] out of queries, keys and values of a token's heads side by side, with keys and values written;
    queries and keys are normed where there are `norms_D`, and turned by their positions."""
    rows = len(qkv_RO)
    groups, width = memory.keys[layer].shape[1:]
    q_RHD = torch.empty(rows, heads, width, dtype=qkv_RO.dtype, device=qkv_RO.device)
    assert qkv_RO.stride(1) == 1 and cos_RD.is_contiguous() and sin_RD.is_contiguous()
    _turn[(rows, heads + 2 * groups)](
        qkv_RO,
        cos_RD,
        sin_RD,
        *(norms_D or (qkv_RO, qkv_RO)),
        q_RHD,
        memory.keys[layer],
        memory.values[layer],
        *_scales(memory, layer),
        slots_R,
        qkv_RO.stride(0),
        heads,
        groups,
        eps,
        D=width,
        BLOCK_D=triton.next_power_of_2(width),
        NORMS=norms_D is not None,
        INT8=memory.key_scales is not None,
        num_warps=1,
    )
    return q_RHD


def attend(q_RHD: Tensor, step: "Step", layer: int, scaling: float, out_RHD: Tensor) -> None:
    """Fills `out_RHD`, which is contiguous."""
    memory = step.memory
    rows, heads, width = q_RHD.shape
    groups = memory.keys[layer].shape[1]
    group = heads // groups
    parts = _num_parts(rows * groups, step.tables_RB.shape[1] * memory.block_size, q_RHD.device)
    assert q_RHD.stride(2) == 1 and out_RHD.is_contiguous()
    if parts == 1:
        partial, sums = out_RHD, out_RHD
    else:
        partial = torch.empty(rows, heads, parts, width, dtype=torch.float32, device=q_RHD.device)
        sums = torch.empty(rows, heads, parts, dtype=torch.float32, device=q_RHD.device)
    block_d = max(LEAST_WIDTH, triton.next_power_of_2(width))
    _attend[(rows, groups, parts)](
        q_RHD,
        memory.keys[layer],
        memory.values[layer],
        *_scales(memory, layer),
        step.tables_RB,
        step.lengths_R,
        partial,
        sums,
        q_RHD.stride(0),
        q_RHD.stride(1),
        step.tables_RB.stride(0),
        groups,
        scaling * 1.4426950408889634,  # 2^x is what the hardware computes
        GROUP=group,
        HEADS=max(MIN_ROWS, triton.next_power_of_2(group)),
        D=width,
        BLOCK_D=block_d,
        BLOCK_SIZE=memory.block_size,
        TILE=TILE,
        PARTS=parts,
        INT8=memory.key_scales is not None,
        num_warps=4,
        num_stages=2,
    )
    if parts > 1:
        _join[(rows, heads)](partial, sums, out_RHD, heads, D=width, BLOCK_D=block_d, PARTS=parts, num_warps=1)


def _scales(memory: Memory, layer: int) -> tuple[Tensor, Tensor]:
    if memory.key_scales is None or memory.value_scales is None:
        return memory.keys[layer], memory.values[layer]  # not read
    return memory.key_scales[layer], memory.value_scales[layer]


def _num_parts(programs: int, longest: int, device: torch.device) -> int:
    """As many as fill the GPU, none shorter than a tile; a power of two, so that few kernels are compiled."""
    wanted = PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count // programs
    most = min(MAX_PARTS, max(1, longest // TILE))
    return 1 << max(0, min(wanted, most).bit_length() - 1)


@triton.jit
def _write(
    k_ptr,
    v_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    slots_ptr,
    k_stride_n,
    k_stride_g,
    v_stride_n,
    v_stride_g,
    groups,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INT8: tl.constexpr,
):
    n, g = tl.program_id(0), tl.program_id(1)
    cell = tl.load(slots_ptr + n).to(tl.int64) * groups + g
    d = tl.arange(0, BLOCK_D)
    k = tl.load(k_ptr + n * k_stride_n + g * k_stride_g + d, mask=d < D, other=0.0)
    v = tl.load(v_ptr + n * v_stride_n + g * v_stride_g + d, mask=d < D, other=0.0)
    if INT8:
        k, k_scale = _rounded(k)
        v, v_scale = _rounded(v)
        tl.store(key_scales_ptr + cell, k_scale)
        tl.store(value_scales_ptr + cell, v_scale)
    tl.store(keys_ptr + cell * D + d, k, mask=d < D)
    tl.store(values_ptr + cell * D + d, v, mask=d < D)


@triton.jit
def _turn(
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    q_norm_ptr,
    k_norm_ptr,
    q_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    slots_ptr,
    qkv_stride,
    heads,
    groups,
    eps,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NORMS: tl.constexpr,
    INT8: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    is_q, is_v = head < heads, head >= heads + groups
    is_k = (head >= heads) & (head < heads + groups)
    d = tl.arange(0, BLOCK_D)
    there = d < D
    half = tl.where(d < D // 2, d + D // 2, d - D // 2)  # the place that d is turned with
    x_ptr = qkv_ptr + row * qkv_stride + head * D
    x = tl.load(x_ptr + d, mask=there, other=0.0).to(tl.float32)
    other = tl.load(x_ptr + half, mask=there, other=0.0).to(tl.float32)
    if NORMS:
        factor = tl.where(is_v, 1.0, tl.rsqrt(tl.sum(x * x, axis=0) / D + eps))
        weight = tl.load(q_norm_ptr + d, mask=there & is_q, other=0.0).to(tl.float32)
        weight += tl.load(k_norm_ptr + d, mask=there & is_k, other=0.0).to(tl.float32)
        other_weight = tl.load(q_norm_ptr + half, mask=there & is_q, other=0.0).to(tl.float32)
        other_weight += tl.load(k_norm_ptr + half, mask=there & is_k, other=0.0).to(tl.float32)
        x *= factor * tl.where(is_v, 1.0, weight)
        other *= factor * other_weight
    turns = there & (head < heads + groups)
    cos = tl.load(cos_ptr + row * D + d, mask=turns, other=1.0).to(tl.float32)
    sin = tl.load(sin_ptr + row * D + d, mask=turns, other=0.0).to(tl.float32)
    x = x * cos + tl.where(d < D // 2, -other, other) * sin
    tl.store(q_ptr + (row * heads + head) * D + d, x.to(q_ptr.dtype.element_ty), mask=there & is_q)
    k_cell = tl.load(slots_ptr + row).to(tl.int64) * groups + head - heads
    v_cell = k_cell - groups
    kept = x.to(q_ptr.dtype.element_ty)
    if INT8:
        kept, scale = _rounded(kept)
        tl.store(key_scales_ptr + k_cell, scale, mask=is_k)
        tl.store(value_scales_ptr + v_cell, scale, mask=is_v)
    tl.store(keys_ptr + k_cell * D + d, kept, mask=there & is_k)
    tl.store(values_ptr + v_cell * D + d, kept, mask=there & is_v)


@triton.jit
def _rounded(x):
    x = x.to(tl.float32)
    largest = tl.max(tl.abs(x), axis=0)
    scale = tl.where(largest > 0, largest / 127.0, 1.0)
    # To the nearest, ties to even, as torch rounds: adding 1.5·2²³ leaves no bits behind the point.
    return ((x / scale + 12582912.0) - 12582912.0).to(tl.int8), scale


@triton.jit
def _attend(
    q_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    tables_ptr,
    lengths_ptr,
    out_ptr,
    sums_ptr,
    q_stride_r,
    q_stride_h,
    table_stride,
    groups,
    scaling,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    INT8: tl.constexpr,
):
    row, g, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths_ptr + row)
    share = tl.cdiv(tl.cdiv(length, PARTS), TILE) * TILE
    first, last = part * share, tl.minimum(part * share + share, length)
    h, d, t = tl.arange(0, HEADS), tl.arange(0, BLOCK_D), tl.arange(0, TILE)
    head = g * GROUP + h
    of_heads = (h < GROUP)[:, None] & (d < D)[None, :]
    q_hd = tl.load(q_ptr + row * q_stride_r + head[:, None] * q_stride_h + d[None, :], mask=of_heads, other=0.0)
    largest_h = tl.full([HEADS], float("-inf"), tl.float32)
    total_h = tl.zeros([HEADS], tl.float32)
    out_hd = tl.zeros([HEADS, BLOCK_D], tl.float32)
    for start in range(first, last, TILE):
        token = start + t
        there = token < last
        block = tl.load(tables_ptr + row * table_stride + token // BLOCK_SIZE, mask=there, other=0).to(tl.int64)
        cell = (block * BLOCK_SIZE + token % BLOCK_SIZE) * groups + g
        of_tokens = there[:, None] & (d < D)[None, :]
        k_td = tl.load(keys_ptr + cell[:, None] * D + d[None, :], mask=of_tokens, other=0.0).to(q_hd.dtype)
        score_ht = tl.dot(q_hd, tl.trans(k_td), input_precision="ieee") * scaling
        if INT8:
            score_ht *= tl.load(key_scales_ptr + cell, mask=there, other=0.0)[None, :]
        score_ht = tl.where(there[None, :], score_ht, float("-inf"))
        new_h = tl.maximum(largest_h, tl.max(score_ht, axis=1))
        weight_ht = tl.exp2(score_ht - new_h[:, None])
        shrink_h = tl.exp2(largest_h - new_h)
        total_h = total_h * shrink_h + tl.sum(weight_ht, axis=1)
        v_td = tl.load(values_ptr + cell[:, None] * D + d[None, :], mask=of_tokens, other=0.0).to(q_hd.dtype)
        if INT8:
            weight_ht *= tl.load(value_scales_ptr + cell, mask=there, other=0.0)[None, :]
        out_hd = out_hd * shrink_h[:, None] + tl.dot(weight_ht.to(q_hd.dtype), v_td, input_precision="ieee")
        largest_h = new_h
    place = (row * groups * GROUP + head) * PARTS + part
    out_hd = out_hd / tl.where(total_h > 0, total_h, 1.0)[:, None]
    tl.store(out_ptr + place[:, None] * D + d[None, :], out_hd.to(out_ptr.dtype.element_ty), mask=of_heads)
    if PARTS > 1:
        tl.store(sums_ptr + place, largest_h + tl.log2(total_h), mask=h < GROUP)  # −∞ of an empty part


@triton.jit
def _join(
    partial_ptr,
    sums_ptr,
    out_ptr,
    heads,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PARTS: tl.constexpr,
):
    place = tl.program_id(0) * heads + tl.program_id(1)
    p, d = tl.arange(0, PARTS), tl.arange(0, BLOCK_D)
    sums_p = tl.load(sums_ptr + place * PARTS + p)
    weight_p = tl.exp2(sums_p - tl.max(sums_p, axis=0))
    weight_p = weight_p / tl.sum(weight_p, axis=0)
    cells = (place * PARTS + p)[:, None] * D + d[None, :]
    out_d = tl.sum(weight_p[:, None] * tl.load(partial_ptr + cells, mask=(d < D)[None, :], other=0.0), axis=0)
    tl.store(out_ptr + place * D + d, out_d.to(out_ptr.dtype.element_ty), mask=d < D)
