"""The long-context node: each model by each method on texts of each length, and where that breaks.

    cells     a shard for every model, method and length: losses.parquet, nats and tokens by text and stretch of
              positions, and passkeys.parquet, the answer to every prompt
    results   one shard: comparison.json, with curves, passkeys and breaks

A method stretches by as much as a text is longer than the training length, so the text of each length is read by
another model, which is also told apart by what it costs at the beginning of the text.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig

from configs.base import Resources
from configs.long_context import CUT, TRAINED, LongContextSpec
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import Outcome, ShardOutput, parquet_file
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.long_context.losses import Sums, text_nlls
from ray_jobs.long_context.passkey import Passkeys, answers, draw_passkeys
from ray_jobs.long_context.results import compare, read_cell
from ray_jobs.long_context.texts import Texts, cut_texts, edges_of
from ray_jobs.model.files import link_model, load_model, vocabulary_of
from ray_jobs.model.positions import check_stretchable, kind_of_positions, stretch
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.heldout import heldout_documents

CELLS, RESULTS = "cells", "results"
MODEL = "model"


@dataclass(frozen=True)
class Context:
    """What all cells share."""

    spec: LongContextSpec
    models: dict[str, Checkpoint]
    training_length: int
    texts: Texts
    passkeys: Passkeys | None
    num_tokens: int
    """Of the vocabulary."""
    cpus: int


def run(spec: LongContextSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Measures every cell that is not done yet, then compares them.

    Raises:
        ValueError: models and tokens do not go together, no model can take the methods, the texts are too few, or they
            are too long for the memory.
    """
    models = models_of(inputs)
    check_same_tokenizer(inputs)
    configs = {name: config_of(model) for name, model in models.items()}
    training_length = training_length_of(spec, models, configs)
    shards = cells_of(spec, configs, training_length)
    check_memory(configs, max(shard["length"] for shard in shards), spec, resources)
    context = Context(
        spec,
        models,
        training_length,
        texts_of(spec, inputs["tokens"], vocabulary_of(inputs["tokenizer"]).eos_id, shards),
        passkeys_of(spec, inputs["tokenizer"], shards),
        vocabulary_of(inputs["tokenizer"]).num_tokens,
        max(1, int(resources.cpus)),
    )
    receipts = output.fan_out(CELLS, shards, measure, context, may_lose=False)
    receipt = output.standing(RESULTS)
    if receipt is None:
        cells = [read_cell(shards[done.shard], done.files, output) for done in receipts]
        receipt = output.write(RESULTS, compare(cells, spec, training_length, context.texts))
    return Outcome((CELLS, RESULTS), counters=receipt.counters, metrics=receipt.info["metrics"])


