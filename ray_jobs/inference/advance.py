"""From logits to the next step on a GPU: the likeliest tokens, and a step's state moved on by one, in Triton.

torch's argmax takes longer than a small layer, and what moves the state on would be ten kernels.

Shapes: R rows, V vocabulary, P parts of it.
"""

# Triton's kernels have no types.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

PARTS = 32
BLOCK = 1024


class Likeliest:
    """Room for the best of each part of the vocabulary."""

    def __init__(self, rows: int, device: torch.device):
        self.values_RP = torch.empty(rows, PARTS, device=device)
        self.tokens_RP = torch.empty(rows, PARTS, dtype=torch.int32, device=device)

    def find(self, logits_RV: Tensor) -> None:
        """Fills it; of equal logits the first token."""
        rows, count = logits_RV.shape
        share = triton.cdiv(triton.cdiv(count, PARTS), BLOCK) * BLOCK
        stride = logits_RV.stride(0)
        _best_of_part[(rows, PARTS)](logits_RV, self.values_RP, self.tokens_RP, count, stride, share, BLOCK, PARTS)


def advance(
    state_4R: Tensor, tables_RB: Tensor, block_size: int, written_R: Tensor, best: Likeliest | None = None
) -> None:
    """Moves tokens, positions, slots and lengths of a step on by one: the next tokens are the likeliest, and are put
    into `written_R`, int64; without `best` they stand there. Rows beyond `written_R` keep theirs."""
    rows, num_written = state_4R.shape[1], len(written_R)
    _advance[(rows,)](
        state_4R,
        tables_RB,
        written_R,
        written_R if best is None else best.values_RP,
        written_R if best is None else best.tokens_RP,
        rows,
        num_written,
        tables_RB.stride(0),
        BLOCK_SIZE=block_size,
        BEST=best is not None,
        PARTS=PARTS,
        num_warps=1,
    )


@triton.jit
def _best_of_part(logits_ptr, values_ptr, tokens_ptr, count, stride, share, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    first = part * share
    last = tl.minimum(first + share, count)
    value = tl.full([BLOCK], float("-inf"), tl.float32)
    token = tl.full([BLOCK], 2147483647, tl.int32)
    for start in range(first, last, BLOCK):
        place = start + tl.arange(0, BLOCK)
        logit = tl.load(logits_ptr + row.to(tl.int64) * stride + place, mask=place < last, other=float("-inf"))
        token = tl.where(logit > value, place, token)
        value = tl.maximum(value, logit)
    best = tl.max(value, axis=0)
    tl.store(values_ptr + row * PARTS + part, best)
    tl.store(tokens_ptr + row * PARTS + part, tl.min(tl.where(value == best, token, 2147483647), axis=0))


@triton.jit
def _advance(
    state_ptr,
    tables_ptr,
    written_ptr,
    values_ptr,
    tokens_ptr,
    rows,
    num_written,
    table_stride,
    BLOCK_SIZE: tl.constexpr,
    BEST: tl.constexpr,
    PARTS: tl.constexpr,
):
    row = tl.program_id(0)
    asked = row < num_written
    if BEST:
        part = row * PARTS + tl.arange(0, PARTS)
        value = tl.load(values_ptr + part)
        best = value == tl.max(value, axis=0)
        token = tl.min(tl.where(best, tl.load(tokens_ptr + part), 2147483647), axis=0)
        token = tl.where(token == 2147483647, 0, token)  # where logits are no numbers, none is the likeliest
        tl.store(written_ptr + row, token.to(tl.int64), mask=asked)
    else:
        token = tl.load(written_ptr + row, mask=asked, other=0).to(tl.int32)
    position = tl.load(state_ptr + rows + row) + 1
    block = tl.load(tables_ptr + row * table_stride + position // BLOCK_SIZE, mask=asked, other=0)
    tl.store(state_ptr + row, token, mask=asked)
    tl.store(state_ptr + rows + row, position, mask=asked)
    tl.store(state_ptr + 2 * rows + row, block * BLOCK_SIZE + position % BLOCK_SIZE, mask=asked)
    tl.store(state_ptr + 3 * rows + row, position + 1, mask=asked)
