"""Which remedy stops which cause of a loss spike.

    python -m tests.benchmarks.stability [--steps 240] [--out FILE.json]

A small model (2 layers, hidden 64, 131,000 parameters) is trained on Python's own sources; harm is done to it half-way:
an outsized gradient (one step's, × 10⁶), a collapse of attention (queries and keys × 12), poison batches (four of one
token again and again), and, from the beginning, too high a learning rate (0.1). Each is met without any remedy, with
one at a time, and with all. What is told is the mean loss above that of the same training undisturbed, over the steps
behind the harm and over the last tenth. Where the rate is too high, it is that above the training at the usual rate.
"""

import argparse
import contextlib
import datetime
import json
import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import RESULTS, commit, machine

PLAIN: dict[str, Any] = {
    "model": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 192, "max_positions": 64},
    "optimizer": {"learning_rate": 6e-3, "warmup_steps": 2, "clip_norm": 1e12},
    "global_batch": 16,
    "sequence_length": 64,
    "log_every": 1,
}
REMEDIES: dict[str, dict[str, Any]] = {
    "none": {},
    "clipping": {"optimizer": {"clip_norm": 1.0}},
    "z-loss": {"optimizer": {"z_loss": 1e-4}},
    "QK-norm": {"model": {"architecture": "qwen3"}},
    "warm-up": {"optimizer": {"warmup_steps": 60}},
    "skipping": {
        "checkpoint_every": 20,
        "spikes": {
            "action": "rollback",
            "window": 32,
            "lasting": 1,
            "rollback_steps": 5,
            "skip_before": 2,
            "skip_after": 4,
            "max_rollbacks": 10,
        },
    },
}
HIGH_RATE = {"optimizer": {"learning_rate": 0.1}}


def merged(*changes: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for change in changes:
        for name, value in change.items():
            whole[name] = {**whole.get(name, {}), **value} if isinstance(value, dict) else value
    return whole


def loss_of(folder: Path, spec: dict[str, Any], harm: Callable[[], contextlib.AbstractContextManager[None]]) -> Any:
    """The loss of every step and the spikes; None in place of both, and the error, where training gave up."""
    from ray_jobs.checkpoint.store import open_store
    from ray_jobs.pretrain.curve import read_curve
    from ray_jobs.pretrain.launch import train_rank
    from ray_jobs.pretrain.steps import StepStore
    from tests.pretrain.corpus import publish_tokenizer, publish_tokens
    from tests.pretrain.ranks import job_of

    store = open_store(folder)
    tokenizer = publish_tokenizer(store)
    keys = {"tokenizer": tokenizer.key, "tokens": publish_tokens(store, tokenizer).key}
    job = job_of(store.url, keys, spec, "study")
    try:
        with harm():
            train_rank(job)
    except ValueError as error:
        return None, [], str(error)
    receipt = StepStore(store, job.path).of_step(job.spec.steps)
    assert receipt is not None
    losses = [line["loss"] for line in read_curve(store, job.path, receipt)]
    return losses, receipt.state["spikes"]["spikes"], ""


def study(steps: int) -> list[dict[str, Any]]:
    from tests.pretrain.harm import collapsed, harmed, outsized, poisoned

    at = steps // 2
    causes: dict[str, tuple[dict[str, Any], Callable[[], contextlib.AbstractContextManager[None]]]] = {
        "undisturbed": ({}, contextlib.nullcontext),
        "outsized gradient": ({}, lambda: harmed(at, outsized(1e6))),
        "attention collapse": ({}, lambda: harmed(at, collapsed(12))),
        "poison batches": ({}, lambda: poisoned(range(at, at + 4))),
        "too high a rate": (HIGH_RATE, contextlib.nullcontext),
    }
    remedies = {**REMEDIES, "all": merged(*REMEDIES.values())}
    rows = []
    for remedy, change in remedies.items():
        usual: list[float] = []
        for cause, (setting, harm) in causes.items():
            with tempfile.TemporaryDirectory() as folder:
                spec = merged(PLAIN, {"steps": steps, "checkpoint_every": steps}, setting, change)
                losses, spikes, error = loss_of(Path(folder), spec, harm)
            if cause == "undisturbed":
                usual = losses
            row = {"remedy": remedy, "cause": cause, "gave_up": error, "spikes": len(spikes)}
            if losses is not None:
                begin = 0 if setting else at
                behind = [mine - other for mine, other in zip(losses[begin:], usual[begin:], strict=True)]
                row["excess"] = round(statistics.mean(behind[: steps // 4]), 3)
                row["excess_at_end"] = round(statistics.mean(behind[-steps // 10 :]), 3)
                row["loss_at_end"] = round(statistics.mean(losses[-steps // 10 :]), 3)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    import torch.distributed as dist

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stability", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--out", type=Path, default=RESULTS / f"stability-{datetime.date.today():%Y%m%d}.json")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rows = study(arguments.steps)
    dist.destroy_process_group()
    result = {"commit": commit(), "machine": machine(), "steps": arguments.steps, "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
