"""Multiple-choice questions, answered by the choice that the model finds likeliest a byte.

A record is a question where it holds a text, a list of choices and which of them is right, under the names that such
sets have: {query, choices, gold}, MMLU's {question, choices, answer}, ARC's {question, choices: {text, label},
answerKey}, HellaSwag's {ctx, endings, label}. The text and a choice are joined by a space. The choice's tokens are
scored after the text, and their −log p is divided by the choice's bytes, so that long choices are not at a
disadvantage: `acc_norm` of the Language Model Evaluation Harness (Gao et al. 2021), which divides by characters.
Free of torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.tokenizer.encode import Encoder

TEXTS, CHOICES, ANSWERS = ("query", "question", "ctx"), ("choices", "endings"), ("gold", "answer", "label", "answerKey")


@dataclass(frozen=True)
class Choice:
    tokens: npt.NDArray[np.int64]
    num_bytes: int


@dataclass(frozen=True)
class Question:
    """Encoded; no token of it is special."""

    set: str
    text: npt.NDArray[np.int64]
    choices: tuple[Choice, ...]
    gold: int
    """Which choice is right."""


def questions_of(sets: Checkpoint, encoder: Encoder, most: int) -> list[Question]:
    """Up to `most` questions of every set of an eval-sets node that has such, evenly spaced.

    Raises:
        ValueError: no set has any.
    """
    found: list[Question] = []
    names = []
    for file in sets.files("examples.parquet"):
        table = pq.read_table(pa.BufferReader(sets.read(file)), columns=["set", "record"])
        names += table["set"][:1].to_pylist()
        read = [parsed(json.loads(record)) for record in table["record"].to_pylist()]
        usable = [(name, one) for name, one in zip(table["set"].to_pylist(), read, strict=True) if one is not None]
        for place in np.linspace(0, len(usable) - 1, min(most, len(usable))).round().astype(int).tolist():
            name, (text, choices, gold) = usable[place]
            found.append(encoded(encoder, name, text, choices, gold))
    if not found:
        raise ValueError(
            f"the evaluation sets ({', '.join(names)}) hold no multiple-choice question: records need a text, a list "
            "of choices and the right one, such as {query, choices, gold}; or set evaluation.num_questions to 0"
        )
    return found


def parsed(record: Mapping[str, Any]) -> tuple[str, list[str], int] | None:
    """Text, choices and the right one; None where the record is no such question."""
    text, answer = _first(record, TEXTS), _first(record, ANSWERS)
    choices: Any = _first(record, CHOICES)
    labels: list[Any] = []
    if isinstance(choices, dict):  # ARC's
        choices, labels = choices.get("text"), list(choices.get("label") or [])
    if not isinstance(text, str) or not isinstance(choices, list) or len(choices) < 2:
        return None
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return None
    text = text.rstrip()  # before the space that joins them
    if answer in labels:
        return text, choices, labels.index(answer)
    if isinstance(answer, str) and answer.isdecimal():  # HellaSwag writes numbers as strings
        answer = int(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        return None
    return text, choices, answer


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if name in record), None)


def encoded(encoder: Encoder, name: str, text: str, choices: Sequence[str], gold: int) -> Question:
    """The text's tokens, and of the text with each choice those behind them."""
    own = encoder.encode(text)
    of_choices = []
    for choice in choices:
        tokens = encoder.encode(f"{text} {choice}")[len(own) :]
        of_choices.append(Choice(np.array(tokens, dtype=np.int64), len(choice.encode(errors="replace"))))
    return Question(name, np.array(own, dtype=np.int64), tuple(of_choices), gold)


def accuracy_by_set(questions: Sequence[Question], nlls: np.ndarray) -> dict[str, float]:
    """Share of each set's questions that are answered rightly.

    Args:
        nlls: −log p of every choice of every question, in their order.
    """
    right: dict[str, list[bool]] = {}
    begin = 0
    for question in questions:
        costs = nlls[begin : begin + len(question.choices)] / [choice.num_bytes for choice in question.choices]
        right.setdefault(question.set, []).append(int(costs.argmin()) == question.gold)
        begin += len(question.choices)
    return {name: sum(answers) / len(answers) for name, answers in right.items()}
