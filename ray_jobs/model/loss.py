"""Next-token cross-entropy, a chunk of tokens at a time.

The logits of a whole batch are its largest tensor (tokens × vocabulary) and are used once. Here a chunk's logits live
only while its loss and gradient are computed, in the forward pass, so that memory does not grow with the vocabulary and
the chunk stays in a CPU's cache.

Shapes: N tokens (batch · sequence), H hidden, V vocabulary, C tokens of a chunk.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100
"""A target that is not scored (torch's own default)."""
# 32 MB of fp32 logits on a GPU, 8 MB on a CPU; smaller chunks lower the speed of the products.
CHUNK_LOGITS = {"cuda": 1 << 23, "cpu": 1 << 21}


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


class _ChunkedLoss(torch.autograd.Function):
    """hidden_NH, weight_VH, targets_N → the sums; the gradients of `total` are computed together with it."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, z_weight: float, num_real: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        chunk = max(1, CHUNK_LOGITS[hidden_NH.device.type] // weight_VH.shape[0])
        with_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden_NH = torch.empty_like(hidden_NH) if with_gradient else None
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if with_gradient else None
        entropy = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        squares = torch.zeros_like(entropy)
        for start in range(0, hidden_NH.shape[0], chunk):
            hidden_CH, targets_C = hidden_NH[start : start + chunk], targets_N[start : start + chunk]
            scored_C1 = (targets_C != IGNORED).float().unsqueeze(1)
            index_C1 = targets_C.clamp_min(0).unsqueeze(1)
            logits_CV = F.linear(hidden_CH, weight_VH).float()
            if num_real < logits_CV.shape[1]:
                logits_CV[:, num_real:] = -torch.inf
            lse_C1 = torch.logsumexp(logits_CV, dim=1, keepdim=True)
            entropy += ((lse_C1 - logits_CV.gather(1, index_C1)) * scored_C1).sum()
            squares += (lse_C1.square() * scored_C1).sum()
            if grad_hidden_NH is None or grad_weight_VH is None:
                continue
            # d total / d logits = softmax − onehot, + 2·z·lse·softmax
            slope_CV = logits_CV.sub_(lse_C1).exp_()
            if z_weight:
                slope_CV *= 1 + 2 * z_weight * lse_C1
            slope_CV.scatter_add_(1, index_C1, torch.full_like(lse_C1, -1.0))
            slope_CV *= scored_C1
            slope_CV = slope_CV.to(hidden_NH.dtype)
            torch.mm(slope_CV, weight_VH, out=grad_hidden_NH[start : start + chunk])
            product_VH = slope_CV.t() @ hidden_CH
            grad_weight_VH += product_VH
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


def token_nlls(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> Tensor:
    """−log p of every target in nats, fp32 [N], without gradient; 0 where it is IGNORED."""
    chunk = max(1, CHUNK_LOGITS[hidden_NH.device.type] // weight_VH.shape[0])
    parts = [
        F.cross_entropy(F.linear(hidden_CH, weight_VH).float(), targets_C, ignore_index=IGNORED, reduction="none")
        for hidden_CH, targets_C in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True)
    ]
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
        hidden_BLH = self.model.model(input_ids=inputs_BL, position_ids=positions_BL, use_cache=False).last_hidden_state
        return token_loss(
            hidden_BLH.flatten(0, 1),
            self.model.lm_head.weight,
            targets_BL.flatten(),
            self.z_weight,
            self.num_real,
        )
