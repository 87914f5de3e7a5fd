"""All cells side by side: curves, passkeys, and where each method breaks."""

import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from configs.long_context import CUT, LABELS, TRAINED, LongContextSpec
from ray_jobs.checkpoint.shards import File, OutputFile, ShardOutput
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.long_context.losses import Loss, Sums, excess_of, first_break, loss_of
from ray_jobs.long_context.passkey import outcome
from ray_jobs.long_context.texts import Texts
from ray_jobs.model.scoring import bootstrap_draws

COMPARISON = "comparison.json"
Draws = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Cell:
    """What was measured of one model by one method on texts of one length."""

    model: str
    method: str
    factor: float
    """Training lengths of a text, by which the method stretches."""
    length: int
    sums: Sums
    answers: list[dict[str, Any]]
    """To the passkey's prompts; none where none was asked."""


def read_cell(shard: dict[str, Any], files: Sequence[OutputFile], output: NodeOutput) -> Cell:
    tables = {file.name: pq.read_table(io.BytesIO(output.read(file))) for file in files}
    asked = tables.get("passkeys.parquet")
    answers = [] if asked is None else asked.to_pylist()
    return Cell(**shard, sums=Sums.from_table(tables["losses.parquet"]), answers=answers)


def compare(cells: Sequence[Cell], spec: LongContextSpec, training_length: int, texts: Texts) -> ShardOutput:
    """comparison.json, and the figures of the manifest."""
    draws_ST = bootstrap_draws(len(texts.tokens_TL), spec.bootstrap_samples, spec.seed)
    cut = {cell.model: cell.sums for cell in cells if cell.method == CUT}
    told = [_told(cell, cut[cell.model], spec, draws_ST) for cell in cells]
    counters = {
        "cells": len(cells),
        "texts": len(texts.tokens_TL),
        "tokens": int(sum(cell.sums.tokens_TK.sum() for cell in cells)),
        "prompts": sum(len(cell.answers) for cell in cells),
    }
    results = {
        "training_length": training_length,
        "margin": spec.margin,
        "chance": 1 / (spec.passkey.num_distractors + 1) if counters["prompts"] else None,
        "texts": _of_texts(texts, cells),
        "cells": told,
    }
    data = (json.dumps(results, indent=1) + "\n").encode()
    return ShardOutput({COMPARISON: File(data)}, counters, {"metrics": metrics_of(told)})


def _of_texts(texts: Texts, cells: Sequence[Cell]) -> dict[str, Any]:
    """What the texts are made of."""
    edges = max((cell.sums.edges for cell in cells), key=len)
    own_L = texts.own_TL[:, 1:].mean(axis=0)  # the first token is not scored
    own_K = [float(own_L[begin:end].mean()) for begin, end in itertools.pairwise(edges)]
    return {
        "number": len(texts.tokens_TL),
        "length": edges[-1],
        "documents": texts.num_documents,
        "tokens_a_document": round(texts.num_tokens / texts.num_documents, 1),
        "own_context": [round(value, 1) for value in own_K],
    }


def _told(cell: Cell, cut: Sums, spec: LongContextSpec, draws_ST: Draws) -> dict[str, Any]:
    sums, stretches = cell.sums, list(itertools.pairwise(cell.sums.edges))
    losses = [loss_of(sums, slice(place, place + 1), draws_ST) for place in range(len(stretches))]
    excesses = [excess_of(sums, cut, place, draws_ST) for place in range(len(stretches))]
    broken = first_break(excesses, spec.margin)
    depths = sorted({row["depth"] for row in cell.answers})
    choices = spec.passkey.num_distractors + 1
    return {
        "model": cell.model,
        "method": cell.method,
        "factor": cell.factor,
        "length": cell.length,
        "loss": _rounded(loss_of(sums, slice(None), draws_ST)),
        "end_loss": _rounded(losses[-1]),
        "end_excess": _rounded(excesses[-1]),
        "curve": [
            {"begin": begin, "end": end, "loss": _rounded(loss), "excess": _rounded(excess)}
            for (begin, end), loss, excess in zip(stretches, losses, excesses, strict=True)
        ],
        "breaks": broken,
        "passkey": _short(outcome(cell.answers, choices)) if cell.answers else None,
        "passkey_by_depth": [
            {"depth": depth, **_short(outcome([row for row in cell.answers if row["depth"] == depth], choices))}
            for depth in depths
        ],
    }


def _rounded(loss: Loss) -> dict[str, Any]:
    return {name: None if value is None else round(value, 4) for name, value in asdict(loss).items()}


def _short(shares: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [round(each, 4) for each in value] if isinstance(value, list) else round(value, 4)
        for name, value in shares.items()
    }


def metrics_of(told: Sequence[dict[str, Any]]) -> dict[str, float | int | str]:
    """The loss and the passkey of every cell, and where each method breaks that reads the longest texts."""
    longest = max(cell["length"] for cell in told)
    at_longest = [cell for cell in told if cell["length"] == longest]
    metrics: dict[str, float | int | str] = {"finding": finding(at_longest)}
    for cell in told:
        name = f"{cell['model']}_{cell['method']}"
        metrics[f"{name}_{cell['factor']:g}x_nats"] = cell["loss"]["value"]
        metrics[f"{name}_{cell['factor']:g}x_end_nats"] = cell["end_loss"]["value"]
        if cell["passkey"]:
            metrics[f"{name}_{cell['factor']:g}x_passkey"] = cell["passkey"]["first"]
        if cell["length"] == longest and cell["method"] != CUT:
            metrics[f"{name}_breaks_at"] = "nowhere" if cell["breaks"] is None else _begin_of_break(cell)
    return metrics


def _begin_of_break(cell: dict[str, Any]) -> int:
    """The first token of the stretch, counted from 1."""
    return int(cell["curve"][cell["breaks"]]["begin"]) + 1


def finding(at_longest: Sequence[dict[str, Any]]) -> str:
    """One sentence on the longest texts: where models break as trained, and what is best."""
    parts = []
    for cell in at_longest:
        if cell["method"] == TRAINED:
            where = "does not break" if cell["breaks"] is None else f"breaks at token {_begin_of_break(cell)}"
            parts.append(f"{cell['model']} {where}")
    best = min(at_longest, key=lambda cell: float(cell["loss"]["value"]))
    return (
        f"in texts of {best['length']} tokens {', '.join(parts)}; least loss: {best['model']} "
        f"{LABELS[best['method']]}, {best['loss']['value']:.2f} nats"
    )
