"""The scaling node: the runs of a grid → the law of their losses, and a plan by it.

results   one shard: law.json, which `headrace plan-compute --fit` reads, points.json and plan.json
"""

import json
from dataclasses import asdict
from typing import Any

from configs.base import Resources
from configs.study import ScalingSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.scaling.runs import read_runs
from ray_jobs.scaling.study import Study, study_of

STAGE = "results"


def run(spec: ScalingSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Fits the runs that `inputs` holds as `model.RUN` and `evaluation.RUN`.

    Raises:
        ValueError: the runs cannot be compared, one diverged, or they determine no law.
    """
    receipt = output.standing(STAGE)
    if receipt is None:
        receipt = output.write(STAGE, results_of(study_of(read_runs(inputs, spec.budgets), spec)))
    return Outcome(outputs=(STAGE,), metrics=receipt.info["metrics"])


def results_of(study: Study) -> ShardOutput:
    law = study.fit.law
    interval = dict(zip(("low", "high"), study.fit.intervals.get("size_exponent", ()), strict=False))
    metrics: dict[str, float | int | str] = {
        **{name: round(value, 6) for name, value in law.model_dump().items()},
        "size_exponent": round(law.size_exponent, 4),
        **{f"size_exponent_{end}": round(value, 4) for end, value in interval.items()},
        **({"size_exponent_by_parabolas": round(study.power.exponent, 4)} if study.power else {}),
        "residual": round(study.fit.residual, 6),
    }
    return ShardOutput(
        files={
            "law.json": _json(study.law_json()),
            "points.json": _json(study.points_json()),
            "plan.json": _json([asdict(each) for each in study.plan]),
        },
        counters={"runs": len(study.runs), "train_tokens": sum(run.tokens for run in study.runs)},
        info={"metrics": metrics},
    )


def _json(content: Any) -> File:
    return File((json.dumps(content, indent=1) + "\n").encode())
