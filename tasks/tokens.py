"""tokens: the corpus as token ids, with a held-out part."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count, share

NAMED = 8
"""Sources and languages that a table names; the others are summed up."""


def headline(manifest: Manifest) -> str:
    train, heldout = (manifest.counters.get(f"{split}_num_tokens", 0) for split in ("train", "heldout"))
    return f"{train / 1e6:,.2f}M tokens to train on, {heldout / 1e6:,.2f}M held out"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    counters, metrics = manifest.counters, manifest.metrics
    rows = []
    for part, called in (("train", "to train on"), ("heldout", "held out")):
        tokens, documents, size = (counters.get(f"{part}_num_{name}", 0) for name in ("tokens", "documents", "bytes"))
        rows.append((called, f"{count(tokens)} tokens, {count(documents)} documents, {size / 1e6:,.1f} MB of text"))
    repaired = sum(counters.get(f"{part}_documents_repaired", 0) for part in ("train", "heldout"))
    rows.append(("repaired documents", count(repaired)))
    rows += by("source", 0, manifest) if len(parts_of(manifest, 0)) > 1 else []
    rows += by("language", 1, manifest)
    if "length_p50" in metrics:
        lengths = ", ".join(f"{name} {metrics[f'length_p{p}']:,}" for p, name in LENGTHS)
        rows.append(("tokens a document", lengths))
    if "vocab_used" in metrics:
        rows.append(("vocabulary in use", f"{metrics['vocab_used']:,} of {metrics['vocab_size']:,} tokens"))
    rows.append(("stored as", str(metrics.get("dtype", "–"))))
    return rows


LENGTHS = ((1, "1%"), (10, "10%"), (50, "half"), (90, "90%"), (99, "99%"), (100, "all at most"))


def parts_of(manifest: Manifest, place: int) -> dict[str, int]:
    """Tokens to train on by source (place 0) or language (1) of the counters train.SOURCE.LANGUAGE.tokens."""
    sums: dict[str, int] = {}
    for name, value in manifest.counters.items():
        match name.split("."):
            case ["train", source, language, "tokens"]:
                part = (source, language)[place]
                sums[part] = sums.get(part, 0) + value
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def by(what: str, place: int, manifest: Manifest) -> list[tuple[str, str]]:
    sums = parts_of(manifest, place)
    total = sum(sums.values())
    rows = [(f"{what} {name}", f"{count(tokens)} tokens, {share(tokens, total)}") for name, tokens in sums.items()]
    rest = sum(list(sums.values())[NAMED:])
    more = [(f"{len(sums) - NAMED} other {what}s", f"{count(rest)} tokens, {share(rest, total)}")] if rest else []
    return rows[:NAMED] + more


NODE = NodeTask(
    "tokens", "Token shards with document boundaries, and a held-out part by a hash of the text.", headline, facts
)
