"""What a small model learns of a text is more than three tokens in a row say."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from configs.base import Resources
from configs.evaluate import EvaluateSpec, SamplingSpec
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.evaluate.job import run as evaluate
from ray_jobs.pretrain.inputs import training_samples
from ray_jobs.pretrain.job import run as pretrain
from tests.pretrain.corpus import publish, publish_encoded, publish_tokenizer, trained_tokenizer

EPOCHS, WINDOWS = 4, 2336
SPEC = PretrainSpec.model_validate(
    {
        "model": {"hidden": 96, "layers": 3, "heads": 4, "intermediate": 256, "max_positions": 128},
        "optimizer": {"learning_rate": 4e-3, "warmup_steps": 30},
        "steps": EPOCHS * WINDOWS // 16,
        "global_batch": 16,
        "sequence_length": 128,
        "checkpoint_every": 1000,
    }
)
ONE_CORE = Resources(workers=1)
MIN_BYTES, PIECE = 500, 8000
NUM_HELDOUT = 20


def sources() -> tuple[list[str], list[str]]:
    """Training texts and held-out ones: whole files of the standard library, of the latter the beginnings."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [file for folder in (".", "asyncio", "email") for file in sorted((root / folder).glob("*.py"))]
    texts = [text for file in files if len(text := file.read_text(errors="replace")) >= MIN_BYTES]
    texts = [texts[place] for place in np.random.Generator(np.random.PCG64(0)).permutation(len(texts))]
    return texts[NUM_HELDOUT:], [text[:PIECE] for text in texts[:NUM_HELDOUT]]


def tokens_of(store: Store) -> dict[str, Checkpoint]:
    train, heldout = sources()
    made = trained_tokenizer(train)
    encode = Tokenizer.from_str(made).encode
    left, documents = WINDOWS * SPEC.sequence_length + 1, []
    for text in train:  # of the last as much as makes the windows whole: the model sees every token of the stream
        ids = encode(text).ids[: left - 1]
        documents.append((ids, len(text.encode())))
        left -= len(ids) + 1
        if left <= 1:
            break
    assert left in {0, 1}, "the standard library is smaller than the training text"
    if left:
        documents[-1] = (documents[-1][0] + [0], documents[-1][1])
    parts = {"train": documents, "heldout": [(encode(text).ids, len(text.encode())) for text in heldout]}
    tokenizer = publish_tokenizer(store, made=made)
    return {"tokenizer": tokenizer, "tokens": publish_encoded(store, tokenizer, parts)}


@pytest.mark.slow
def test_a_small_model_beats_modified_kneser_ney_of_order_3_over_the_very_tokens_it_saw(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    inputs = tokens_of(store)
    samples = training_samples(inputs["tokens"], SPEC, ONE_CORE)
    assert len(samples) == WINDOWS  # an epoch shows each, and no token is left over
    assert inputs["tokens"].files("tokens.bin", "train")[0].bytes == 2 * (WINDOWS * SPEC.sequence_length + 1)
    output = NodeOutput(store, NodePath("pretrain", "f" * 64), "attempt", ONE_CORE, executor=InlineExecutor)
    pretrain(SPEC, inputs, output, ONE_CORE)
    receipt = output.standing("model")
    assert receipt is not None
    files = {file.name: output.read(file) for file in receipt.files}
    inputs["model"] = publish(store, "pretrain", {"model": files}, inputs={"tokenizer": inputs["tokenizer"]})
    scored = NodeOutput(store, NodePath("evaluate", "e" * 64), "attempt", ONE_CORE, executor=InlineExecutor)
    evaluate(EvaluateSpec(bootstrap_samples=0, sampling=SamplingSpec(num_samples=0)), inputs, scored, ONE_CORE)
    receipt = scored.standing("results")
    assert receipt is not None
    results = json.loads(next(scored.read(file) for file in receipt.files if file.name == "results.json"))
    bits = {name: results[name]["bits_per_byte"] for name in ("model", "trigram", "unigram")}
    assert bits["model"] < bits["trigram"] - 0.03, bits
    assert bits["trigram"] < 0.75 * bits["unigram"], bits  # it is no straw man
