r"""Training speed on GPUs, under torchrun; all variants in one process group, one after another.

    torchrun --nproc-per-node 1 -m tests.benchmarks.pretrain --out FILE.json ours,batch=4 bare,batch=4 ours,batch=4

A variant is a kind and its options. Kinds:

    ours    this repository's model, loss, sharding and step, with its loader, as the pretrain node runs them
    bare    transformers' class in a plain loop, layers compiled, whole logits, autocast over fp32 parameters, no FSDP
    titan   torchtitan's model, sharding or autocast, loss and step (tests/benchmarks/peer_torchtitan.py)
    train   the whole training loop, with its curve and its checkpoints in a file store: `saves` of them, `steps` apart;
            what they cost is the first half's speed, which has none, against the second's

Options: batch (sequences of a micro-batch), accumulate (micro-batches a step), compile (0 or 1), recompute (none,
selective or full), attention (flash, cudnn or any), steps, profile (1 prints the kernels that take longest), float8 (0
or 1), saves.

MFU is by the convention of configs/size.py, over the published dense bf16 peak. After the warm-up, `steps` steps
are timed as one, three times, with a barrier before and after, as a training has none between its steps; the figure is
the median of the three.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.model import ModelSpec
from configs.pretrain import OptimizerSpec, PretrainSpec
from configs.size import model_size, peak_flops
from ray_jobs.tokenizer.loader import TokenDataset
from ray_jobs.tokenizer.streams import LocalStream

VOCABULARY = 32_000
MODELS = {
    # The 1.1B of ../shared's reference figures: 16 heads of 128, 8 of keys and values.
    "1b": ModelSpec(
        hidden=2048, layers=16, heads=16, kv_heads=8, intermediate=8192, max_positions=4096, tied_embeddings=False
    ),
    "8b": ModelSpec(
        hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14336, max_positions=4096, tied_embeddings=False
    ),
    "toy": ModelSpec(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=128, max_positions=64),
}
ATTENTION = {
    "flash": [SDPBackend.FLASH_ATTENTION],
    "cudnn": [SDPBackend.CUDNN_ATTENTION],
}
WARM_UP_STEPS = 5
REPEATS = 3


@dataclass
class Variant:
    kind: str
    model: str = "1b"
    batch: int = 4
    accumulate: int = 1
    compile: int = 1
    recompute: str = "none"
    float8: int = 0
    attention: str = "any"
    steps: int = 10
    sharded: int = 1
    """Of `titan`: FSDP; else autocast, as it does on one GPU."""
    profile: int = 0
    saves: int = 2
    copies: int = 0

    @classmethod
    def parse(cls, text: str) -> "Variant":
        kind, *options = text.split(",")
        types = {field.name: field.type for field in fields(cls)}
        values = dict(option.split("=") for option in options)
        typed: dict[str, Any] = {name: value if types[name] is str else int(value) for name, value in values.items()}
        return cls(kind, **typed)

    @property
    def length(self) -> int:
        return MODELS[self.model].max_positions

    def spec(self) -> PretrainSpec:
        """Of the node, with settings that a run of this size would have."""
        return PretrainSpec(
            model=MODELS[self.model],
            optimizer=OptimizerSpec(learning_rate=3e-4, warmup_steps=0),
            steps=1000,
            global_batch=self.batch * self.accumulate * dist.get_world_size(),
            sequence_length=self.length,
            dtype="fp8" if self.float8 else "bf16",
            recompute=self.recompute,
            compile=bool(self.compile),
        )


Step = Callable[[int], float | Tensor]
"""Takes the training step of this number and gives its loss; a tensor, where that would have to be waited for."""


def data(folder: Path, variant: Variant) -> TokenDataset:
    """Tokens as the tokens node leaves them: ids by Zipf's law, which is that of words."""
    path = folder / f"{variant.model}.bin"
    if not path.exists():
        count = 64 * 1024 * variant.length if variant.model != "toy" else 1 << 16
        ids = np.random.default_rng(0).zipf(1.2, count).astype(np.int64) % VOCABULARY
        ids.astype("<u2").tofile(path)
    return TokenDataset(LocalStream([path], "uint16"), variant.length, seed=0)


