"""Next-token cross-entropy, a chunk of tokens at a time.

The logits of a whole batch are its largest tensor (tokens × vocabulary) and are used once. Here a chunk's logits live
only while its loss and gradient are computed, in the forward pass, so that memory does not grow with the vocabulary and
the chunk stays in a CPU's cache.

Shapes: N tokens (batch · sequence), H hidden, V vocabulary, C tokens of a chunk.
"""

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100
"""A target that is not scored (torch's own default)."""
# On a CPU 8 MB of fp32 logits, which its cache holds. On a GPU the products want thousands of tokens (at 262 they, and
# adding up the weight's gradient, took 12 % of a 1.1B model's step on an H100): 268 MB of bf16 logits.
CHUNK_LOGITS = {"cuda": 1 << 27, "cpu": 1 << 21}
CHUNK_MULTIPLE = 128
"""Larger chunks are a multiple of this many tokens: a GPU's tile."""


class TokenLoss(NamedTuple):
    """Sums over the scored tokens, not means: the caller divides by the count over all ranks and micro-batches.

    A NamedTuple, because FSDP looks for the outputs that it must hook in tuples, not in dataclasses.
    """

    total: Tensor
    """Scalar with gradient: cross_entropy + z_loss."""
    cross_entropy: Tensor
    """Scalar, nats."""
    z_loss: Tensor
    """Scalar: weight · sum of logsumexp². Kept apart, because perplexity excludes it."""
    num_tokens: Tensor
    """Scalar, int64."""


