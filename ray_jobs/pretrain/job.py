"""The pretrain node: tokens → a model that `from_pretrained` loads.

Training leaves checkpoints in the node's folder, whoever ran it: this job's own process (one worker), Ray Train (more),
or torchrun (`ray_jobs/pretrain/__main__.py`). When the last step's checkpoint stands, this job exports it.
"""

import json
import logging
import statistics
from typing import Any

from configs.base import Resources
from configs.pretrain import EVAL_SETS, PretrainSpec
from configs.size import model_size
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import File, Outcome, Receipt, ShardOutput
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.model.files import model_files, tokenizer_files, vocabulary_of
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.inputs import (
    check_batch,
    check_same_tokenizer,
    training_samples,
)
from ray_jobs.pretrain.launch import Progress, TrainingJob, cpu_seconds_of_ranks, train_here
from ray_jobs.pretrain.steps import DamagedStep, StepReceipt, StepStore

log = logging.getLogger("headrace")

STAGE = "model"


def run(spec: PretrainSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Trains, from wherever an earlier attempt came to, and publishes the model.

    Raises:
        ValueError: the tokens fit neither tokenizer, batch nor ranks, or the loss is no longer a number.
        NodeFailed: too many workers were lost, or the job was told to stop; what was trained is kept.
    """
    receipt = output.standing(STAGE)
    if receipt is None:
        receipt = _train_and_export(spec, inputs, output, resources)
    return Outcome(
        outputs=(STAGE,),
        metrics=receipt.info["metrics"],
        cpu_seconds=cpu_seconds_of_ranks(output.store, output.node_path),
    )


def _train_and_export(
    spec: PretrainSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources
) -> Receipt:
    job = training_job(spec, inputs, output.store, output.node_path, output.attempt, resources)
    steps = StepStore(output.store, output.node_path)
    while True:
        final = steps.of_step(spec.steps)
        if final is None:
            train(job, output.progress)
            final = steps.of_step(spec.steps)
            assert final is not None, "training came to its end without publishing its last step"
        try:
            exported = export(job, steps, final, inputs["tokenizer"])
        except DamagedStep as damage:
            log.warning("the checkpoint of the last step is taken again from the one before: %s", damage)
            steps.withdraw(final)
            continue
        return output.write(STAGE, exported)


def train(job: TrainingJob, progress: Progress) -> None:
    """Trains until the last step's checkpoint stands."""
    if job.resources.workers == 1:
        train_here(job, progress)
    else:
        from ray_jobs.pretrain.on_ray import train_on_ray

        train_on_ray(job, progress)


def training_job(
    spec: PretrainSpec,
    inputs: dict[str, Checkpoint],
    store: Store,
    path: NodePath,
    attempt: str,
    resources: Resources,
) -> TrainingJob:
    """Checks what can be checked before any rank starts. Raises ValueError as `run` does."""
    vocabulary = vocabulary_of(inputs["tokenizer"])
    check_same_tokenizer(inputs["tokens"], inputs["tokenizer"])
    check_batch(spec, len(training_samples(inputs["tokens"], spec, resources)), resources.workers)
    scored = None
    if spec.evaluation is not None:
        from ray_jobs.pretrain.measured import measured

        scored = measured(spec.evaluation, inputs["tokens"], inputs["tokenizer"], inputs.get(EVAL_SETS))
    return TrainingJob(spec, inputs["tokens"], vocabulary, store, path, attempt, resources, scored)


def export(job: TrainingJob, steps: StepStore, final: StepReceipt, tokenizer: Checkpoint) -> ShardOutput:
    """The model of the last checkpoint as `from_pretrained` loads it, and its whole loss curve.

    Raises:
        DamagedStep: an object of the checkpoint is gone or changed.
    """
    from ray_jobs.pretrain.tensors import read_tensors

    spec, vocabulary = job.spec, job.vocabulary
    weights = read_tensors(steps, final, "model.")
    curve = read_curve(job.store, job.path, final)
    size = model_size(spec.model, vocabulary.num_tokens, spec.sequence_length)
    num_tokens = spec.steps * spec.global_batch * spec.sequence_length
    lines = "".join(json.dumps(line) + "\n" for line in curve)
    speeds = [line["tokens_per_second"] for line in curve]
    return ShardOutput(
        files={
            **tokenizer_files(tokenizer),
            **model_files(spec.model, vocabulary, weights, spec.dtype),
            # Rates make it differ from run to run.
            "metrics.jsonl": File(lines.encode(), len(curve), volatile=True),
        },
        counters={"train_tokens": num_tokens, "train_steps": spec.steps, "parameters": size.parameters},
        info={
            "metrics": {
                "loss": round(curve[-1]["loss"], 4),
                **heldout_of(curve[-1]),
                "parameters": size.parameters,
                "train_tokens": num_tokens,
                "epochs": round(curve[-1]["epoch"], 3),
                "tokens_per_second": round(statistics.median(speeds)),
                "train_flops": size.flops_per_token * num_tokens,
                **({"mfu": round(statistics.median(line["mfu"] for line in curve), 4)} if "mfu" in curve[-1] else {}),
            }
        },
    )


def heldout_of(line: dict[str, Any]) -> dict[str, float]:
    """What the last evaluation found, as figures of the node."""
    found = {name: round(line[name], 4) for name in ("heldout_bits_per_byte",) if name in line}
    return found | {f"accuracy.{name}": round(share, 4) for name, share in line.get("accuracy_by_set", {}).items()}
