"""Where a token came from: its document, the page of that document, and the record of the crawl that holds the page.

The tokens node's index says which document stands where in a shard, and a document's id is its place in the crawl
(crawl/file/offset), so the way back needs no other table. What the token reads is decoded from the shard itself.
"""

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.recipe import RecipeNode
from configs.tokens import source_names
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import OutputFile
from tasks.plan import Plan
from tasks.trace import TOKEN_INDEX, TracedDocument, trace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOKENS = "tokens.bin"
# tokens/heldout/00003@1234: a position in a shard; without the shard, in the stream of all of them, as training counts.
_PLACE = re.compile(r"(?P<node>[\w.\-]+)(?:/(?P<part>train|heldout))?(?:/(?P<shard>\d+))?@(?P<position>\d+)")
_CONTEXT_BYTES = 120
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class TracedToken:
    """One token of a shard and what it stands for."""

    place: str
    """node/part/shard@position."""
    token: int
    text: str
    """What it reads; a token may be a part of a character only, which shows as U+FFFD."""
    before: str
    after: str
    """Up to 120 bytes of the document on both sides."""
    text_start: int
    text_end: int
    """Its bytes in the text that was encoded (UTF-8, after scrub), empty for end-of-text."""
    document_start: int
    document_length: int
    """The document's tokens in the shard, its end-of-text with them."""
    source: str
    """Of the tokens node: `documents` where it has only one."""
    document: TracedDocument


def is_place(what: str) -> bool:
    return _PLACE.fullmatch(what) is not None


def trace_token(plan: Plan, place: str) -> TracedToken:
    """The token at node[/train|/heldout][/shard]@position.

    Raises:
        ValueError: there is no such node, shard or position, or the node has not finished.
    """
    match = _PLACE.fullmatch(place)
    assert match is not None, place
    name, part = match["node"], match["part"] or "train"
    planned = plan.nodes.get(name)
    if planned is None or planned.kind != "tokens":
        names = [other for other, node in plan.nodes.items() if node.kind == "tokens"]
        raise ValueError(
            f"recipe {plan.recipe.name} has no tokens node {name!r}: it has {', '.join(names) or 'none'}; a token is "
            "named by node/shard@position, such as tokens/00003@123456"
        )
    if planned.manifest is None:
        raise ValueError(
            f"{name} of {plan.recipe.name} has not finished in {plan.store.url}: "
            f"`headrace run {plan.recipe.name} --to {name}` first"
        )
    checkpoint = Checkpoint(plan.store, planned.manifest)
    shard = int(match["shard"]) if match["shard"] else None
    file, position = _shard_of(checkpoint.files(TOKENS, part), shard, int(match["position"]), f"{name}/{part}")
    id, source, start, length = _document_at(checkpoint, part, file.shard, position)
    tokens = _read_tokens(checkpoint, file, start, length)
    document = _traced(plan, planned.recipe_node, id, source)

    vocabulary = _vocabulary(plan, planned.recipe_node.inputs["tokenizer"])
    words = [vocabulary.reads[token] for token in tokens.tolist()]
    at = position - start
    if vocabulary.begins_with_blank and len(words) > 1:
        words[0] = words[0][1:]
    shown = words[at]
    words[-1] = b""  # end-of-text is no part of the text
    text_start = sum(map(len, words[:at]))
    text_end = text_start + len(words[at])
    text = b"".join(words)
    return TracedToken(
        place=f"{name}/{part}/{file.shard:05d}@{position}",
        token=int(tokens[at]),
        text=shown.decode(errors="replace"),
        before=text[max(0, text_start - _CONTEXT_BYTES) : text_start].decode(errors="replace"),
        after=text[text_end : text_end + _CONTEXT_BYTES].decode(errors="replace"),
        text_start=text_start,
        text_end=text_end,
        document_start=start,
        document_length=length,
        source=source,
        document=document,
    )


