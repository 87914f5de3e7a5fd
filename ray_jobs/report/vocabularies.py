"""What tokenizers make of the same held-out text: a table by language, and one of each tokenizer's own figures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray_jobs.report.figures import count, share
from ray_jobs.report.nodes import Node

MEASURES = "measures.json"
MOST_LANGUAGES = 24


@dataclass(frozen=True)
class LanguageRow:
    language: str
    documents: int
    cells: list[str]
    """For each tokenizer: bytes a token, characters a token, tokens a word."""


@dataclass(frozen=True)
class TokenizerRow:
    name: str
    cells: list[str]


@dataclass(frozen=True)
class Comparison:
    names: list[str]
    """Of the tokenizers."""
    languages: list[LanguageRow]
    num_left_out: int
    """Languages with less text than those shown."""
    tokenizers: list[TokenizerRow]
    num_documents: int


def comparison(node: Node) -> Comparison | None:
    """None of a node that measured nothing."""
    files = node.checkpoint.files(MEASURES)
    if not files:
        return None
    told: list[dict[str, Any]] = json.loads(node.checkpoint.read(files[0]))
    ours = told[0]["languages"]
    names = sorted(ours, key=lambda language: (-ours[language]["bytes"], language))
    rows = [
        LanguageRow(
            language or "unknown",
            ours[language]["documents"],
            [cell for one in told for cell in _language_cells(one["languages"][language])],
        )
        for language in names[:MOST_LANGUAGES]
    ]
    return Comparison(
        [one["name"] for one in told],
        rows,
        max(0, len(names) - MOST_LANGUAGES),
        [TokenizerRow(one["name"], _tokenizer_cells(one)) for one in told],
        told[0]["total"]["documents"],
    )


def _language_cells(sums: Mapping[str, int]) -> list[str]:
    return [
        _ratio(sums["bytes"], sums["tokens"]),
        _ratio(sums["characters"], sums["tokens"]),
        _ratio(sums["tokens"], sums["words"]),
    ]


TOKENIZER_COLUMNS = (
    "vocabulary",
    "used here",
    "bytes a token",
    "… of code",
    "digits a token",
    "tokens a number",
    "do not come back",
    "lose U+2581",
)


def _tokenizer_cells(told: Mapping[str, Any]) -> list[str]:
    total, code = told["total"], told["code"]
    return [
        count(told["vocab_size"]),
        share(told["vocabulary_used"], told["vocab_size"]),
        _ratio(total["bytes"], total["tokens"]),
        _ratio(code["bytes"], code["tokens"]),
        _ratio(total["digits"], total["number_tokens"]),
        _ratio(total["number_tokens"], total["numbers"]),
        count(told["round_trip_failures"]),
        count(told["blank_signs"]),
    ]


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.2f}" if b else "–"
