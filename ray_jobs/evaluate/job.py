"""The evaluate node: how well the model predicts held-out text, beside two that only count, and what it writes."""

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs.base import Resources
from configs.evaluate import EvaluateSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.evaluate.ngram import TrigramModel, unigram_logprobs
from ray_jobs.model.files import context_of, link_model, load_model, vocabulary_of
from ray_jobs.tokenizer.heldout import HeldOut, heldout_documents

log = logging.getLogger("headrace")

STAGE = "results"


def run(spec: EvaluateSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Scores the model on the tokens node's held-out documents and lets it write.

    Raises:
        ValueError: there is no held-out document, the tokens are another tokenizer's, or the windows or samples do not
            fit the model.
    """
    receipt = output.standing(STAGE)
    if receipt is None:
        receipt = output.write(STAGE, evaluate(spec, inputs, resources))
    return Outcome(outputs=(STAGE,), metrics=receipt.info["metrics"])


def evaluate(spec: EvaluateSpec, inputs: dict[str, Checkpoint], resources: Resources) -> ShardOutput:
    """The results, all of them a function of spec and inputs."""
    import torch

    from ray_jobs.evaluate.perplexity import document_nlls, score
    from ray_jobs.evaluate.samples import write_samples
    from ray_jobs.model.scoring import bootstrap_draws

    torch.set_num_threads(max(1, int(resources.cpus)))
    check_same_tokenizer(inputs)
    vocabulary = vocabulary_of(inputs["tokenizer"])
    documents = heldout_documents(inputs["tokens"], spec.max_documents)
    with tempfile.TemporaryDirectory() as folder:
        link_model(inputs["model"], Path(folder))
        model, tokenizer = load_model(Path(folder))
        context, stride = window(spec, context_of(model))
        nlls = {
            "model": document_nlls(model, documents, vocabulary.eos_id, context, stride, spec.batch),
            **baseline_nlls(inputs["tokens"], documents, vocabulary.num_tokens, vocabulary.eos_id, spec),
        }
        samples = write_samples(model, tokenizer, documents, vocabulary.eos_id, spec.sampling)
    draws = bootstrap_draws(len(documents), spec.bootstrap_samples, spec.seed)
    scores = {name: score(values, documents, draws) for name, values in nlls.items()}
    counters = {
        "documents": len(documents),
        "tokens": sum(len(document.tokens) for document in documents),
        "bytes": sum(document.num_bytes for document in documents),
    }
    results = {
        **{name: result.to_json() for name, result in scores.items()},
        **counters,
        "context_length": context,
        "stride": stride,
    }
    metrics: dict[str, float | int | str] = {
        "bits_per_byte": round(scores["model"].bits_per_byte, 4),
        "perplexity": round(scores["model"].perplexity, 3),
        "unigram_bits_per_byte": round(scores["unigram"].bits_per_byte, 4),
        "trigram_bits_per_byte": round(scores["trigram"].bits_per_byte, 4),
    }
    if scores["model"].interval is not None:
        low, high = scores["model"].interval
        metrics |= {"bits_per_byte_low": round(low, 4), "bits_per_byte_high": round(high, 4)}
    return ShardOutput(
        files={
            "results.json": _json(results),
            "samples.json": _json([sample.to_json() for sample in samples]),
        },
        counters=counters,
        info={"metrics": metrics},
    )


def check_same_tokenizer(inputs: dict[str, Checkpoint]) -> None:
    """Raises ValueError where the tokens, or the model, are another tokenizer's."""
    for slot in ("tokens", "model"):
        made_by = inputs[slot].manifest.inputs.get("tokenizer")
        if made_by is not None and made_by.key != inputs["tokenizer"].key:
            raise ValueError(
                f"the {slot} {inputs[slot].key[:16]} are of tokenizer {made_by.key[:16]}, but this node's tokenizer is "
                f"{inputs['tokenizer'].key[:16]}: their ids mean other words; give both slots the same tokenizer"
            )


def window(spec: EvaluateSpec, max_positions: int) -> tuple[int, int]:
    """Context and stride of the scoring window. Raises ValueError where they do not fit the model or each other."""
    context = spec.context_length or max_positions
    stride = spec.stride or max(1, context // 2)
    if context > max_positions:
        raise ValueError(f"context_length ({context}) is more than the model's {max_positions} positions: lower it")
    if stride > context:
        raise ValueError(f"stride ({stride}) is more than the context ({context}): tokens between would not be scored")
    return context, stride


def baseline_nlls(
    tokens: Checkpoint, documents: list[HeldOut], num_tokens: int, first: int, spec: EvaluateSpec
) -> dict[str, np.ndarray]:
    """−log p of each document in nats under a unigram and a trigram model of the training tokens."""
    train = np.concatenate(list(_training_tokens(tokens, spec.max_baseline_tokens)))
    unigram, trigram = unigram_logprobs(train, num_tokens), TrigramModel(train, num_tokens)
    return {
        "unigram": np.array([-unigram[document.tokens].sum() for document in documents]),
        "trigram": np.array(
            [-trigram.logprobs(np.concatenate([[first], document.tokens])).sum() for document in documents]
        ),
    }


def _training_tokens(tokens: Checkpoint, most: int) -> Iterator[np.ndarray]:
    dtype = np.dtype(str(tokens.manifest.metrics["dtype"])).newbyteorder("<")
    for file in tokens.files("tokens.bin", stage="train"):
        part = np.fromfile(tokens.local_path(file), dtype=dtype)[:most]
        yield part
        most -= len(part)
        if most <= 0:
            return


def _json(content: Any) -> File:
    return File((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