def _traced(plan: Plan, node: RecipeNode, id: str, source: str) -> TracedDocument:
    """The document. Raises ValueError where this recipe's filters have not seen it, for its source is another's."""
    for slot, name in source_names([*node.inputs, *node.standing]).items():
        if name == source and slot in node.standing:
            kind, digits = node.standing[slot]
            raise ValueError(
                f"{id} is of the source {source}, {kind}@{digits}, which another recipe made: ask there for "
                f"`headrace why {id}`"
            )
    (document,) = trace(plan, id)
    return document


def _shard_of(files: list[OutputFile], shard: int | None, position: int, where: str) -> tuple[OutputFile, int]:
    """The shard and the position in it. Without a shard, the position is in all of them end to end."""
    if shard is not None:
        found = [file for file in files if file.shard == shard]
        if not found:
            raise ValueError(f"{where} has no shard {shard}: it has {', '.join(str(file.shard) for file in files)}")
        files = found
    num_tokens = sum(file.rows for file in files)
    if position >= num_tokens:
        what = where if shard is None else f"{where}/{shard:05d}"
        raise ValueError(f"{what} holds {num_tokens:,} tokens: positions are counted from 0")
    for file in files:
        if position < file.rows:
            return file, position
        position -= file.rows
    raise AssertionError("positions below the sum lie in a shard")


def _document_at(checkpoint: Checkpoint, part: str, shard: int, position: int) -> tuple[str, str, int, int]:
    """Id, source, first token and number of tokens of the document that holds the position."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    (file,) = [file for file in checkpoint.files(TOKEN_INDEX, part) if file.shard == shard]
    index = pq.read_table(pa.BufferReader(checkpoint.read(file)), columns=["id", "source", "start", "length"])
    row = int(np.searchsorted(index["start"].to_numpy(), position, side="right")) - 1
    (found,) = index.slice(row, 1).to_pylist()
    return found["id"], found["source"], found["start"], found["length"]


def _read_tokens(
    checkpoint: Checkpoint, file: OutputFile, start: int, length: int
) -> "npt.NDArray[np.unsignedinteger]":
    """One document's tokens, by a range read: a shard may be of gigabytes."""
    import numpy as np

    dtype = np.dtype(str(checkpoint.manifest.metrics["dtype"])).newbyteorder("<")
    data = checkpoint.store.get_range(file.path, start * dtype.itemsize, length * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype)


@dataclass(frozen=True)
class _Vocabulary:
    reads: dict[int, bytes]
    """What each token reads."""
    begins_with_blank: bool
    """A blank stands before each text, which is not in it."""


def _vocabulary(plan: Plan, name: str) -> _Vocabulary:
    """Of the tokenizer.json that the tokens were made with."""
    manifest = plan.nodes[name].manifest
    if manifest is None:
        raise ValueError(f"{name} is gone from {plan.store.url}: `headrace run {plan.recipe.name} --to {name}` first")
    checkpoint = Checkpoint(plan.store, manifest)
    described = json.loads(checkpoint.read(checkpoint.file("tokenizer.json")))
    special = {entry["id"]: entry["content"].encode() for entry in described["added_tokens"]}
    vocab = described["model"]["vocab"]
    # A unigram model has a list of [token, score], in the order of numbers.
    numbered = {token: number for number, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else vocab
    of_pieces = bool(described["model"].get("byte_fallback"))
    read = _read_piece if of_pieces else _read_letters
    ordinary = {number: read(token) for token, number in numbered.items() if number not in special}
    return _Vocabulary(special | ordinary, of_pieces)


def _read_letters(token: str) -> bytes:
    """Of a byte-level vocabulary."""
    alphabet = _byte_alphabet()
    return bytes(alphabet[character] for character in token)


def _read_piece(token: str) -> bytes:
    """Of SentencePiece's: U+2581 is a blank, and <0x0A> a byte."""
    byte = _BYTE_PIECE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (Radford et al., 2019): itself where it
    prints, else the next one from 256 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printing)]
    return {chr(byte): byte for byte in printing} | {chr(256 + number): byte for number, byte in enumerate(others)}
