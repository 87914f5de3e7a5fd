"""Rotary frequencies, of a ModelSpec or chosen at run time, as `rope_parameters` of transformers' configuration.

Source: Su et al. 2021 (arXiv:2104.09864); position interpolation, Chen et al. 2023 (arXiv:2306.15595); YaRN, Peng et
al. 2023 (arXiv:2309.00071), whose section 3 also tells NTK-aware and dynamic scaling; Llama 3's, Meta 2024. ALiBi:
Press et al. 2022 (arXiv:2108.12409).
"""

from typing import TYPE_CHECKING, Any, Literal

from configs.model import ModelSpec, RopeScaling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RopeMethod = Literal["linear", "ntk", "dynamic", "yarn", "llama3"]


def rope_parameters(spec: ModelSpec) -> dict[str, Any]:
    """What transformers computes the model's frequencies from."""
    return scaled_parameters(spec.rope_theta, spec.head_width, spec.rope_scaling)


def scaled_parameters(theta: float, width: int, scaling: RopeScaling | None) -> dict[str, Any]:
    """`rope_parameters` of the base `theta` over `width` dimensions of a head. Static NTK-aware scaling, which
    transformers has no name for, is another base."""
    base = {"rope_theta": theta}
    if scaling is None:
        return {"rope_type": "default", **base}
    if scaling.method == "ntk":
        return {"rope_type": "default", "rope_theta": ntk_theta(theta, scaling.factor, width)}
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


def kind_of_positions(config: Any) -> Literal["rotary", "alibi"]:
    """How a model of this configuration tells positions apart.

    Raises:
        ValueError: in a way that texts cannot be longer by than in training, or that is not known here.
    """
    if getattr(config, "rope_parameters", None):
        return "rotary"
    if config.model_type == "mpt" and config.attn_config.alibi:
        return "alibi"
    raise ValueError(
        f"a model of type {config.model_type} has neither rotary positions nor MPT's ALiBi, so texts cannot be longer "
        "than it was trained on: leave it out"
    )


def stretch(model: "PreTrainedModel", method: RopeMethod, factor: float, original: int) -> None:
    """Makes a loaded model with rotary positions one for texts `factor` times as long; its weights stay.

    `dynamic` recomputes all keys as a text grows: see `set_text_length`, and no kept key may be used with other
    frequencies.

    Args:
        model: a transformers model with one set of rotary frequencies (Llama, Qwen2, Qwen3 and their like).
        method: see configs/model.py.
        factor: at least 1, which changes nothing.
        original: tokens of the texts that the model was trained on.

    Raises:
        ValueError: the model has other positions, or stretched ones already, or such as the method does not change, or
            the factor is below 1.
    """
    config: Any = model.config
    check_stretchable(config)
    if factor < 1:
        raise ValueError(f"a factor of {factor:g} would shorten the context: give one from 1")
    if factor > 1:
        now = config.rope_parameters
        share = {name: now[name] for name in ("partial_rotary_factor",) if now.get(name) is not None}
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        of_method = {"original_positions": original} if method in ("yarn", "llama3") else {}
        scaling = RopeScaling.model_validate({"method": method, "factor": factor, **of_method})
        turned = int(width * share.get("partial_rotary_factor", 1.0))
        if method == "ntk" and turned <= 2:
            raise ValueError("ntk has no effect on heads of which two dimensions are turned: choose another method")
        config.rope_parameters = share | scaled_parameters(now["rope_theta"], turned, scaling)
    # transformers' dynamic scaling takes this for the length that the frequencies were made for.
    config.max_position_embeddings = original if method == "dynamic" else round(original * factor)
    renew_frequencies(model)


def check_stretchable(config: Any) -> None:
    """Raises ValueError where a model of this configuration cannot be stretched at run time."""
    if kind_of_positions(config) != "rotary":
        raise ValueError(
            f"a model of type {config.model_type} has ALiBi, which is chosen in training, and no rotary positions to "
            "stretch: measure it as trained"
        )
    rope_type = config.rope_parameters.get("rope_type")
    if rope_type is None:
        raise ValueError(
            f"a model of type {config.model_type} has several sets of rotary frequencies, by kind of layer, which are "
            "not stretched at run time: measure it as trained"
        )
    if rope_type != "default":
        raise ValueError(
            f"the model's rotary positions are of type {rope_type} already, and are not stretched twice: measure it as "
            "trained"
        )


def renew_frequencies(model: "PreTrainedModel") -> None:
    """Computes the rotary frequencies from the configuration: they are no parameters, and are not stored."""
    base: Any = model.base_model
    if hasattr(base, "rotary_emb"):
        base.rotary_emb = type(base.rotary_emb)(config=model.config).to(model.device)


def set_text_length(model: "PreTrainedModel", length: int) -> None:
    """Readies a model for texts of `length` tokens.

    Dynamic frequencies become those of this length at once, so that keys computed token by token fit each other;
    transformers' own grow with the text, and then stay as they are for shorter texts. MPT's bias is built for as many
    positions. With other models nothing is to do.
    """
    import torch

    config: Any = model.config
    if config.model_type == "mpt":
        config.max_seq_len = max(config.max_seq_len, length)
    elif (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "dynamic":
        renew_frequencies(model)
        if length > config.max_position_embeddings:
            base: Any = model.base_model
            base.rotary_emb(torch.zeros(1, 1, 1, device=model.device), torch.tensor([[length - 1]]).to(model.device))
