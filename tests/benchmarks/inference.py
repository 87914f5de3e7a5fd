"""python -m tests.benchmarks.inference: the engine on processors, with SmolLM2-135M-Instruct.

--input: its folder of transformers' files, as `python -m tests.inference.smollm2 FOLDER` makes it. bf16 where the
processor computes with it. What is compared runs in turns in one process. On a GPU: `inference_gpu`.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.analyse.kv import mix
from ray_jobs.inference.drafts import NgramDraft
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import dtype_of
from tests.benchmarks.harness import Bench, NotMeasured, figure, main
from tests.benchmarks.inference_gpu import speculation

NUM_TOKENS = 49_152
PROMPT = list(range(100, 132))
NUM_REQUESTS, BATCH_SIZES = 48, (8, 16, 48)
PROMPTS, ANSWERS = (16, 512), (16, 256)


@cache
def model_of(folder: Path | None) -> Any:
    from transformers import AutoModelForCausalLM

    if folder is None:
        raise NotMeasured("needs --input: python -m tests.inference.smollm2 FOLDER makes it")
    dtype = dtype_of("auto", torch.device("cpu"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@figure("×", target="≥ 5", repeats=1, warm_up=False)
def cache_speedup_at_256_tokens(bench: Bench) -> float:
    """With keys and values kept against without, transformers' forward pass over the whole text for each token."""
    model = model_of(bench.input)
    model.config._attn_implementation = "sdpa"
    tokens = list(PROMPT)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(256):
            logits = model(torch.tensor([tokens]), use_cache=False, logits_to_keep=1).logits
            tokens.append(int(logits[0, -1].argmax()))
    without = time.perf_counter() - began
    engine = Engine(model, NUM_TOKENS, spec=EngineSpec(num_blocks=64))
    engine.add(PROMPT, DecodingSpec(temperature=0, max_new_tokens=8))
    engine.run()
    (request,) = engine.add(PROMPT, DecodingSpec(temperature=0, max_new_tokens=256))
    began = time.perf_counter()
    engine.run()
    with_cache = time.perf_counter() - began
    equal = sum(a == b for a, b in zip(request.answer, tokens[len(PROMPT) :], strict=True))
    bench.notes |= {"without_s": round(without, 1), "with_s": round(with_cache, 1), "equal_tokens": equal}
    bench.notes |= {"dtype": str(model.dtype), "threads": torch.get_num_threads()}
    return without / with_cache


@figure("×", target="≥ 2", repeats=1, warm_up=False)
def continuous_batching_against_generate(bench: Bench) -> float:
    """Prompts of 16–512 and answers of 16–256 tokens, log-uniform: against transformers' generate in batches, left
    padded, in the order of their coming, each as long as its longest answer; the best of some batch sizes."""
    model = model_of(bench.input)
    requests = mix(NUM_REQUESTS, NUM_TOKENS, 0, PROMPTS, ANSWERS)
    wanted = sum(count for _, count in requests)
    seconds = {}
    for size in BATCH_SIZES:
        model.config._attn_implementation = "sdpa"
        began = time.perf_counter()
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            longest, most = max(len(prompt) for prompt, _ in batch), max(count for _, count in batch)
            tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _ in batch])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])
            model.generate(
                tokens, attention_mask=mask, do_sample=False, max_new_tokens=most, min_new_tokens=most, pad_token_id=0
            )
        seconds[size] = time.perf_counter() - began
    spec = EngineSpec(num_blocks=8192, max_running=64, step_tokens=512, prefix_cache=False)
    engine = Engine(model, NUM_TOKENS, spec=spec)
    for prompt, count in requests:
        engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=count))
    began = time.perf_counter()
    engine.run()
    ours = time.perf_counter() - began
    bench.notes |= {f"generate_{size}_tokens_per_s": round(wanted / took, 1) for size, took in seconds.items()}
    bench.notes |= {"engine_tokens_per_s": round(wanted / ours, 1), "dtype": str(model.dtype)}
    return min(seconds.values()) / ours


@figure("share", target="≥ .85", repeats=1, warm_up=False)
def speculation_share_of_ideal(bench: Bench) -> float:
    """A scripted draft of 4 tokens that agrees at .8, as a share of (1 − α⁵)/((1 − α)(4c + 1))."""
    result = speculation(model_of(bench.input), NUM_TOKENS, [PROMPT], 4, 160)
    bench.notes |= result
    return float(result["share_of_ideal"])


@figure("×", repeats=1, warm_up=False)
def lookup_speedup(bench: Bench) -> float:
    """A real draft: what followed before in the text, for a text that is asked for again."""
    from transformers import AutoTokenizer

    model: Any = model_of(bench.input)
    tokenizer: Any = AutoTokenizer.from_pretrained(bench.input)
    text = (
        "Repeat this text word by word: A headrace is the channel that carries water to a mill wheel. The water comes "
        "from a weir, runs along the channel, and falls on the wheel, which turns the stones that grind the corn."
    )
    ids = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
    ends = [tokenizer.eos_token_id]
    took, answers = [], []
    for draft in (None, NgramDraft(count=6), None, NgramDraft(count=6)):
        engine = Engine(model, NUM_TOKENS, ends, spec=EngineSpec(num_blocks=256, prefix_cache=False), draft=draft)
        (request,) = engine.add(ids, DecodingSpec(temperature=0, max_new_tokens=96))
        engine.step()
        began = time.perf_counter()
        engine.run()
        took.append((time.perf_counter() - began) / max(1, len(request.answer) - 1))
        answers.append(request.answer)
    bench.notes |= {
        "rates": [round(rate, 2) for rate in engine.acceptance.rates],
        "tokens_per_round": round(engine.acceptance.tokens_per_round, 2),
        "tokens": len(answers[0]),
        "same_text": answers[0] == answers[1],
    }
    return (took[0] + took[2]) / (took[1] + took[3])


if __name__ == "__main__":
    main("inference", __name__)
