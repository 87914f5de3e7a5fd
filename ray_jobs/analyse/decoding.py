"""Ways of decoding, side by side on one prompt."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

from configs.analyse import AnalyseSpec
from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.analyse.tables import Rows
from ray_jobs.inference.beams import beam_search
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import Loaded

BEAMS = 4
WAYS: dict[str, dict[str, Any]] = {
    "greedy (T = 0)": {"temperature": 0},
    "T = 0.8": {"temperature": 0.8},
    "T = 1.5": {"temperature": 1.5},
    "top-k 50": {"top_k": 50},
    "top-p 0.9": {"top_p": 0.9},
    "min-p 0.1": {"min_p": 0.1},
    "combined: T = 0.8, top-k 50, top-p 0.95, penalty 1.1": {
        "temperature": 0.8,
        "top_k": 50,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
    },
}


def analyse(loaded: Loaded, spec: AnalyseSpec) -> list[Rows]:
    """Text, likelihood by the model's own distribution, variety and speed of each way."""
    prompt = loaded.encode(spec.prompt)
    engine_spec = EngineSpec(prefix_cache=False)
    blocks = (BEAMS + 1) * (-(-(len(prompt) + spec.new_tokens) // engine_spec.block_size) + 1)
    engine_spec = engine_spec.model_copy(update={"num_blocks": blocks})
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens, spec=engine_spec)
    engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=min(4, spec.new_tokens)))
    engine.run()  # compiles what is compiled
    rows = []
    for name, settings in WAYS.items():
        decoding = DecodingSpec(**settings, seed=spec.seed, max_new_tokens=spec.new_tokens, logprobs=0)
        began = time.perf_counter()
        (request,) = engine.add(prompt, decoding)
        engine.run()
        seconds = time.perf_counter() - began
        total = sum(one.logprob for one in request.logprobs)
        rows.append(_row(loaded, name, request.answer, total, seconds))
    began = time.perf_counter()
    best = beam_search(engine, prompt, BEAMS, spec.new_tokens, length_penalty=0.0)[0]
    rows.append(_row(loaded, f"beam search, {BEAMS} beams", best.tokens, best.score, time.perf_counter() - began))
    return [
        Rows(
            f"{loaded.name} behind “{spec.prompt}”",
            rows,
            "nats a token: −log-probability before temperature and filters, the end of the text left out but by beam "
            "search. distinct pairs: the share of neighbouring tokens that stand once.",
        )
    ]


def _row(loaded: Loaded, name: str, tokens: Sequence[int], total: float, seconds: float) -> dict[str, Any]:
    pairs = list(itertools.pairwise(tokens))
    text: Any = loaded.tokenizer.decode(list(tokens))
    return {
        "way": name,
        "tokens": len(tokens),
        "nats a token": -total / len(tokens) if tokens else None,
        "distinct pairs": len(set(pairs)) / len(pairs) if pairs else None,
        "tokens/s": len(tokens) / seconds,
        "text": text,
    }
