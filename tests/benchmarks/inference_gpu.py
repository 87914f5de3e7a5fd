"""Decoding on a GPU, as a share of the bound: the time of reading all weights and all keys and values once a token.

`python -m tests.benchmarks.inference_gpu --out FILE 1b,batch=1 8b,batch=64 …`: each variant is the engine with random
weights in bf16, whose prompts end so that the context is `context` tokens on average while it is measured. Options:
batch, context, kv=model|int8, compiled=0|1, tuned=0|1 (max_autotune of several rows), steps, profile=1, propose=K (with
a scripted draft of K tokens that agrees at .8, too), peer=1 (transformers' `generate` with a static cache, too, which
it compiles into CUDA graphs).
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference import forward
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request
from ray_jobs.inference.speculation import Proposal

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
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Variant:
    shape: str
    batch: int = 1
    context: int = 512
    kv: str = "model"
    compiled: int = 1
    tuned: int = 0
    steps: int = 128
    profile: int = 0
    propose: int = 0
    peer: int = 0

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
    blocks = variant.batch * (-(-(prompt + variant.steps) // BLOCK_SIZE) + 1)
    spec = EngineSpec(
        block_size=BLOCK_SIZE,
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
    num_bytes = 2 * weights + variant.batch * variant.context * engine.sequences.memory.bytes_per_token
    step = statistics.mean(times)
    graph_ms = None
    if engine.sequences.forward._graphs:
        graph = engine.sequences.forward._graphs[max(engine.sequences.forward._graphs)]
        begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin_event.record()
        for _ in range(20):
            graph._graph.replay()
        end_event.record()
        torch.cuda.synchronize()
        graph_ms = round(begin_event.elapsed_time(end_event) / 20, 3)
    more: dict[str, Any] = {}
    if variant.propose:
        prompts = [torch.randint(0, num_tokens, (prompt,), generator=generator).tolist() for _ in range(variant.batch)]
        more["speculation"] = speculation(model, num_tokens, prompts, variant.propose, variant.steps)
    if variant.peer:
        peer = peer_step(model, variant, num_tokens)
        more |= {"generate_static_step_ms": round(1e3 * peer, 3), "faster": round(peer / step, 3)}
    return {
        **asdict(variant),
        **more,
        "tokens_per_second": round(variant.batch / step, 1),
        "step_ms": round(1e3 * step, 3),
        "step_ms_median": round(1e3 * statistics.median(times), 3),
        "graph_ms": graph_ms,  # of the last step's lengths, without the host
        "bound_ms": round(1e3 * num_bytes / bandwidth, 3),
        "share_of_bound": round(num_bytes / bandwidth / step, 4),
        "first_s": round(first, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if model.device.type == "cuda" else None,
    }


class Script:
    """Proposes what was written before, each token but with probability 1 − agreement."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]], count: int, agreement: float, num_tokens: int):
        self.answers, self.count, self.agreement, self.num_tokens = answers, count, agreement, num_tokens
        self.chance = np.random.default_rng(0)
        self.seconds = 0.0
        self.proposed = 0

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        began = time.perf_counter()
        proposals = []
        for request, limit in zip(requests, most, strict=True):
            begun = len(request.answer)
            known = self.answers.get(request.prompt) or [0] * (begun + self.count)
            tokens = known[begun : begun + max(0, min(self.count, limit))]
            wrong = (self.chance.random(len(tokens)) >= self.agreement).tolist()
            tokens = [(token + bad) % self.num_tokens for token, bad in zip(tokens, wrong, strict=True)]
            proposals.append(Proposal(tuple(tokens)))
            self.proposed += len(tokens)
        self.seconds += time.perf_counter() - began
        return proposals

    def forget(self, request: Request) -> None:
        """Nothing is kept."""


def speculation(
    model: Any, num_tokens: int, prompts: Sequence[Sequence[int]], count: int, steps: int, agreement: float = 0.8
) -> dict[str, Any]:
    """With a scripted draft against without, one after the other, in one process; c is the draft's share of a step."""
    spec = EngineSpec(num_blocks=len(prompts) * 600, prefix_cache=False)
    greedy = DecodingSpec(temperature=0, max_new_tokens=steps)

    def seconds(draft: Script | None) -> tuple[float, list[Request], Engine]:
        engine = Engine(model, num_tokens, spec=spec, draft=draft)
        requests = [engine.add(prompt, greedy)[0] for prompt in prompts]
        while engine.waiting:
            engine.step()
        for _ in range(3):  # compiles, and captures
            engine.step()
        done = sum(len(request.answer) for request in requests)
        began = time.perf_counter()
        engine.run()
        tokens = sum(len(request.answer) for request in requests) - done
        return (time.perf_counter() - began) / tokens, requests, engine

    seconds(None)
    plain = seconds(None)[0]
    # Several rows are rounded otherwise than one: what is to be proposed is what steps of as many rows write.
    _, requests, _ = seconds(Script({}, count, 1.0, num_tokens))
    script = Script({request.prompt: request.answer for request in requests}, count, agreement, num_tokens)
    drafted, _, engine = seconds(script)
    cost = script.seconds / max(1, script.proposed) / (plain * len(prompts))
    ideal = (1 - agreement ** (count + 1)) / ((1 - agreement) * (count * cost + 1))
    return {
        "proposed": count,
        "plain_ms": round(1e3 * plain, 3),
        "speedup": round(plain / drafted, 3),
        "ideal": round(ideal, 3),
        "share_of_ideal": round(plain / drafted / ideal, 3),
        "draft_cost": round(cost, 4),
        "rates": [round(rate, 3) for rate in engine.acceptance.rates],
        "tokens_per_round": round(engine.acceptance.tokens_per_round, 3),
    }


def peer_step(model: LlamaForCausalLM, variant: Variant, num_tokens: int) -> float:
    """Seconds a token of `generate`, from two lengths, so that the prompt's time is none of it."""
    model.config._attn_implementation = "sdpa"
    prompt = torch.randint(0, num_tokens, (variant.batch, variant.context - variant.steps // 2), device=model.device)

    def seconds(count: int) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            cache_implementation="static",
            max_length=None,
        )
        torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds(variant.steps)
    seconds(variant.steps)
    return (seconds(variant.steps) - seconds(variant.steps // 2)) / (variant.steps - variant.steps // 2)


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
