"""The runs of a study as their checkpoints tell of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.study import EVALUATION, MODEL
from ray_jobs.checkpoint.checkpoint import Checkpoint

# What an evaluation must have in common with the others for losses to be comparable.
SAME_INPUTS = ("tokens", "tokenizer")
SAME_WINDOW = ("context_length", "stride", "documents")


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    name: str
    budget: float
    """The nearest of the study's, in FLOPs."""
    parameters: int
    tokens: int
    """Trained on; a repeated one counts each time."""
    flops: float
    """What it took, by configs/size.py."""
    loss: float
    """On held-out text, in nats a token."""
    training_loss: float
    """Of the last line of its curve."""
    epochs: float
    steps: int
    learning_rate: float


def read_runs(inputs: Mapping[str, Checkpoint], budgets: Sequence[float]) -> list[Run]:
    """The runs by budget and size.

    Raises:
        ValueError: evaluations that cannot be compared, or are of other models than the trainings beside them; or a
            run that diverged.
    """
    names = [slot.removeprefix(f"{MODEL}.") for slot in inputs if slot.startswith(f"{MODEL}.")]
    pairs = {name: (inputs[f"{MODEL}.{name}"], inputs[f"{EVALUATION}.{name}"]) for name in names}
    _check_same(pairs)
    runs = [_read_run(name, model, evaluation, budgets) for name, (model, evaluation) in pairs.items()]
    return sorted(runs, key=lambda run: (run.budget, run.parameters, run.name))


def _read_run(name: str, model: Checkpoint, evaluation: Checkpoint, budgets: Sequence[float]) -> Run:
    metrics, spec = model.manifest.metrics, model.manifest.payload["spec"]
    results = _results(evaluation)
    flops = float(metrics["train_flops"])
    run = Run(
        name=name,
        budget=min(budgets, key=lambda budget: abs(math.log(budget / flops))),
        parameters=int(metrics["parameters"]),
        tokens=int(metrics["train_tokens"]),
        flops=flops,
        loss=math.log(results["model"]["perplexity"]),
        training_loss=float(metrics["loss"]),
        epochs=float(metrics["epochs"]),
        steps=int(spec["steps"]),
        learning_rate=float(spec["optimizer"]["learning_rate"]),
    )
    chance = math.log(results["unigram"]["perplexity"])
    if not run.loss < chance:
        raise ValueError(
            f"run {name} diverged, or has hardly begun to learn: its held-out loss is {run.loss:.3f}, and that of the "
            f"bare frequencies of tokens {chance:.3f}. Lower its learning rate ({run.learning_rate:g}) by "
            f"sizes.SIZE.learning_rate, or leave it out by leave_out=[{name}]"
        )
    return run


def _results(evaluation: Checkpoint) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(evaluation.read(evaluation.file("results.json")))
    return results


def _check_same(pairs: Mapping[str, tuple[Checkpoint, Checkpoint]]) -> None:
    first_name, (_, first) = next(iter(pairs.items()))
    window = {name: _results(first)[name] for name in SAME_WINDOW}
    for name, (model, evaluation) in pairs.items():
        if evaluation.manifest.inputs["model"].key != model.key:
            raise ValueError(
                f"evaluation.{name} is of model {evaluation.manifest.inputs['model'].key[:16]}, and model.{name} is "
                f"{model.key[:16]}: name the evaluation of that model"
            )
        for slot in SAME_INPUTS:
            keys = [checkpoint.manifest.inputs[slot].key[:16] for checkpoint in (evaluation, model, first)]
            if len(set(keys)) > 1:
                raise ValueError(
                    f"runs {name} and {first_name} are of different {slot} ({', '.join(dict.fromkeys(keys))}): their "
                    "losses cannot be compared; train and evaluate all on the same"
                )
        other = {key: _results(evaluation)[key] for key in SAME_WINDOW}
        if other != window:
            raise ValueError(
                f"runs {name} and {first_name} are evaluated on different windows ({other}, {window}): give all "
                "evaluations the same context_length, stride and max_documents"
            )
