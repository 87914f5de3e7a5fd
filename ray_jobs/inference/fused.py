"""Decoders of Llama's form with few operators: Llama, Mistral, Qwen2, Qwen3.

A layer's projections of the same input become one product, their weights lying side by side: the model's own
parameters become views of them, so that weights changed in place are changed here too. On a GPU decoding is for CUDA
graphs: of one row every product is a kernel of ours, with norm, gate and residual on its way; of several it is
cuBLAS's, and inductor joins what is between.

Shapes: N tokens or R rows, C model width, O = (H + 2G)·D outputs for queries, keys and values, X = H + 2G, H heads, G
key-value heads, D width of a head, I width within the layer, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.inference.attention import Step, seen

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FORMS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}


def can_fuse(model: "PreTrainedModel") -> bool:
    """Whether the layers are of this form."""
    base: Any = model.base_model
    layer = base.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    linear = [getattr(attention, f"{name}_proj", None) for name in "qkvo"]
    linear += [getattr(mlp, f"{name}_proj", None) for name in ("gate", "up", "down")]
    return (
        type(layer).__name__ in FORMS
        and all(type(part) is torch.nn.Linear for part in linear)  # not one of packed weights
        and mlp.gate_proj.bias is None
        and model.config.hidden_act == "silu"
    )


class FusedLayer:
    """One layer's weights."""

    def __init__(self, layer: Any):
        attention, mlp = layer.self_attn, layer.mlp
        self.norm_C, self.eps = layer.input_layernorm.weight, layer.input_layernorm.variance_epsilon
        self.qkv_OC = side_by_side([attention.q_proj, attention.k_proj, attention.v_proj], "weight")
        self.qkv_bias_O = (
            None
            if attention.q_proj.bias is None
            else side_by_side([attention.q_proj, attention.k_proj, attention.v_proj], "bias")
        )
        self.head_norms_D = None
        if hasattr(attention, "q_norm"):
            self.head_norms_D = attention.q_norm.weight, attention.k_norm.weight
        self.out, self.out_bias_C = attention.o_proj.weight, attention.o_proj.bias
        self.scaling, self.num_groups = attention.scaling, layer.self_attn.config.num_key_value_heads
        self.mlp_norm_C = layer.post_attention_layernorm.weight
        self.gate_up_2IC = side_by_side([mlp.gate_proj, mlp.up_proj], "weight")
        self.down_CI = mlp.down_proj.weight


def side_by_side(linears: Sequence[torch.nn.Linear], name: str) -> Tensor:
    """One tensor of all their weights or biases, which become views of it; if they are such already, it."""
    tensors = [getattr(linear, name).data for linear in linears]
    first = tensors[0]
    end = first.data_ptr()
    adjacent = True
    for tensor in tensors:
        adjacent &= (
            tensor.data_ptr() == end and tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        )
        end += tensor.numel() * tensor.element_size()
    rows = sum(len(tensor) for tensor in tensors)
    if adjacent:
        return first.as_strided((rows, *first.shape[1:]), first.stride())
    joined = torch.cat(tensors)
    for linear, part in zip(linears, joined.split([len(tensor) for tensor in tensors]), strict=True):
        getattr(linear, name).data = part
    return joined


def through(layer: FusedLayer, number: int, hidden_NC: Tensor, cos_ND: Tensor, sin_ND: Tensor, step: Step) -> Tensor:
    """What leaves the layer of this number, [N, C], by torch's own operators: for any step, on any device."""
    count, width = cos_ND.shape
    qkv_NXD = _projected(hidden_NC, layer.norm_C, layer.eps, layer.qkv_OC, layer.qkv_bias_O).view(count, -1, width)
    num_turned = qkv_NXD.shape[1] - layer.num_groups
    turned_NXD, v_NGD = qkv_NXD[:, :num_turned], qkv_NXD[:, num_turned:]
    num_heads = num_turned - layer.num_groups
    if layer.head_norms_D is not None:
        parts = turned_NXD.split((num_heads, layer.num_groups), dim=1)
        normed = [_normed(part, norm, layer.eps) for part, norm in zip(parts, layer.head_norms_D, strict=True)]
        turned_NXD = torch.cat(normed, dim=1)
    low, high = turned_NXD.chunk(2, dim=2)
    turned_NXD = turned_NXD * cos_ND.unsqueeze(1) + torch.cat((-high, low), dim=2) * sin_ND.unsqueeze(1)
    q_NHD, k_NGD = turned_NXD[:, :num_heads], turned_NXD[:, num_heads:]
    seen_NO = seen(step, number, q_NHD, k_NGD, v_NGD, layer.scaling).view(count, -1)
    return _mixed(
        hidden_NC,
        seen_NO,
        layer.out,
        layer.out_bias_C,
        layer.mlp_norm_C,
        layer.eps,
        layer.gate_up_2IC,
        layer.down_CI,
    )


