"""Checkpoints of a whole graph, made by hand: real files and manifests in a store, hostile documents among them."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from configs.base import Resources
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.keys import key_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Code, InputRef, Manifest, Quarantined, digest_of_receipts
from ray_jobs.checkpoint.shards import File, ShardOutput, add_counters, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput

SCRIPT = "<script>alert('owned')</script>"
HOSTILE = (
    f'{SCRIPT} "quoted" & </p></title><img src=x onerror=alert(1)> \x00\x1b \u202egnirts\u2066 {{{{ 7*7 }}}} {{% x %}}'
)
HOSTILE_URL = f"javascript:alert(1)//{SCRIPT}"


def finish(
    store: Store,
    kind: str,
    stages: Mapping[str, list[ShardOutput]],
    inputs: Mapping[str, Checkpoint] | None = None,
    metrics: dict[str, Any] | None = None,
    counters: dict[str, int] | None = None,
    spec: dict[str, Any] | None = None,
    outputs: tuple[str, ...] | None = None,
    quarantined: tuple[Quarantined, ...] = (),
    seconds: float = 12.5,
    started: float = 1.75e9,
) -> Checkpoint:
    """A finished node with the given shards, as the runner would have left it."""
    inputs = inputs or {}
    payload = {
        "node": kind,
        "version": 1,
        "spec": spec or {},
        "inputs": {slot: upstream.key for slot, upstream in inputs.items()},
        "generation": 1,
    }
    path = NodePath(kind, key_of(payload))
    output = NodeOutput(store, path, "attempt0", Resources(workers=1), InlineExecutor)
    published = [
        output.write(stage, shard, place) for stage, shards in stages.items() for place, shard in enumerate(shards)
    ]
    published = [receipt for receipt in published if outputs is None or receipt.stage in outputs]
    manifest = Manifest(
        node=kind,
        key=path.key,
        payload=payload,
        inputs={
            slot: InputRef(node=upstream.node, key=upstream.key, content_digest=upstream.manifest.content_digest)
            for slot, upstream in inputs.items()
        },
        output_stages=tuple(dict.fromkeys(receipt.stage for receipt in published)),
        outputs=tuple(file for receipt in published for file in receipt.files),
        counters=add_counters(receipt.counters for receipt in published) if counters is None else counters,
        metrics=metrics or {},
        quarantined=quarantined,
        content_digest=digest_of_receipts(path.key, published, quarantined),
        code=Code(version=1, digest="c0de" * 16),
        resources={"workers": 2},
        attempt="attempt0",
        started=started,
        seconds=seconds,
        cpu_seconds=2 * seconds,
    )
    assert store.create(path.manifest, manifest.to_json())
    return Checkpoint(store, manifest)


def documents(ids: list[str], urls: list[str], texts: list[str]) -> File:
    return parquet_file(
        pa.table(
            {
                "id": pa.array(ids, pa.string()),
                "url": pa.array(urls, pa.string()),
                "language": pa.array(["en"] * len(ids), pa.string()),
                "language_score": pa.array([0.9] * len(ids), pa.float32()),
                "text": pa.array(texts, pa.large_string()),
            }
        )
    )


def audit(ids: list[str], decisions: list[str], rules: list[str | None]) -> File:
    return parquet_file(pa.table({"id": ids, "decision": decisions, "rule": pa.array(rules, pa.string())}))


def identities(count: int) -> list[str]:
    return [f"crawl/00000/{number:012d}" for number in range(count)]


def snapshot(store: Store) -> Checkpoint:
    files = [{"url": f"https://data.example/{n}.warc.gz?{SCRIPT}", "size": 1000, "etag": "x"} for n in range(4)]
    content = {"kind": "archives", "files": files}
    archives = ShardOutput({}, {})
    spec = {"crawl": "CC-TEST", "content": content}
    return finish(
        store, "snapshot", {"archives": [archives]}, metrics={"archives": 4, "archive_bytes": 4000}, spec=spec
    )


def filtered(store: Store, crawl: Checkpoint) -> Checkpoint:
    """Eight records: five kept, one too short, two in other languages."""
    ids = identities(8)
    urls = [HOSTILE_URL, *(f"https://site{n % 3}.example/{n}" for n in range(1, 8))]
    rules = [None] * 5 + ["min_words", "language", "language"]
    texts = [f"{HOSTILE} document number {n} with some words of its own" for n in range(5)]
    audit = pa.table(
        {
            "id": ids,
            "url": urls,
            "language": pa.array(["en"] * 6 + ["de", None], pa.string()),
            "num_words": pa.array([10, 100, 1000, 10_000, 20, 3, 50, None], pa.int32()),
            "decision": ["kept"] * 5 + ["dropped"] * 3,
            "rule": pa.array(rules, pa.string()),
            "value": pa.array([None] * 5 + [3.0, 0.4, None], pa.float64()),
            "threshold": pa.array([None] * 5 + [50.0, None, None], pa.float64()),
            "source": pa.array([None] * 5 + ["Gopher", "recipe", "recipe"], pa.string()),
        }
    )
    told = {"min_words": [{"url": urls[5], "text": f"told {HOSTILE}"}], "kept": []}
    shard = ShardOutput(
        {"documents.parquet": documents(ids[:5], urls[:5], texts), "audit.parquet": parquet_file(audit)},
        {"documents_in": 8, "documents_kept": 5, "dropped.min_words": 1, "dropped.language": 2},
        {"samples": told},
    )
    return finish(store, "filter", {"documents": [shard]}, {"crawl": crawl})


def deduplicated(store: Store, source: Checkpoint, spec: dict[str, Any] | None = None) -> Checkpoint:
    """Two of five documents duplicate the first."""
    ids = identities(5)
    audit = pa.table(
        {
            "id": ids,
            "decision": ["kept", "dropped", "kept", "dropped", "kept"],
            "rule": pa.array([None, "minhash", None, "exact", None], pa.string()),
            "duplicate_of": pa.array([None, ids[0], None, ids[0], None], pa.string()),
            "similarity": pa.array([None, 0.91, None, 1.0, None], pa.float32()),
        }
    )
    kept = documents([ids[0], ids[2], ids[4]], ["https://a.example"] * 3, [f"kept {HOSTILE} {n}" for n in range(3)])
    shard = ShardOutput(
        {"documents.parquet": kept, "audit.parquet": parquet_file(audit)},
        {"documents_in": 5, "documents_kept": 3, "dropped.exact": 1, "dropped.minhash": 1},
    )
    clusters = ShardOutput({}, {"clusters": 1}, {"cluster_sizes": {"2": 1, "3-4": 1}})
    stages = {"duplicates": [clusters], "documents": [shard]}
    return finish(store, "dedup", stages, {"documents": source}, spec=spec, outputs=("documents",))


def scrubbed(store: Store, source: Checkpoint) -> Checkpoint:
    ids = identities(5)[::2]
    texts = [f"{HOSTILE} write to <EMAIL> about grüße 😀 number {n}" for n in range(3)]
    audit = pa.table({"id": ids, "decision": ["kept"] * 3, "email": pa.array([1, 1, 1], pa.int32())})
    shard = ShardOutput(
        {"documents.parquet": documents(ids, [HOSTILE_URL] * 3, texts), "audit.parquet": parquet_file(audit)},
        {"documents_in": 3, "documents_kept": 3, "replaced.email": 3, "text_bytes_in": 900, "text_bytes_kept": 800},
        {"samples": [{"id": ids[0], "kind": "email", "text": f"{HOSTILE} to <EMAIL> now"}]},
    )
    gone = Quarantined(stage="documents", shard=7, reason=f"ValueError: {SCRIPT}")
    return finish(store, "scrub", {"documents": [shard]}, {"documents": source}, quarantined=(gone,))


def tokenized(store: Store, source: Checkpoint) -> Checkpoint:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([HOSTILE, "some words of a document " * 4], trainer)
    shard = ShardOutput({"tokenizer.json": File(tokenizer.to_str().encode())}, {"vocab_size": 300})
    measures = ShardOutput({"measures.json": File(json.dumps([measured("trained"), measured(SCRIPT)]).encode())}, {})
    metrics = {"vocab_size": 300, "bytes_per_token": 2.5}
    stages = {"tokenizer": [shard], "measures": [measures]}
    return finish(store, "tokenizer", stages, {"documents": source}, metrics)


def measured(name: str) -> dict[str, Any]:
    """What `ray_jobs.tokenizer.measures` tells of a tokenizer."""
    sums = {"documents": 2, "bytes": 900, "characters": 800, "words": 160, "tokens": 240}
    sums |= {"numbers": 4, "digits": 9, "number_tokens": 6}
    nothing = dict.fromkeys(sums, 0)
    return {
        "name": name,
        "vocab_size": 300,
        "vocabulary_used": 120,
        "round_trip_failures": 0,
        "blank_signs": 0,
        "code": {"bytes": 1000, "tokens": 500},
        "total": sums,
        "languages": {"en": sums, SCRIPT: nothing},
    }


def encoded(store: Store, source: Checkpoint, tokenizer: Checkpoint) -> Checkpoint:
    told = {"languages": {"en": [1000, 400], SCRIPT: [10, 10]}}
    shard = ShardOutput({"tokens.bin": File(b"\0\1" * 50, 50)}, {"num_tokens": 50}, told)
    counters = {"train_num_tokens": 50, "heldout_num_tokens": 5}
    return finish(store, "tokens", {"train": [shard]}, {"documents": source, "tokenizer": tokenizer}, counters=counters)


def heldout(n: int) -> dict[str, Any]:
    hosts = [f"{name}.documentation.example.org" for name in ("one", "two", "three")]
    domains = {host: 2.5 - n / 60 + place / 10 for place, host in enumerate(hosts)}
    return {
        "heldout_bits_per_byte": 2.6 - n / 60,
        "heldout_bits_per_byte_by_domain": domains,
        "accuracy_by_set": {"service-questions": 0.25 + n / 200},
        "evaluation_s": 1.5,
    }


def trained(store: Store, tokens: Checkpoint, tokenizer: Checkpoint) -> Checkpoint:
    curve = [
        {
            "step": 10 * n,
            "loss": 7.6 * math.exp(-n / 20) + 2,
            "grad_norm": 1.0,
            "grad_norm_max": 9.0 if n == 40 else 1.5,
            "attention_max_logit": [4.0 + n, 2.0, 3.0],
            "attention_entropy": [0.5, 2.0, 3.0],
            "learning_rate": 1e-3 * min(1, n / 5),
            "tokens_per_second": 30_000 + n,
            **(heldout(n) if n % 20 == 0 else {}),
        }
        for n in range(1, 61)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in curve).encode()
    metrics = {"loss": 2.3, "parameters": 1_120_000, "train_tokens": 600 * 16 * 128}
    shard = ShardOutput(
        {"metrics.jsonl": File(lines, 60, volatile=True), "model.safetensors": File(b"w")}, {"train_steps": 600}
    )
    checkpoint = finish(
        store, "pretrain", {"model": [shard]}, {"tokens": tokens, "tokenizer": tokenizer}, metrics, seconds=120
    )
    segments = [{"session": "a", "first": 0, "last": 200}, {"session": "b", "first": 200, "last": 600}]
    spike = {"step": 400, "kind": "loss", "value": 7.5, "median": 3.1, "back_to": 300}
    spikes = {"spikes": [{**spike, "skipped": [{"first": 390, "count": 20}]}]}
    state = {"segments": segments, "spikes": spikes}
    receipt = {"step": 600, "session": "b", "world_size": 2, "files": [], "state": state}
    store.create(f"{checkpoint.manifest.path.receipts('steps')}00000600.json", json.dumps(receipt).encode())
    return checkpoint


def evaluated(store: Store, model: Checkpoint, tokens: Checkpoint, tokenizer: Checkpoint) -> Checkpoint:
    results = {
        "model": {"bits_per_byte": 1.58, "bits_per_byte_95": [1.5, 1.66], "perplexity": 9.1},
        "unigram": {"bits_per_byte": 3.4, "bits_per_byte_95": None, "perplexity": 90.0},
        "trigram": {"bits_per_byte": 2.1, "bits_per_byte_95": [2.0, 2.2], "perplexity": 20.0},
        "documents": 40,
    }
    samples = [
        {
            "document": "d",
            "prompt": "The ",
            "continuation": f"model writes {HOSTILE}",
            "reference": HOSTILE,
            "ended": True,
        }
    ]
    files = {
        name: File(json.dumps(data).encode()) for name, data in (("results.json", results), ("samples.json", samples))
    }
    return finish(
        store,
        "evaluate",
        {"results": [ShardOutput(files, {"documents": 40})]},
        {"model": model, "tokens": tokens, "tokenizer": tokenizer},
        {"bits_per_byte": 1.58},
    )


def whole_graph(store: Store) -> dict[str, Checkpoint]:
    """Every node of the graph but the report, by the name that the recipe gives it."""
    crawl = snapshot(store)
    documents_of = filtered(store, crawl)
    unique = deduplicated(store, documents_of)
    clean = scrubbed(store, unique)
    tokenizer = tokenized(store, clean)
    tokens = encoded(store, clean, tokenizer)
    model = trained(store, tokens, tokenizer)
    return {
        "evaluate": evaluated(store, model, tokens, tokenizer),
        "pretrain": model,
        "tokens": tokens,
        "tokenizer": tokenizer,
        "scrub": clean,
        "dedup": unique,
        "filter": documents_of,
        "snapshot": crawl,
    }
