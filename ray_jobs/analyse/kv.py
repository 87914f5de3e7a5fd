"""What keeping keys and values is worth, and what their memory costs.

Without a cache a token costs a pass over all before it; with one, a pass over one token, which attends to all before.
Memory that is reserved for the longest answer lies idle while the answer is short; in blocks at most one block of a
request does (Kwon et al. 2023, arXiv:2309.06180, section 2 and figure 2).
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from configs.analyse import AnalyseSpec
from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.analyse.tables import Rows
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import Loaded
from ray_jobs.inference.memory import head_width

BLOCK_SIZE = EngineSpec().block_size
Written: TypeAlias = tuple[list[int], int, float]
"""Tokens, how many there was room for, and seconds."""
PROMPT_TOKENS = 16
# The mix of requests: lengths drawn log-uniformly, as chat's are skewed to short ones.
PROMPTS, ANSWERS = (8, 128), (4, 64)


def bytes_per_token(config: Any, bytes_per_number: int = 2) -> int:
    """Of keys and values: 2 · layers · key-value heads · head width · bytes."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_width(config) * bytes_per_number


def analyse(loaded: Loaded, spec: AnalyseSpec) -> list[Rows]:
    """The tables, the slowest part of which is writing without a cache."""
    return [_memory(loaded), _kinds(loaded, spec), _allocation(loaded, spec)]


def _memory(loaded: Loaded) -> Rows:
    config: Any = loaded.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    rows = []
    for dtype, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
        # int8 keeps a scale, fp32, for each token and head.
        scales = 2 * config.num_hidden_layers * heads * 4 if dtype == "int8" else 0
        token = bytes_per_token(config, size) + scales
        rows.append(
            {"kept as": dtype, "bytes a token": token, "MiB of the whole context": token * loaded.context / 2**20}
        )
    layers, width = config.num_hidden_layers, head_width(config)
    return Rows(
        f"Keys and values of {loaded.name}",
        rows,
        f"2 · {layers} layers · {heads} key-value heads · {width} wide · bytes of a number; context "
        f"{loaded.context:,}. Without grouped heads it would be {config.num_attention_heads / heads:g} times as much.",
    )


def _kinds(loaded: Loaded, spec: AnalyseSpec) -> Rows:
    chance = random.Random(spec.seed)
    prompt = [chance.randrange(loaded.num_tokens) for _ in range(PROMPT_TOKENS)]
    kinds: dict[str, Callable[[Loaded, list[int], int], Written]] = {
        "none": _without,
        "dynamic": _dynamic,
        "static": _contiguous,
        "paged": _paged,
    }
    rows = []
    for length in spec.lengths:
        texts, base = [], None
        for name, write in kinds.items():
            text, reserved, seconds = write(loaded, prompt, length)
            base = base or seconds
            texts.append(text)
            rows.append(
                {
                    "new tokens": length,
                    "cache": name,
                    "seconds": seconds,
                    "tokens/s": length / seconds,
                    "times none": base / seconds,
                    "KiB reserved": reserved * bytes_per_token(loaded.model.config, loaded.model.dtype.itemsize) / 1024,
                    "same text": text == texts[0],
                }
            )
    return Rows(
        f"With and without a cache, behind {PROMPT_TOKENS} tokens",
        rows,
        "dynamic: transformers' cache, which grows by copying. static: one piece as long as prompt and answer. paged: "
        f"blocks of {BLOCK_SIZE} tokens. Rounding may part texts in bf16 where two tokens are nearly as likely.",
    )


@torch.inference_mode()
def _without(loaded: Loaded, prompt: list[int], count: int) -> Written:
    loaded.model.config._attn_implementation = "sdpa"
    tokens = list(prompt)
    began = time.perf_counter()
    for _ in range(count):
        logits: Any = loaded.model(torch.tensor([tokens], device=loaded.model.device), use_cache=False).logits
        tokens.append(int(logits[0, -1, : loaded.num_tokens].argmax()))
    return tokens[len(prompt) :], 0, time.perf_counter() - began


