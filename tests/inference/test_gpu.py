"""On a GPU, by Triton's kernels and CUDA graphs, answers are those of a CPU."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference import paged_cpu
from ray_jobs.inference.drafts import NgramDraft
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.memory import Memory
from tests.inference.test_engine import SPECS, VOCABULARY, model_of, prompts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize(
    ("groups", "heads", "width", "block_size", "kv_dtype"),
    [(2, 4, 8, 4, "model"), (8, 32, 128, 16, "model"), (8, 8, 64, 16, "int8"), (3, 9, 80, 1, "model")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [None, 1, 8])
def test_kernels_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch,
    groups: int,
    heads: int,
    width: int,
    block_size: int,
    kv_dtype: Any,
    dtype: torch.dtype,
    parts: int | None,
) -> None:
    from ray_jobs.inference import paged_gpu

    if parts:
        monkeypatch.setattr(paged_gpu, "_num_parts", lambda *_: parts)
    torch.manual_seed(0)
    lengths = torch.tensor([1, 17, 64, 200, 300], dtype=torch.int32)
    blocks_each = -(-300 // block_size)
    tables = torch.randperm(len(lengths) * blocks_each).view(len(lengths), -1).int()
    k, v = (torch.randn(300, len(lengths), groups, width, dtype=dtype) for _ in range(2))
    q = torch.randn(len(lengths), heads, width, dtype=dtype)
    results = []
    for device, kernels in (("cpu", paged_cpu), ("cuda", paged_gpu)):
        config = SimpleNamespace(num_hidden_layers=1, num_key_value_heads=groups, head_dim=width)
        model: Any = SimpleNamespace(config=config, dtype=dtype, device=torch.device(device))
        memory = Memory(model, tables.numel(), block_size, kv_dtype)
        positions = torch.arange(300)
        for row in range(len(lengths)):
            slots = tables[row].long()[positions // block_size] * block_size + positions % block_size
            kernels.write(memory, 0, slots.to(device), k[:, row].to(device), v[:, row].to(device))
        step: Any = SimpleNamespace(memory=memory, tables_RB=tables.to(device), lengths_R=lengths.to(device))
        out = torch.empty_like(q, device=device)
        kernels.attend(q.to(device), step, 0, width**-0.5, out)
        results.append((out.cpu().float(), memory))
    (on_cpu, cpu_memory), (on_gpu, gpu_memory) = results
    tolerance = 2e-2 if dtype == torch.bfloat16 else 5e-3  # fp32 products are TF32 on tensor cores
    torch.testing.assert_close(on_gpu, on_cpu, rtol=tolerance, atol=tolerance)
    difference = (gpu_memory.keys[0].cpu().float() - cpu_memory.keys[0].float()).abs()
    assert difference.max() <= (1 if kv_dtype == "int8" else 0) and (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("name", ["llama", "yarn", "qwen2", "qwen3"])
def test_greedy_answers_are_the_cpus_with_and_without_graphs(name: str) -> None:
    asked = prompts(9)
    wanted: list[list[int]] | None = None
    for device, compiled in (("cpu", None), ("cuda", False), ("cuda", True)):
        engine = Engine(model_of(name).to(device), VOCABULARY, spec=EngineSpec(max_running=6, compiled=compiled))
        requests = [engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=25))[0] for prompt in asked]
        engine.run()
        answers = [request.answer for request in requests]
        wanted = wanted or answers
        assert answers == wanted, (device, compiled)
        assert engine.blocks.num_available == engine.spec.num_blocks


def test_sampled_and_speculated_answers_are_the_same_with_and_without_graphs() -> None:
    answers = []
    for compiled in (False, True):
        engine = Engine(
            model_of().to("cuda"), VOCABULARY, spec=EngineSpec(compiled=compiled), draft=NgramDraft(shortest=1)
        )
        requests = [engine.add(*one)[0] for one in zip(prompts(6), itertools.cycle(SPECS), strict=False)]
        engine.run()
        answers.append([request.answer for request in requests])
        assert sum(engine.acceptance.proposed) > 0
    assert answers[0] == answers[1]
