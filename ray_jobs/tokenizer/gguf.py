"""What a GGUF file says of a tokenizer, so that llama.cpp gives the ids that training gave.

llama.cpp does not read a tokenizer.json: it has its own code for each pre-tokenizer that it knows, chosen by name
(`tokenizer.ggml.pre`). A file that names the wrong one still loads, and the model answers worse. So each of our
pre-tokenizers states its name here, and what has none is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tokenizers import Tokenizer

from ray_jobs.tokenizer.bpe import pre_tokenizer_of
from ray_jobs.tokenizer.special import number_of, special_tokens_of

PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe"}
"""Our pre-tokenizers -> llama.cpp's names for the same pattern."""


class TokenType(IntEnum):
    """llama.cpp's `llama_token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


@dataclass(frozen=True)
class GgufVocabulary:
    """By the arrays of GGUF's specification."""

    model: str
    """tokenizer.ggml.model: "gpt2" is byte-level BPE, "llama" SentencePiece BPE."""
    pre: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float] | None
    """Of SentencePiece's pieces."""
    merges: list[str] | None
    """Of byte-level BPE: "left right"."""


def gguf_metadata(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Keys and values of a GGUF file's header, of the files that the tokenizer node leaves, by name.

    Raises:
        ValueError: llama.cpp has no pre-tokenizer or model that gives these ids.
    """
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    vocabulary = _vocabulary(tokenizer, files.get("tokenizer.model"))
    special = special_tokens_of(tokenizer)
    found: dict[str, Any] = {
        "tokenizer.ggml.model": vocabulary.model,
        "tokenizer.ggml.pre": vocabulary.pre,
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": [int(one) for one in vocabulary.types],
        "tokenizer.ggml.bos_token_id": number_of(tokenizer, special.begin),
        "tokenizer.ggml.eos_token_id": number_of(tokenizer, special.end),
        "tokenizer.ggml.padding_token_id": number_of(tokenizer, special.pad),
        # Training puts nothing before a document and its end behind it: a prompt has neither.
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": vocabulary.model == "llama",
        "tokenizer.chat_template": files["chat_template.jinja"].decode(),
    }
    if special.unknown is not None:
        found["tokenizer.ggml.unknown_token_id"] = number_of(tokenizer, special.unknown)
    if vocabulary.scores is not None:
        found["tokenizer.ggml.scores"] = vocabulary.scores
    if vocabulary.merges is not None:
        found["tokenizer.ggml.merges"] = vocabulary.merges
    return found


def _vocabulary(tokenizer: Tokenizer, sentencepiece_model: bytes | None) -> GgufVocabulary:
    if sentencepiece_model is not None:
        return _of_pieces(sentencepiece_model)
    described = json.loads(tokenizer.to_str())
    pre = pre_tokenizer_of(tokenizer)
    if described["model"]["type"] != "BPE" or pre is None or pre not in PRE:
        raise ValueError(
            "this tokenizer cuts text in a way that llama.cpp has no name for, so a GGUF file of it would give other "
            f"ids: train one with tokenizer.pre_tokenizer {' or '.join(PRE)}, or tokenizer.model sentencepiece-bpe"
        )
    special = set(special_tokens_of(tokenizer).names)
    tokens = sorted(described["model"]["vocab"], key=described["model"]["vocab"].__getitem__)
    types = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    merges = [" ".join(pair) for pair in described["model"]["merges"]]
    return GgufVocabulary("gpt2", PRE[pre], tokens, types, None, merges)


def _of_pieces(data: bytes) -> GgufVocabulary:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise ValueError(
            "llama.cpp's unigram has no bytes for characters without a piece, so a GGUF file of this tokenizer would "
            "give other ids: train one with tokenizer.model sentencepiece-bpe or bpe"
        )
    piece_type = sentencepiece_model_pb2.ModelProto.SentencePiece
    kinds = {
        piece_type.UNKNOWN: TokenType.UNKNOWN,
        piece_type.CONTROL: TokenType.CONTROL,
        piece_type.BYTE: TokenType.BYTE,
    }
    types = [kinds.get(piece.type, TokenType.NORMAL) for piece in model.pieces]
    scores = [piece.score for piece in model.pieces]
    return GgufVocabulary("llama", "default", [piece.piece for piece in model.pieces], types, scores, None)