@torch.inference_mode()
def _dynamic(loaded: Loaded, prompt: list[int], count: int) -> Written:
    from transformers import DynamicCache

    loaded.model.config._attn_implementation = "sdpa"
    cache, tokens, new = DynamicCache(config=loaded.model.config), list(prompt), list(prompt)
    began = time.perf_counter()
    for _ in range(count):
        logits: Any = loaded.model(torch.tensor([new], device=loaded.model.device), past_key_values=cache).logits
        new = [int(logits[0, -1, : loaded.num_tokens].argmax())]
        tokens += new
    return tokens[len(prompt) :], len(tokens) - 1, time.perf_counter() - began


def _contiguous(loaded: Loaded, prompt: list[int], count: int) -> Written:
    return _by_engine(loaded, prompt, count, len(prompt) + count)


def _paged(loaded: Loaded, prompt: list[int], count: int) -> Written:
    return _by_engine(loaded, prompt, count, BLOCK_SIZE)


def _by_engine(loaded: Loaded, prompt: list[int], count: int, block_size: int) -> Written:
    blocks = -(-(len(prompt) + count) // block_size)
    spec = EngineSpec(block_size=block_size, num_blocks=blocks, prefix_cache=False)
    engine = Engine(loaded.model, loaded.num_tokens, spec=spec)
    engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=min(2, count)))
    engine.run()  # compiles what is compiled
    (request,) = engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=count))
    began = time.perf_counter()
    engine.run()
    return request.answer, blocks * block_size, time.perf_counter() - began


def _allocation(loaded: Loaded, spec: AnalyseSpec) -> Rows:
    """The same memory, for so many requests of the longest kind, in one piece each or in blocks."""
    longest = PROMPTS[1] + ANSWERS[1]
    rows = []
    for batch in spec.batches:
        requests = mix(2 * batch, loaded.num_tokens, spec.seed)
        for name, block_size in (("contiguous", longest), ("paged", BLOCK_SIZE)):
            blocks = -(-batch * longest // block_size)
            engine_spec = EngineSpec(
                block_size=block_size, num_blocks=blocks, max_running=2 * batch, prefix_cache=False, step_tokens=1024
            )
            figures = served(Engine(loaded.model, loaded.num_tokens, spec=engine_spec), requests)
            rows.append({"memory for": batch, "requests": 2 * batch, "allocated": name, **figures})
    return Rows(
        f"Requests in the memory of a batch of the longest ({longest} tokens each)",
        rows,
        f"Prompts of {PROMPTS[0]}–{PROMPTS[1]} and answers of {ANSWERS[0]}–{ANSWERS[1]} tokens, log-uniform. Idle: the "
        "share of the memory held by requests in which no token lies, over all steps.",
    )


def mix(
    count: int, num_tokens: int, seed: int, prompts: tuple[int, int] = PROMPTS, answers: tuple[int, int] = ANSWERS
) -> list[tuple[list[int], int]]:
    """Prompts and lengths of answers, log-uniform."""
    chance = random.Random(seed)

    def length(least: int, most: int) -> int:
        return round(math.exp(chance.uniform(math.log(least), math.log(most))))

    return [([chance.randrange(num_tokens) for _ in range(length(*prompts))], length(*answers)) for _ in range(count)]


def served(engine: Engine, requests: Sequence[tuple[list[int], int]]) -> dict[str, Any]:
    """Answers all; throughput, and how the memory was used."""
    for prompt, count in requests:
        engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=count))
    held = used = most = steps = 0
    began = time.perf_counter()
    while engine.waiting or engine.running:
        engine.step()
        tables = [request.table for request in (*engine.running, *engine.waiting) if request.table.blocks]
        held += sum(len(table.blocks) for table in tables) * engine.blocks.block_size
        used += sum(table.length for table in tables)
        most = max(most, len(engine.running))
        steps += 1
    seconds = time.perf_counter() - began
    return {
        "at once, most": most,
        "idle %": 100 * (1 - used / held) if held else 0.0,
        "tokens/s": sum(count for _, count in requests) / seconds,
        "steps": steps,
    }