def chunk_of(weight_VH: Tensor) -> int:
    """Tokens of a chunk."""
    tokens = max(1, CHUNK_LOGITS[weight_VH.device.type] // weight_VH.shape[0])
    return tokens if tokens < CHUNK_MULTIPLE else tokens // CHUNK_MULTIPLE * CHUNK_MULTIPLE


def _terms(
    logits_CV: Tensor, targets_C: Tensor, z_weight: float, num_real: int, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """A chunk's cross-entropies, squares of logsumexp, and d total / d logits, for which the logits' memory is used:
    softmax − onehot, + 2·z·lse·softmax."""
    scored_C1 = (targets_C != IGNORED).float().unsqueeze(1)
    index_C1 = targets_C.clamp_min(0).unsqueeze(1)
    dtype, logits_CV = logits_CV.dtype, logits_CV.float()
    if num_real < logits_CV.shape[1]:
        logits_CV[:, num_real:] = -torch.inf
    lse_C1 = torch.logsumexp(logits_CV, dim=1, keepdim=True)
    entropy_C1 = (lse_C1 - logits_CV.gather(1, index_C1)) * scored_C1
    squares_C1 = lse_C1.square() * scored_C1
    if with_gradient:
        logits_CV = logits_CV.sub_(lse_C1).exp_()
        if z_weight:
            logits_CV *= 1 + 2 * z_weight * lse_C1
        logits_CV.scatter_add_(1, index_C1, torch.full_like(lse_C1, -1.0))
        logits_CV *= scored_C1
    return entropy_C1, squares_C1, logits_CV.to(dtype)


def _terms_to_fuse(
    logits_CV: Tensor, targets_C: Tensor, z_weight: float, num_real: int, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, written for a compiler: two kernels, which read the logits once each, and no whole fp32 copy."""
    place_1V = torch.arange(logits_CV.shape[1], device=logits_CV.device).unsqueeze(0)
    scored_C1 = (targets_C != IGNORED).float().unsqueeze(1)
    index_C1 = targets_C.clamp_min(0).unsqueeze(1)
    wide_CV = torch.where(place_1V < num_real, logits_CV.float(), -torch.inf)
    lse_C1 = torch.logsumexp(wide_CV, dim=1, keepdim=True)
    entropy_C1 = (lse_C1 - logits_CV.gather(1, index_C1).float()) * scored_C1
    squares_C1 = lse_C1.square() * scored_C1
    if not with_gradient:
        return entropy_C1, squares_C1, logits_CV
    slope_CV = (wide_CV - lse_C1).exp() * (1 + 2 * z_weight * lse_C1) - (place_1V == index_C1).float()
    return entropy_C1, squares_C1, (slope_CV * scored_C1).to(logits_CV.dtype)


@functools.cache
def _fused_terms() -> Any:
    """Compiled when a GPU first asks: torch's compiler alone takes a second to import."""
    return torch.compile(_terms_to_fuse, dynamic=False)


def _add_product(sum_VH: Tensor, slope_CV: Tensor, hidden_CH: Tensor) -> None:
    """sum_VH += slope_CVᵀ · hidden_CH, in fp32."""
    if slope_CV.dtype == sum_VH.dtype:
        sum_VH.addmm_(slope_CV.t(), hidden_CH)
    elif sum_VH.is_cuda:
        torch.addmm(sum_VH, slope_CV.t(), hidden_CH, torch.float32, out=sum_VH)
    else:
        sum_VH += slope_CV.t() @ hidden_CH


class _ChunkedLoss(torch.autograd.Function):
    """hidden_NH, weight_VH, targets_N → the sums; the gradients of `total` are computed together with it."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, z_weight: float, num_real: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        chunk = chunk_of(weight_VH)
        terms = _fused_terms() if hidden_NH.is_cuda else _terms
        with_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden_NH = torch.empty_like(hidden_NH) if with_gradient else None
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if with_gradient else None
        entropy = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        squares = torch.zeros_like(entropy)
        for start in range(0, hidden_NH.shape[0], chunk):
            hidden_CH, targets_C = hidden_NH[start : start + chunk], targets_N[start : start + chunk]
            logits_CV = F.linear(hidden_CH, weight_VH)
            entropy_C, squares_C, slope_CV = terms(logits_CV, targets_C, z_weight, num_real, with_gradient)
            entropy += entropy_C.sum()
            squares += squares_C.sum()
            if grad_hidden_NH is None or grad_weight_VH is None:
                continue
            torch.mm(slope_CV, weight_VH, out=grad_hidden_NH[start : start + chunk])
            _add_product(grad_weight_VH, slope_CV, hidden_CH)
        ctx.save_for_backward(grad_hidden_NH, grad_weight_VH)
        ctx.weight_dtype = weight_VH.dtype
        ctx.mark_non_differentiable(entropy, squares)
        squares = squares * z_weight
        return entropy + squares, entropy, squares

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_NH, grad_weight_VH = ctx.saved_tensors
        hidden = grad_hidden_NH * grad_total if ctx.needs_input_grad[0] else None
        weight = (grad_weight_VH * grad_total).to(ctx.weight_dtype) if ctx.needs_input_grad[1] else None
        return hidden, weight, None, None, None


def token_loss(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    z_weight: float = 0.0,
    num_real: int | None = None,
) -> TokenLoss:
    """Cross-entropy of `hidden_NH @ weight_VH.T` against `targets_N`, where that is not IGNORED, and the z-loss.

    `num_real` rows of the weight are tokens; rows above it are padding and get probability 0.
    """
    total, entropy, squares = _ChunkedLoss.apply(
        hidden_NH, weight_VH, targets_N, z_weight, weight_VH.shape[0] if num_real is None else num_real
    )
    return TokenLoss(total, entropy, squares, (targets_N != IGNORED).sum())


@torch.no_grad()
def token_nlls(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, num_real: int | None = None) -> Tensor:
    """−log p of every target in nats, fp32 [N], without gradient; 0 where it is IGNORED.

    `num_real` as in `token_loss`.
    """
    chunk = chunk_of(weight_VH)
    parts = []
    for hidden_CH, targets_C in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True):
        logits_CV = F.linear(hidden_CH, weight_VH).float()
        if num_real is not None:
            logits_CV[:, num_real:] = -torch.inf
        parts.append(F.cross_entropy(logits_CV, targets_C, ignore_index=IGNORED, reduction="none"))
    return torch.cat(parts)


class LossModel(nn.Module):
    """A causal language model whose forward is its training loss, so that logits are never whole.

    It is a module of its own because FSDP gathers parameters when a module's forward is called: the head's weight is
    read here, within the forward of the outermost one.
    """

    model: Any
    """A causal language model of transformers, as its submodule."""

    def __init__(self, model: nn.Module, z_weight: float = 0.0, num_real: int | None = None):
        super().__init__()
        self.model = model
        self.z_weight = z_weight
        self.num_real = num_real

    def forward(self, inputs_BL: Tensor, targets_BL: Tensor, positions_BL: Tensor | None = None) -> TokenLoss:
        """`positions_BL` counts from 0 in each of the documents that a sequence is packed of: transformers masks
        attention between them by it (`masking_utils.find_packed_sequence_indices`). None is one document."""
        packed = {} if positions_BL is None else {"position_ids": positions_BL}
        hidden_BLH = self.model.base_model(input_ids=inputs_BL, use_cache=False, **packed).last_hidden_state
        return token_loss(
            hidden_BLH.flatten(0, 1),
            self.model.lm_head.weight,
            targets_BL.flatten(),
            self.z_weight,
            self.num_real,
        )

    def nlls(self, inputs_BL: Tensor, targets_BL: Tensor) -> Tensor:
        """−log p of every target in nats, fp32 [B, L], without gradient; 0 where it is IGNORED. Sequences are no packed
        ones. Under FSDP, `register_fsdp_forward_method` makes it gather parameters as `forward` does."""
        with torch.no_grad():
            hidden_BLH = self.model.base_model(input_ids=inputs_BL, use_cache=False).last_hidden_state
            weight_VH = self.model.lm_head.weight
            nll_N = token_nlls(hidden_BLH.flatten(0, 1), weight_VH, targets_BL.flatten(), self.num_real)
        return nll_N.view_as(targets_BL)
