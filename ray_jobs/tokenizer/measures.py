"""What a tokenizer makes of text that it was not trained on, so that several can be compared.

**Fertility** is tokens a word, a word being what stands between white space (Rust et al. 2021, arXiv:2012.15613,
section 2.3); of scripts that put none between words, such as Chinese and Thai, it says nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models

from configs.tokenizer import Kind, OtherTokenizer
from ray_jobs.files.pinned import fetched
from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.sentence_pieces import BLANK

NUMBER = re.compile(r"[0-9]+")
MOST_DIGITS = 12
"""Longer numbers are identifiers: they are not counted."""

CODE = '''\
def solve(board: list[list[int]], depth: int = 0) -> bool:
    """Backtracking."""
    for row in range(len(board)):
        if board[row][depth] != 0x1F and not self._cache.get((row, depth)):
            return {"key": [f"{row:>4}" for _ in board], **kwargs} == None
    raise ValueError("no solution")

static inline int max_index(const float *values, size_t length)
{
\tint best = -1;
\tfor (size_t i = 0; i < length; ++i) {
\t\tif (best < 0 || values[i] > values[best])
\t\t\tbest = (int)i;  // first of equals
\t}
\treturn best;
}

<ul class="menu">{% for item in items %}<li><a href="/p?id={{ item.id }}&amp;x=1">{{ item.name }}</a></li>{% endfor %}</ul>
SELECT u.id, COUNT(*) AS n FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.age >= 18 GROUP BY 1 HAVING n > 3;
const sum = (xs) => xs.reduce((a, b) => a + b, 0);
'''  # noqa: E501
"""Python, C, a template, SQL and JavaScript."""


def as_it_is(text: str) -> str:
    return text


def blanks_for_signs(text: str) -> str:
    """SentencePiece writes blanks as U+2581, and that sign comes back as a blank."""
    return text.replace(BLANK, " ")


@dataclass(frozen=True)
class Measured:
    """A tokenizer as it is measured."""

    name: str
    vocab_size: int
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    comes_back: Callable[[str], str]
    """What a text is after encoding and decoding, by the kind's definition."""

    @classmethod
    def trained(cls, kind: Kind, files: Mapping[str, bytes]) -> "Measured":
        """One that the node trained, by its files."""
        encoder = Encoder(files["tokenizer.json"])
        comes_back = blanks_for_signs if "tokenizer.model" in files else as_it_is
        return cls(kind, encoder.vocab_size, encoder.encode, encoder.decode, comes_back)


def others_of(compared_with: Mapping[str, OtherTokenizer]) -> Iterator[Measured]:
    """Those that the spec names, fetched and loaded.

    Raises:
        ValueError: a file cannot be had, or is not what was pinned.
    """
    for name, other in sorted(compared_with.items()):
        if other.tokenizer is not None:
            loaded = Tokenizer.from_str(fetched(other.tokenizer).read_text())
        else:
            assert other.vocabulary is not None and other.merges is not None
            loaded = bpe.new_tokenizer("gpt2")
            loaded.model = models.BPE.from_file(str(fetched(other.vocabulary)), str(fetched(other.merges)))
        loaded.encode_special_tokens = True
        yield _measured(name, loaded)


def _measured(name: str, tokenizer: Tokenizer) -> Measured:
    return Measured(
        name,
        tokenizer.get_vocab_size(),
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False),
        as_it_is,
    )


@dataclass
class Sums:
    """Over the documents of a language, or of all."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    numbers: int = 0
    digits: int = 0
    number_tokens: int = 0
    """Of what the numbers, written with digits, become on their own."""

    def add(self, other: "Sums") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Measures:
    name: str
    vocab_size: int
    languages: dict[str, Sums]
    vocabulary_used: int
    """Different tokens in the encoded text."""
    round_trip_failures: int
    """Documents that do not come back from their tokens: of a tokenizer trained here always 0."""
    blank_signs: int
    """Documents with U+2581, if the tokenizer gives a blank for it."""
    code_tokens: int

    @property
    def total(self) -> Sums:
        total = Sums()
        for sums in self.languages.values():
            total.add(sums)
        return total

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "vocabulary_used": self.vocabulary_used,
            "round_trip_failures": self.round_trip_failures,
            "blank_signs": self.blank_signs,
            "code": {"bytes": len(CODE.encode()), "tokens": self.code_tokens},
            "total": vars(self.total),
            "languages": {language: vars(sums) for language, sums in self.languages.items()},
        }


def measure(tokenizer: Measured, texts: Mapping[str, Sequence[str]]) -> Measures:
    """`texts` are those of each language."""
    languages: dict[str, Sums] = {}
    used: set[int] = set()
    failures, signs = 0, 0
    of_number: dict[str, int] = {}
    for language in sorted(texts):
        sums = languages[language] = Sums()
        for text in texts[language]:
            ids = tokenizer.encode(text)
            used.update(ids)
            expected = tokenizer.comes_back(text)
            failures += tokenizer.decode(ids) != expected
            signs += expected != text
            numbers = [number for number in NUMBER.findall(text) if len(number) <= MOST_DIGITS]
            for number in numbers:
                if number not in of_number:
                    of_number[number] = tokens_of_number(tokenizer, number)
            sums.add(
                Sums(
                    documents=1,
                    bytes=len(text.encode()),
                    characters=len(text),
                    words=len(text.split()),
                    tokens=len(ids),
                    numbers=len(numbers),
                    digits=sum(map(len, numbers)),
                    number_tokens=sum(of_number[number] for number in numbers),
                )
            )
    code = tokenizer.encode(CODE)
    failures += tokenizer.decode(code) != CODE
    return Measures(tokenizer.name, tokenizer.vocab_size, languages, len(used), failures, signs, len(code))


def tokens_of_number(tokenizer: Measured, number: str) -> int:
    """Behind a sign that no tokenizer joins digits to, and without what stands before that."""
    return len(tokenizer.encode("=" + number)) - len(tokenizer.encode("="))
