"""The learning rate of a step: linear warm-up, then down to a floor by a cosine, or late (warm-up, stable, decay)."""

import math

from configs.pretrain import OptimizerSpec


def learning_rate(step: int, total: int, spec: OptimizerSpec) -> float:
    """The rate of step `step` (from 0) of `total`.

    While step < warmup: peak · (step + 1) / warmup. From `total` on: the lowest, peak · floor. Between them lowest +
    (peak − lowest) · f(x). Cosine: f = ½ (1 + cos π·x), where x = (step − warmup) / (total − warmup). Wsd: f = 1, and
    in the last n = decay_share · total steps f = 1 − x or 1 − √x, where x = (step − total + n) / n.
    """
    peak, lowest, warmup = spec.learning_rate, spec.learning_rate * spec.floor, spec.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return lowest
    if spec.schedule == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    else:
        decaying = spec.decay_share * total
        x = max(0.0, (step - total + decaying) / decaying)
        height = 1 - (x if spec.decay_shape == "linear" else math.sqrt(x))
    return lowest + (peak - lowest) * height
