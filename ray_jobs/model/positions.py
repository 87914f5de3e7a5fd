"""Rotary frequencies of a ModelSpec, as `rope_parameters` of transformers' configuration.

Source: Su et al. 2021 (arXiv:2104.09864); position interpolation, Chen et al. 2023 (arXiv:2306.15595); YaRN, Peng et
al. 2023 (arXiv:2309.00071), whose section 3 also tells NTK-aware and dynamic scaling; Llama 3's, Meta 2024.
"""

from typing import Any

from configs.model import ModelSpec


def rope_parameters(spec: ModelSpec) -> dict[str, Any]:
    """What transformers computes the model's frequencies from. Static NTK-aware scaling, which it has no name for, is
    another base."""
    scaling, base = spec.rope_scaling, {"rope_theta": spec.rope_theta}
    if scaling is None:
        return {"rope_type": "default", **base}
    if scaling.method == "ntk":
        return {"rope_type": "default", "rope_theta": ntk_theta(spec.rope_theta, scaling.factor, spec.head_width)}
    found: dict[str, Any] = {"rope_type": scaling.method, "factor": scaling.factor, **base}
    if scaling.method in ("yarn", "llama3"):
        found["original_max_position_embeddings"] = scaling.original_positions
    if scaling.method == "yarn":
        found |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            found["attention_factor"] = scaling.attention_factor
    if scaling.method == "llama3":
        found |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    return found


def ntk_theta(theta: float, factor: float, head_dim: int) -> float:
    """The base under which the lowest frequency is that of position interpolation by `factor`, and the highest stays:
    θ · s^(d / (d − 2)) (Peng et al. 2023, section 3.1)."""
    return float(theta * factor ** (head_dim / (head_dim - 2)))
