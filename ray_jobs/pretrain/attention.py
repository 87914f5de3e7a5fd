"""How each layer attends: the largest logit, and the mean entropy of the weights.

Logits that grow beyond some 50 go before a divergence, and an entropy that falls to 0 is the collapse that goes with it
(Zhai et al. 2023, arXiv:2303.06296; Wortsman et al. 2023, arXiv:2309.14322, section 3.1).

The fused kernels that training uses tell neither, so that some sequences go through the model once more, without
gradient, with an attention that does. It is registered with transformers, whose models look it up by name.

Shapes: B sequences, H heads, G key-value heads, L queries, S keys, D width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ray_jobs.model.loss import LossModel

NAME = "headrace-observed"


def attention_figures(model: LossModel, micro_batch: tuple[Tensor, ...]) -> dict[str, list[float]]:
    """By layer, over all heads and the given sequences of all ranks. Collective; changes nothing.

    Args:
        micro_batch: inputs_BL, targets_BL and, of packed documents, positions_BL; as many on every rank.

    Returns:
        attention_max_logit: the largest q·k·scale that is not masked.
        attention_entropy: mean of −Σ p ln p over queries, in nats; that of the query at position i is at most ln(i+1).
    """
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), _observed(model) as seen:
        model(*micro_batch)
    largest = torch.stack([logit for logit, _ in seen])
    entropy = torch.stack([mean for _, mean in seen])
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    dist.all_reduce(entropy)
    entropy /= dist.get_world_size()
    return {"attention_max_logit": largest.tolist(), "attention_entropy": entropy.tolist()}


@contextmanager
def _observed(model: LossModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """While this lasts, the model's attention is the observed one, which adds a pair for each layer."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    seen: list[tuple[Tensor, Tensor]] = []

    def attention(
        module: nn.Module, q_BHLD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask_B1LS: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        out_BLHD, largest, entropy = observe(q_BHLD, k_BGSD, v_BGSD, mask_B1LS, options["scaling"])
        seen.append((largest, entropy))
        return out_BLHD, None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    config = model.model.config
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield seen
    finally:
        config._attn_implementation = usual


def observe(
    q_BHLD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask_B1LS: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention's result [B, L, H, D], its largest logit and its mean entropy; one head at a time, as all heads'
    weights of a long sequence are gigabytes. `mask_B1LS` is added to the logits; None is causal."""
    groups = q_BHLD.shape[1] // k_BGSD.shape[1]
    heads, largest, entropies = [], [], []
    for head in range(q_BHLD.shape[1]):
        key_BSD, value_BSD = k_BGSD[:, head // groups], v_BGSD[:, head // groups]
        logits_BLS = (q_BHLD[:, head] @ key_BSD.mT).float() * scale
        if mask_B1LS is None:
            hidden_LS = torch.ones(logits_BLS.shape[1:], dtype=torch.bool, device=logits_BLS.device).triu(1)
        else:
            hidden_LS = mask_B1LS[:, 0, :, : logits_BLS.shape[2]] < 0
        logits_BLS = logits_BLS.masked_fill(hidden_LS, -torch.inf)
        weights_BLS = logits_BLS.softmax(-1)
        largest.append(logits_BLS.max())
        entropies.append(torch.special.entr(weights_BLS).sum(-1).mean())
        heads.append(weights_BLS.to(value_BSD.dtype) @ value_BSD)
    return torch.stack(heads, dim=2), torch.stack(largest).max(), torch.stack(entropies).mean()