def models_of(inputs: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The models by the names that the recipe gives them; the only one is called `model`."""
    return {slot.partition(".")[2] or MODEL: inputs[slot] for slot in sorted(inputs) if slot.partition(".")[0] == MODEL}


def check_same_tokenizer(inputs: dict[str, Checkpoint]) -> None:
    """Raises ValueError where the tokens, or a model, are another tokenizer's."""
    for slot, upstream in inputs.items():
        made_by = upstream.manifest.inputs.get("tokenizer")
        if made_by is not None and made_by.key != inputs["tokenizer"].key:
            raise ValueError(
                f"the {slot} {upstream.key[:16]} is of tokenizer {made_by.key[:16]}, but this node's tokenizer is "
                f"{inputs['tokenizer'].key[:16]}: their ids mean other words; give all slots the same tokenizer"
            )


def config_of(model: Checkpoint) -> Any:
    """transformers' configuration of a model, of which the weights are not read."""
    values = json.loads(model.read(model.file("config.json")))
    return AutoConfig.for_model(values.pop("model_type"), **values)


def training_length_of(spec: LongContextSpec, models: dict[str, Checkpoint], configs: dict[str, Any]) -> int:
    """Raises ValueError where the models were trained on different lengths, or there are more stretches than tokens."""
    found = {}
    for name, model in models.items():
        trained = model.node == PretrainSpec.node and model.manifest.payload.get("spec")
        config = configs[name]
        positions = config.max_seq_len if config.model_type == "mpt" else config.max_position_embeddings
        found[name] = PretrainSpec.model_validate(trained).sequence_length if trained else positions
    if spec.training_length is None and len(set(found.values())) > 1:
        told = ", ".join(f"{name} on {length}" for name, length in found.items())
        raise ValueError(
            f"the models were trained on sequences of different lengths ({told}), so their texts would be: set "
            "training_length, or measure them in nodes of their own"
        )
    length = int(spec.training_length or next(iter(found.values())))
    if spec.buckets > length:
        raise ValueError(f"buckets ({spec.buckets}) are more than the {length} tokens of a training length: lower it")
    return length


def cells_of(spec: LongContextSpec, configs: dict[str, Any], training_length: int) -> list[dict[str, Any]]:
    """Every model, method and length; a method that stretches is left out within the training length, and for ALiBi.
    Each model is measured once with no more than a training length in sight, which all else is compared with.

    Raises:
        ValueError: a model counts positions in no known way, or is stretched already, or no model can be stretched.
    """
    kinds = {name: kind_of_positions(config) for name, config in configs.items()}
    stretching = [method for method in spec.methods if method != TRAINED]
    if stretching and "rotary" not in kinds.values():
        raise ValueError(
            f"{', '.join(kinds)} has ALiBi, which is chosen in training, and no rotary positions to stretch by "
            f"{', '.join(stretching)}: set methods to [{TRAINED}], or give a model with rotary positions beside it"
        )
    found = []
    for name, config in configs.items():
        methods: tuple[str, ...] = spec.methods if kinds[name] == "rotary" else (TRAINED,)
        if set(methods) - {TRAINED}:
            check_stretchable(config)
        cells: list[tuple[str, float]] = [(CUT, max(spec.lengths))]
        for method in methods:
            cells += [(method, factor) for factor in sorted(spec.lengths) if factor > 1 or method == TRAINED]
        for method, factor in cells:
            length = edges_of(factor, training_length, spec.buckets)[-1]
            found.append({"model": name, "method": method, "factor": factor, "length": length})
    return found


def check_memory(configs: dict[str, Any], length: int, spec: LongContextSpec, resources: Resources) -> None:
    """Raises ValueError where a batch of texts takes more than the memory that there is."""
    if torch.cuda.is_available():
        available = float(torch.cuda.mem_get_info()[1])
    elif resources.memory_gb is not None:
        available = resources.memory_gb * 1e9
    else:
        available = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name, config in configs.items():
        needed = needed_bytes(config, length, spec)
        if needed > available:
            raise ValueError(
                f"{spec.batch} texts of {length:,} tokens take about {needed / 1e9:.1f} GB with model {name}, and "
                f"there are {available / 1e9:.1f} GB: lower batch or lengths"
            )


def needed_bytes(config: Any, length: int, spec: LongContextSpec) -> float:
    """About what a batch of texts takes beside the weights, in fp32: activations of a layer, the scores of MPT's
    attention, and keys and values of every number to choose from."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    numbers = length * (8 * config.hidden_size + 3 * inner)
    if config.model_type == "mpt":
        numbers += 4 * heads * length * length  # before and after bias, mask and softmax
    if spec.passkey.num_trials:
        shared = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        numbers += 2 * layers * shared * width * length * (spec.passkey.num_distractors + 3)
    return 4.0 * spec.batch * numbers


def texts_of(spec: LongContextSpec, tokens: Checkpoint, end_of_text: int, shards: list[dict[str, Any]]) -> Texts:
    documents = heldout_documents(tokens, spec.max_documents)
    return cut_texts(documents, max(shard["length"] for shard in shards), spec.max_texts, end_of_text)


def passkeys_of(spec: LongContextSpec, tokenizer: Checkpoint, shards: list[dict[str, Any]]) -> Passkeys | None:
    """None where no passkey is asked for. Raises ValueError where no text has room for one."""
    if spec.passkey.num_trials == 0:
        return None
    passkeys = draw_passkeys(spec.passkey, Encoder(tokenizer.read(tokenizer.file("tokenizer.json"))))
    longest = max(shard["length"] for shard in shards)
    if longest < passkeys.shortest:
        raise ValueError(
            f"telling a passkey and asking for it takes {passkeys.shortest} tokens, and the longest text has "
            f"{longest}: raise lengths, or set passkey.num_trials to 0"
        )
    return passkeys


def measure(shard: dict[str, Any], context: Context) -> ShardOutput:
    """One cell."""
    spec, texts = context.spec, context.texts
    torch.set_num_threads(context.cpus)
    with tempfile.TemporaryDirectory() as folder:
        link_model(context.models[shard["model"]], Path(folder))
        model, _ = load_model(Path(folder))
    if shard["method"] not in (TRAINED, CUT):
        stretch(model, shard["method"], shard["factor"], context.training_length)
    edges = edges_of(shard["factor"], context.training_length, spec.buckets)
    window = context.training_length if shard["method"] == CUT else None
    nlls_TL = text_nlls(model, texts.tokens_TL, edges, spec.batch, context.num_tokens, texts.end_of_text, window)
    sums = Sums.of(nlls_TL, texts.tokens_TL[:, 1 : shard["length"] + 1], edges, texts.end_of_text)
    asked = None if window else _ask(model, shard["length"], context)
    files = {"losses.parquet": parquet_file(sums.to_table())}
    if asked is not None:
        files["passkeys.parquet"] = parquet_file(asked)
    scored = {"tokens": int(sums.tokens_TK.sum()), "prompts": 0 if asked is None else asked.num_rows}
    return ShardOutput(files, {"cells": 1, **scored})


def _ask(model: Any, length: int, context: Context) -> pa.Table | None:
    """The answers to every trial at every depth; None where there are none, or the text has no room for them."""
    passkeys = context.passkeys
    if passkeys is None or length < passkeys.shortest:
        return None
    texts_TL = context.texts.tokens_TL
    depths = context.spec.passkey.depths
    places = [(depths[trial % len(depths)], trial) for trial in range(len(passkeys.trials))]
    prompts_PL = np.stack(
        [passkeys.prompt(trial, texts_TL[trial % len(texts_TL)], length, depth) for depth, trial in places]
    )
    choices_PKD = np.stack([passkeys.trials[trial].choices_KD for _, trial in places])
    found = answers(model, prompts_PL, choices_PKD, context.spec.batch, context.num_tokens)
    return pa.table(
        {
            "depth": pa.array([depth for depth, _ in places], pa.float64()),
            "trial": pa.array([trial for _, trial in places], pa.int64()),
            "key": [passkeys.trials[trial].key for _, trial in places],
            "num_likelier": pa.array([answer.num_likelier for answer in found], pa.int64()),
            "logprob": pa.array([answer.logprob for answer in found], pa.float64()),
            "written": [
                answer.written == tuple(passkeys.trials[trial].choices_KD[0].tolist())
                for answer, (_, trial) in zip(found, places, strict=True)
            ],
        }
    )
