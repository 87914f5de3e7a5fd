"""The tokenizer: its figures, how it cuts a text, how long its tokens are, and what it costs each language."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ray_jobs.report.charts import Layer, bar, bar_chart, histogram
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import count
from ray_jobs.report.nodes import Node, Nodes, few_files, read_receipts, read_table
from ray_jobs.report.overview import facts
from ray_jobs.report.page import Section
from ray_jobs.report.vocabularies import TOKENIZER_COLUMNS, Comparison, comparison

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE_CHARACTERS = 900
NUM_TINTS = 5
_BYTE = re.compile("<0x[0-9A-F]{2}>")
MAX_LENGTH = 16
"""Longer tokens are counted with those of this length."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text that one token stands for; several, where they share a character."""

    text: str
    ids: str
    tint: int


@dataclass(frozen=True)
class TokenizerView:
    node: Node
    facts: list[tuple[str, str]]
    figures: list[Figure]
    pieces: list[Piece]
    sample_id: str
    num_characters: int
    comparison: Comparison | None


@dataclass(frozen=True)
class TokensView:
    node: Node
    facts: list[tuple[str, str]]
    languages: Markup | None


def tokens_section(nodes: Nodes) -> Section | None:
    tokenizers = [node for node in nodes if node.kind == "tokenizer" and node.checkpoint.files("tokenizer.json")]
    encoded = nodes.of_kind("tokens")
    if not tokenizers and not encoded:
        return None
    content = {
        "tokenizers": [_tokenizer_view(nodes, node) for node in tokenizers],
        "columns": TOKENIZER_COLUMNS,
        "encoded": [TokensView(node, facts(node), fertility(node)) for node in encoded],
    }
    return Section("tokens", "Tokens", "tokens.html", content, tuple(node.name for node in [*tokenizers, *encoded]))


def _tokenizer_view(nodes: Nodes, node: Node) -> TokenizerView:
    from tokenizers import Tokenizer

    checkpoint = node.checkpoint
    tokenizer = Tokenizer.from_str(checkpoint.read(checkpoint.files("tokenizer.json")[0]).decode())
    sample_id, text = _sample_text(nodes.input_with(node, "documents.parquet"))
    return TokenizerView(
        node,
        facts(node),
        [Figure("Lengths of tokens", "bytes, over the whole vocabulary", token_lengths(tokenizer))],
        cut(tokenizer, text),
        sample_id,
        len(text),
        comparison(node),
    )


def _sample_text(documents: Node | None) -> tuple[str, str]:
    """The beginning of the middle document of the first file that has one."""
    import pyarrow as pa

    for file in few_files(documents, "documents.parquet") if documents else []:
        if file.rows:
            assert documents is not None
            row = read_table(documents, file, ["id", "text"]).slice(file.rows // 2, 1)
            data: bytes = row["text"].cast(pa.large_binary())[0].as_py()
            return row["id"][0].as_py(), data[: 4 * SAMPLE_CHARACTERS].decode(errors="replace")[:SAMPLE_CHARACTERS]
    return "", ""


def cut(tokenizer: "Tokenizer", text: str) -> list[Piece]:
    """The text in pieces, in order and whole: every character is in one piece, a line end as ⏎. No special token arises
    from it, as none does in the tokens node."""
    tokenizer.encode_special_tokens = True
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans: list[tuple[int, int, list[str]]] = []
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        # Tokens within one character (an emoji has four bytes) have the same place: they are shown as one piece, and so
        # is one that stands for nothing in the text, such as SentencePiece's blank before it, with the next.
        if spans and (start < spans[-1][1] or spans[-1][0] == spans[-1][1]):
            first, last, ids = spans[-1]
            spans[-1] = (first, max(last, end), [*ids, str(token)])
        else:
            start = spans[-1][1] if spans else 0  # what no token stands for goes with the next
            spans.append((start, end, [str(token)]))
    return [
        Piece(text[start:end].replace("\n", "⏎"), " ".join(ids), place % NUM_TINTS)
        for place, (start, end, ids) in enumerate(spans)
        if start < end
    ]


def token_lengths(tokenizer: "Tokenizer") -> Markup:
    """Histogram of the vocabulary by bytes."""
    lengths = [min(size, MAX_LENGTH) for size in token_sizes(tokenizer)]
    counts = [lengths.count(length) for length in range(1, MAX_LENGTH + 1)]
    edges = [length + 0.5 for length in range(MAX_LENGTH + 1)]
    return histogram(edges, [Layer("tokens", counts)], f"bytes ({MAX_LENGTH} and more together)", "tokens")


def token_sizes(tokenizer: "Tokenizer") -> list[int]:
    """Bytes of each ordinary token. In a byte-level vocabulary every letter stands for one byte; SentencePiece's have
    U+2581 for a blank, and <0x0A> for a byte."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens = [token for token in tokenizer.get_vocab(with_added_tokens=False) if token not in special]
    if not json.loads(tokenizer.to_str())["model"].get("byte_fallback"):
        return [len(token) for token in tokens]
    return [1 if _BYTE.fullmatch(token) else len(token.replace("\u2581", " ").encode()) for token in tokens]


def fertility(node: Node) -> Markup | None:
    """Bytes a token by language, in the shards that the report reads."""
    sums: dict[str, list[int]] = {}
    for receipt in read_receipts(node, "train"):
        for language, (num_bytes, num_tokens, *_) in receipt.info.get("languages", {}).items():
            entry = sums.setdefault(language, [0, 0])
            entry[0] += num_bytes
            entry[1] += num_tokens
    most = sorted((name for name in sums if sums[name][1]), key=lambda name: (-sums[name][0], name))[:10]
    bars = [
        bar(
            name,
            sums[name][0] / sums[name][1],
            f"{sums[name][0] / sums[name][1]:.2f}",
            note=f"{count(sums[name][1])} tokens",
        )
        for name in most
    ]
    return bar_chart(bars, "bytes a token by language") if bars else None