def batches_of(
    variant: Variant, dataset: TokenDataset, step: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    world, rank = dist.get_world_size(), dist.get_rank()
    first = step * variant.batch * variant.accumulate * world + rank * variant.batch * variant.accumulate
    for number in range(variant.accumulate):
        tokens = torch.from_numpy(dataset.batch(first + number * variant.batch, variant.batch))
        tokens = (tokens.pin_memory() if device.type == "cuda" else tokens).to(device, non_blocking=True)
        yield tokens[:, :-1], tokens[:, 1:]


def ours(variant: Variant, dataset: TokenDataset, device: torch.device) -> Step:
    from ray_jobs.model.architecture import initialise
    from ray_jobs.pretrain.step import take_step
    from ray_jobs.pretrain.trainer import build

    spec = variant.spec()
    model, optimizer = build(spec, VOCABULARY, device)
    if variant.copies:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_custom_reduce_scatter(DefaultReduceScatter())
        for parameter in model.parameters():
            kept = parameter._local_tensor  # type: ignore[union-attr]
            del kept.fsdp_pre_all_gather, kept.fsdp_post_all_gather
    initialise(model.model, spec.seed)

    def step(number: int) -> float:
        return take_step(model, optimizer, batches_of(variant, dataset, number, device), spec.optimizer.clip_norm).loss

    return step


def bare(variant: Variant, dataset: TokenDataset, device: torch.device) -> Step:
    """What someone would write first."""
    from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config

    spec = variant.spec()
    config = transformers_config(spec.model, VOCABULARY)
    model = empty_model(config, spec.recompute)
    materialise(model, device)
    initialise(model, spec.seed)
    model.train()
    if variant.compile:
        for layer in model.model.layers:
            layer.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(number: int) -> Tensor:
        losses = []
        for inputs_BL, targets_BL in batches_of(variant, dataset, number, device):
            with torch.autocast(device.type, torch.bfloat16):
                logits_BLV = model(input_ids=inputs_BL, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten())
            (loss / variant.accumulate).backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack(losses).mean()

    return step


def titan(variant: Variant, dataset: TokenDataset, device: torch.device) -> Step:
    from tests.benchmarks.peer_torchtitan import step_of

    return step_of(
        variant, MODELS[variant.model], VOCABULARY, device, lambda n: batches_of(variant, dataset, n, device)
    )


KINDS = {"ours": ours, "bare": bare, "titan": titan}


class Lines:
    """The loss curve, kept in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        self.lines.append(record)

    def flush(self) -> None:
        pass


def measure_training(variant: Variant, dataset: TokenDataset, device: torch.device, folder: Path) -> dict[str, Any]:
    """The curve's own figures: a line every 5 steps, of which the first two hold the compilation."""
    from ray_jobs.checkpoint.layout import NodePath
    from ray_jobs.checkpoint.store import open_store
    from ray_jobs.pretrain.steps import StepStore
    from ray_jobs.pretrain.trainer import train

    half = variant.saves * variant.steps
    spec = variant.spec().model_copy(update={"steps": 2 * half, "checkpoint_every": 2 * half, "log_every": 5})
    store = StepStore(open_store(folder / "store"), NodePath("pretrain", f"{os.getppid()}-{time.time_ns()}"))
    lines, taken = Lines(), 0

    def should_save() -> bool:  # asked once a step
        nonlocal taken
        taken += 1
        return taken >= half and taken % variant.steps == 0

    train(spec, VOCABULARY, dataset, store, device, curve=lines, micro_batch=variant.batch, should_save=should_save)
    before = [line for line in lines.lines if 10 < line["step"] <= half]
    after = [line for line in lines.lines if line["step"] > half]
    speeds = [statistics.harmonic_mean(line["tokens_per_second"] for line in part) for part in (before, after)]
    receipt = store.receipts()[0]
    return {
        **{field.name: getattr(variant, field.name) for field in fields(variant)},
        "ranks": dist.get_world_size(),
        "tokens_per_second": [round(speed) for speed in speeds],
        "with_saves_over_without": round(speeds[1] / speeds[0], 4),
        "mfu": statistics.median(line["mfu"] for line in before) if "mfu" in before[-1] else None,
        "data_wait_share": round(max(line["data_wait_share"] for line in before), 5),
        "pauses_s": [round(line["checkpoint_pause_s"], 3) for line in after if line["checkpoint_pause_s"] > 0.001],
        "checkpoint_gb": round(sum(file.bytes for file in receipt.files) / 1e9, 2),
        "peak_gb": lines.lines[-1]["peak_memory_gb"],
        "curve": lines.lines if variant.profile else [],
    }


@contextmanager
def attention_of(variant: Variant) -> Iterator[None]:
    backends = ATTENTION.get(variant.attention)
    with sdpa_kernel(backends) if backends else nullcontext():
        yield


def measure(variant: Variant, dataset: TokenDataset, device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    began = time.perf_counter()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with attention_of(variant):
        step = KINDS[variant.kind](variant, dataset, device)
        number, seconds = 0, []
        first = float(step(number))
        for number in range(1, WARM_UP_STEPS):
            step(number)
        ready = time.perf_counter() - began
        for _ in range(REPEATS):
            wait(cuda)
            start = time.perf_counter()
            for _ in range(variant.steps):
                number += 1
                last = step(number)
            wait(cuda)
            seconds.append((time.perf_counter() - start) / variant.steps)
        if variant.profile:
            profile(step, number + 1)
    tokens = variant.batch * variant.accumulate * dist.get_world_size() * variant.length
    size = model_size(MODELS[variant.model], VOCABULARY, variant.length)
    speed = tokens / statistics.median(seconds)
    peak = peak_flops(torch.cuda.get_device_name(device)) if cuda else None
    return {
        **{field.name: getattr(variant, field.name) for field in fields(variant)},
        "ranks": dist.get_world_size(),
        "tokens_per_second_per_gpu": round(speed / dist.get_world_size()),
        "mfu": round(speed * size.flops_per_token / peak / dist.get_world_size(), 4) if peak else None,
        "step_ms": round(1000 * statistics.median(seconds), 1),
        "step_ms_range": [round(1000 * min(seconds), 1), round(1000 * max(seconds), 1)],
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if cuda else None,
        "first_steps_s": round(ready, 1),
        "loss_first_last": [round(first, 3), round(float(last), 3)],
    }


def wait(cuda: bool) -> None:
    """Until all ranks have done all their work."""
    if cuda:
        torch.cuda.synchronize()
    dist.barrier()


def profile(step: Step, number: int) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        step(number)
        torch.cuda.synchronize()
    if dist.get_rank() == 0:
        print(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=70))


def main() -> None:
    parser = argparse.ArgumentParser(prog="torchrun -m tests.benchmarks.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", help="KIND[,OPTION=VALUE…], measured in this order")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    variants = [Variant.parse(text) for text in arguments.variants]
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    folder = Path(tempfile.gettempdir()) / f"headrace-pretrain-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    results = []
    for variant in variants:
        if dist.get_rank() == 0:
            data(folder, variant)
        dist.barrier()
        try:
            dataset = data(folder, variant)
            if variant.kind == "train":
                result = measure_training(variant, dataset, device, folder)
            else:
                result = measure(variant, dataset, device)
        except torch.OutOfMemoryError as error:
            result = {"kind": variant.kind, "batch": variant.batch, "failed": str(error)[:200]}
        results.append(result)
        if dist.get_rank() == 0:
            print(json.dumps(result), flush=True)
            if arguments.out is not None:
                described = {
                    "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
                    "torch": torch.__version__,
                    "results": results,
                }
                arguments.out.write_text(json.dumps(described, indent=1) + "\n")
        torch._dynamo.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