class FusedDecoder:
    """Logits of decoded tokens, by kernels that a CUDA graph can hold."""

    def __init__(
        self, model: "PreTrainedModel", layers: list[FusedLayer], num_tokens: int, several_rows: dict[str, Any]
    ):
        base: Any = model.base_model
        head: Any = model.get_output_embeddings()
        self.layers = layers
        self.heads, self.num_tokens = model.config.num_attention_heads, num_tokens
        self.norm_C, self.eps, self.head_VC = base.norm.weight, base.norm.variance_epsilon, head.weight

        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(function, fullgraph=True, dynamic=False, options=several_rows)

        def embedded(tokens_R: Tensor, positions_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            hidden_RC = base.embed_tokens(tokens_R)
            cos_1RD, sin_1RD = base.rotary_emb(hidden_RC.unsqueeze(0), positions_R.unsqueeze(0))
            return hidden_RC, cos_1RD[0].contiguous(), sin_1RD[0].contiguous()

        self._embedded = compiled(embedded)
        self._projected, self._mixed, self._read_out = compiled(_projected), compiled(_mixed), compiled(_read_out)

    def logits(self, tokens_R: Tensor, positions_R: Tensor, step: Step) -> Tensor:
        """fp32 [R, V]."""
        from ray_jobs.inference import paged_gpu
        from ray_jobs.inference.gemv import gemv

        rows = len(tokens_R)
        hidden_RC, cos_RD, sin_RD = self._embedded(tokens_R, positions_R)
        for number, layer in enumerate(self.layers):
            if rows == 1:
                qkv_RO = gemv(hidden_RC, layer.qkv_OC, norm_K=layer.norm_C, eps=layer.eps, bias_N=layer.qkv_bias_O)
            else:
                qkv_RO = self._projected(hidden_RC, layer.norm_C, layer.eps, layer.qkv_OC, layer.qkv_bias_O)
            q_RHD = paged_gpu.turned(
                qkv_RO, cos_RD, sin_RD, step.memory, number, step.slots_N, self.heads, layer.head_norms_D, layer.eps
            )
            seen_RHD = torch.empty_like(q_RHD)
            paged_gpu.attend(q_RHD, step, number, layer.scaling, seen_RHD)
            seen_RO = seen_RHD.view(rows, -1)
            if rows == 1:
                hidden_RC = gemv(seen_RO, layer.out, bias_N=layer.out_bias_C, residual_1N=hidden_RC)
                within_RI = gemv(hidden_RC, layer.gate_up_2IC, norm_K=layer.mlp_norm_C, eps=layer.eps, gated=True)
                hidden_RC = gemv(within_RI, layer.down_CI, residual_1N=hidden_RC)
            else:
                hidden_RC = self._mixed(
                    hidden_RC,
                    seen_RO,
                    layer.out,
                    layer.out_bias_C,
                    layer.mlp_norm_C,
                    layer.eps,
                    layer.gate_up_2IC,
                    layer.down_CI,
                )
        head_VC = self.head_VC[: self.num_tokens]
        if rows == 1:
            return gemv(hidden_RC, head_VC, norm_K=self.norm_C, eps=self.eps, dtype=torch.float32)
        return self._read_out(hidden_RC, self.norm_C, self.eps, head_VC)


def _normed(x_RC: Tensor, norm_C: Tensor, eps: float) -> Tensor:
    """As transformers rounds: in fp32, to x's dtype, then by the weight."""
    if x_RC.dtype == torch.float32:
        return F.rms_norm(x_RC, norm_C.shape, norm_C, eps)
    wide_RC = x_RC.float()
    wide_RC = wide_RC * torch.rsqrt(wide_RC.square().mean(dim=-1, keepdim=True) + eps)
    return norm_C * wide_RC.to(x_RC.dtype)


def _projected(hidden_RC: Tensor, norm_C: Tensor, eps: float, qkv_OC: Tensor, bias_O: Tensor | None) -> Tensor:
    return F.linear(_normed(hidden_RC, norm_C, eps), qkv_OC, bias_O)


def _mixed(
    hidden_RC: Tensor,
    seen_RO: Tensor,
    out: Tensor,
    out_bias_C: Tensor | None,
    norm_C: Tensor,
    eps: float,
    gate_up_2IC: Tensor,
    down_CI: Tensor,
) -> Tensor:
    hidden_RC = hidden_RC + F.linear(seen_RO, out, out_bias_C)
    gate_RI, up_RI = F.linear(_normed(hidden_RC, norm_C, eps), gate_up_2IC).chunk(2, dim=-1)
    return hidden_RC + F.linear(F.silu(gate_RI) * up_RI, down_CI)


def _read_out(hidden_RC: Tensor, norm_C: Tensor, eps: float, head_VC: Tensor) -> Tensor:
    return F.linear(_normed(hidden_RC, norm_C, eps), head_VC).float()
