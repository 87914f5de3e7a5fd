"""The learning rate of a step: linear warm-up, then a cosine down to a floor."""

import math

from configs.pretrain import OptimizerSpec


def learning_rate(step: int, total: int, spec: OptimizerSpec) -> float:
    """The rate of step `step` (from 0) of `total`.

    While step < warmup: peak · (step + 1) / warmup. Then lowest + (peak − lowest) · ½ (1 + cos π·x), where x = (step −
    warmup) / (total − warmup), and the lowest from `total` on.
    """
    peak, lowest, warmup = spec.learning_rate, spec.learning_rate * spec.floor, spec.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return lowest
    turn = math.pi * (step - warmup) / (total - warmup)
    return lowest + (peak - lowest) * 0.5 * (1 + math.cos(turn))
