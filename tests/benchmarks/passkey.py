"""The passkey beyond the training length, by models that were taught to find it within.

    python -m tests.benchmarks.passkey [--steps 1000] [--out FILE.json]

A model of a million parameters that was trained on text alone finds no passkey, at whatever length. Here two small ones
(3 layers, hidden 64, 180,000 parameters), one with RoPE and one with ALiBi, are trained on sequences of 128 tokens that
each tell a number among Python's own sources and ask for it. Both are asked for numbers that they have not seen, at 1,
2 and 4 times that length, the one with RoPE by each method that stretches its positions.
"""

import argparse
import datetime
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from configs.long_context import LABELS, TRAINED, PasskeySpec
from configs.model import ModelSpec
from ray_jobs.long_context.passkey import Passkeys, Trial, answers, draw_passkeys, outcome
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.positions import stretch
from ray_jobs.tokenizer.encode import Encoder
from tests.benchmarks.harness import RESULTS, commit, machine
from tests.pretrain.corpus import VOCABULARY, documents, tokenizer_json

LENGTH, BATCH, LEARNING_RATE, WARMUP = 128, 24, 4e-3, 100
SHAPES: dict[str, dict[str, Any]] = {
    "rope": {"intermediate": 168},
    "alibi": {"architecture": "mpt", "intermediate": 256},
}
METHODS: dict[str, tuple[Any, ...]] = {
    "rope": (TRAINED, "linear", "ntk", "dynamic", "yarn", "llama3"),
    "alibi": (TRAINED,),
}
FACTORS = (1, 2, 4)
ASKED = PasskeySpec(num_trials=20)
TAUGHT = PasskeySpec(num_trials=4000, num_distractors=1, depths=(0.0,), seed=1)


def new_model(name: str) -> Any:
    spec = ModelSpec(hidden=64, layers=3, heads=4, max_positions=LENGTH, **SHAPES[name])
    model = empty_model(transformers_config(spec, VOCABULARY))
    materialise(model, torch.device("cpu"))
    initialise(model, seed=0)
    return model


def taught_keys(encoder: Encoder, asked: Passkeys) -> Passkeys:
    """Other numbers than those that are asked for, nor told apart from them."""
    used = {tuple(row) for trial in asked.trials for row in trial.choices_KD.tolist()}
    drawn = draw_passkeys(TAUGHT, encoder)
    kept = [trial for trial in drawn.trials if tuple(trial.choices_KD[0].tolist()) not in used]
    return Passkeys(
        tuple(trial for trial in kept if trial.choices_KD.shape == kept[0].choices_KD.shape), drawn.question
    )


def teach(model: Any, keys: Passkeys, stream: np.ndarray, steps: int) -> float:
    """AdamW on the mean over all tokens and, as much again, over the answers'. Returns the last steps' answer loss."""
    generator = np.random.Generator(np.random.PCG64(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    told, last = keys.num_key_tokens, []

    def sequence() -> np.ndarray:
        place, begin = int(generator.integers(len(keys.trials))), int(generator.integers(len(stream) - LENGTH))
        trial: Trial = keys.trials[place]
        prompt = keys.prompt(place, stream[begin : begin + LENGTH], LENGTH, float(generator.random()))
        return np.concatenate([prompt, trial.choices_KD[0]])

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * (1 - 0.9 * step / steps)
        tokens_BL = torch.from_numpy(np.stack([sequence() for _ in range(BATCH)]))
        logits_BLV = model(tokens_BL[:, :-1]).logits
        nll_BL = F.cross_entropy(logits_BLV.transpose(1, 2), tokens_BL[:, 1:], reduction="none")
        answer = nll_BL[:, -told:].mean()
        optimizer.zero_grad()
        (nll_BL.mean() + answer).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last.append(float(answer.detach()))
    return sum(last[-20:]) / len(last[-20:])


def ask(model: Any, keys: Passkeys, stream: np.ndarray, length: int) -> dict[str, Any]:
    """All trials at one length, with their depths."""
    depths = [ASKED.depths[place % len(ASKED.depths)] for place in range(len(keys.trials))]
    texts_PL = [stream[place * length : (place + 1) * length] for place in range(len(stream) // length)]
    prompts_PL = np.stack(
        [keys.prompt(place, texts_PL[place % len(texts_PL)], length, depth) for place, depth in enumerate(depths)]
    )
    choices_PKD = np.stack([trial.choices_KD for trial in keys.trials])
    found = answers(model, prompts_PL, choices_PKD, 20, VOCABULARY)
    rows = [
        {"depth": depth, "num_likelier": answer.num_likelier, "written": answer.written == tuple(right.tolist())}
        for depth, answer, right in zip(depths, found, choices_PKD[:, 0], strict=True)
    ]
    by_depth = {
        f"{depth:g}": outcome([row for row in rows if row["depth"] == depth], ASKED.num_distractors + 1)["first"]
        for depth in ASKED.depths
    }
    return {**outcome(rows, ASKED.num_distractors + 1), "first_by_depth": by_depth}


def measured(name: str, steps: int) -> tuple[float, list[dict[str, Any]]]:
    """The loss of the answers when it was taught, and a row for each method and length."""
    torch.set_num_threads(1)
    encoder = Encoder(tokenizer_json().encode())
    asked = draw_passkeys(ASKED, encoder)
    stream = np.concatenate([encoder.encode(text) for text in documents()])
    seen, unseen = np.split(stream, [int(len(stream) * 0.75)])
    taught, began = new_model(name), time.monotonic()
    loss = teach(taught, taught_keys(encoder, asked), seen, steps)
    print(f"{name}: answers {loss:.3f} nats a token, taught in {time.monotonic() - began:.0f} s", flush=True)
    rows = []
    for method in METHODS[name]:
        for factor in FACTORS if method == TRAINED else FACTORS[1:]:
            model = new_model(name)
            model.load_state_dict(taught.state_dict())
            if method != TRAINED:
                stretch(model, method, factor, LENGTH)
            found = ask(model.eval(), asked, unseen, factor * LENGTH)
            rows.append({"model": name, "method": LABELS[method], "length": factor * LENGTH, **found})
            shown = f"first {found['first']:.2f} written {found['written']:.2f} {found['first_by_depth']}"
            print(f"{name:6} {LABELS[method]:12} {factor * LENGTH:5} {shown}", flush=True)
    return loss, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / f"passkey-{datetime.date.today():%Y%m%d}.json")
    options = parser.parse_args()
    with ProcessPoolExecutor(len(SHAPES), multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(SHAPES, pool.map(measured, SHAPES, [options.steps] * len(SHAPES)), strict=True))
    content = {
        "commit": commit(),
        "machine": machine(),
        "steps": options.steps,
        "answer_loss": {name: loss for name, (loss, _) in found.items()},
        "chance": 1 / (ASKED.num_distractors + 1),
        "rows": [row for _, rows in found.values() for row in rows],
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
