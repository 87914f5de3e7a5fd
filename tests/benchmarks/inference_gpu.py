"""Decoding on a GPU, as a share of the bound: the time of reading all weights and all keys and values once a token.

`python -m tests.benchmarks.inference_gpu --out FILE 1b,batch=1 8b,batch=64 …`: each variant is the engine with random
weights in bf16, whose prompts end so that the context is `context` tokens on average while it is measured. Options:
batch, context, kv=model|int8, compiled=0|1, tuned=0|1 (max_autotune of several rows), steps.
"""

import argparse
import gc
import json
import statistics
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference import forward
from ray_jobs.inference.engine import Engine

SHAPES: dict[str, dict[str, int]] = {
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 32_000,
    },
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
        "vocab_size": 128_256,
    },
    "toy": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
}
POSITIONS = 4096


@dataclass(frozen=True)
class Variant:
    shape: str
    batch: int = 1
    context: int = 512
    kv: str = "model"
    compiled: int = 1
    tuned: int = 1
    steps: int = 128
    profile: int = 0

    @classmethod
    def parse(cls, text: str) -> "Variant":
        shape, *options = text.split(",")
        types = {field.name: field.type for field in fields(cls)}
        values = dict(option.split("=") for option in options)
        typed: dict[str, Any] = {name: value if types[name] is str else int(value) for name, value in values.items()}
        return cls(shape, **typed)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by the fastest of some copies of 4 GB."""
    if device.type == "cpu":
        return 1e10
    source = torch.empty(4 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        best = max(best, 2 * len(source) / (begin.elapsed_time(end) / 1e3))
    return best


def model_of(shape: str, device: torch.device) -> LlamaForCausalLM:
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def measure(variant: Variant, model: LlamaForCausalLM, bandwidth: float) -> dict[str, Any]:
    num_tokens = SHAPES[variant.shape]["vocab_size"]
    prompt = variant.context - variant.steps // 2
    blocks = variant.batch * (-(-(prompt + variant.steps) // 16) + 1)
    spec = EngineSpec(
        num_blocks=blocks,
        max_running=max(variant.batch, 1),
        step_tokens=8192,
        kv_dtype=variant.kv,  # type: ignore[arg-type]
        compiled=bool(variant.compiled) if model.device.type == "cuda" else None,
        prefix_cache=False,
    )
    forward.SEVERAL_ROWS = {"max_autotune": True} if variant.tuned else {}
    begin = time.perf_counter()
    engine = Engine(model, num_tokens, spec=spec)
    generator = torch.Generator().manual_seed(0)
    for _ in range(variant.batch):
        tokens = torch.randint(0, num_tokens, (prompt,), generator=generator).tolist()
        engine.add(tokens, DecodingSpec(temperature=0, max_new_tokens=variant.steps))
    while engine.waiting:
        engine.step()
    engine.step()  # compiles and captures
    engine.step()
    first = time.perf_counter() - begin
    times = []
    profiler: Any = torch.profiler.profile() if variant.profile else None
    if profiler:
        profiler.__enter__()
    while engine.running:
        before = len(engine.running[-1].answer)
        last = engine.running[-1]
        begin = time.perf_counter()
        engine.step()
        times.append((time.perf_counter() - begin) / (len(last.answer) - before))
        if profiler and len(times) == 2:
            profiler.__exit__(None, None, None)
            print(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=70))
            profiler = None
    weights = sum(parameter.numel() for parameter in model.parameters())
    weights -= model.get_input_embeddings().weight.numel()  # type: ignore[union-attr]
    num_bytes = 2 * weights + variant.batch * variant.context * engine.memory.bytes_per_token
    step = statistics.mean(times)
    graph_ms = None
    if engine.forward._graphs:
        graph = engine.forward._graphs[max(engine.forward._graphs)]
        begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin_event.record()
        for _ in range(20):
            graph._decoding.replay()
        end_event.record()
        torch.cuda.synchronize()
        graph_ms = round(begin_event.elapsed_time(end_event) / 20, 3)
    return {
        **asdict(variant),
        "tokens_per_second": round(variant.batch / step, 1),
        "step_ms": round(1e3 * step, 3),
        "step_ms_median": round(1e3 * statistics.median(times), 3),
        "graph_ms": graph_ms,  # of the last step's lengths, without the host
        "bound_ms": round(1e3 * num_bytes / bandwidth, 3),
        "share_of_bound": round(num_bytes / bandwidth / step, 4),
        "first_s": round(first, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if model.device.type == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("variants", nargs="+", type=Variant.parse)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bandwidth = copy_bandwidth(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}: copies {bandwidth / 1e12:.3f} TB/s", flush=True)
    results: list[dict[str, Any]] = []
    model = None
    for number, variant in enumerate(arguments.variants):
        if model is None or variant.shape != arguments.variants[number - 1].shape:
            model = None
            gc.collect()
            model = model_of(variant.shape, device)
        results.append(measure(variant, model, bandwidth))
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(results[-1]), flush=True)
        arguments.out.write_text(
            json.dumps({"device": name, "torch": torch.__version__, "copy_bandwidth": bandwidth, "results": results})
        )


if __name__ == "__main__":
    main()
