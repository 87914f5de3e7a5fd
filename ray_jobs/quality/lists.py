"""Which terms are looked for in a document: those of its language's lists, and those looked for everywhere."""

from collections.abc import Mapping
from functools import cache

import pyarrow as pa

from configs.toxicity import ToxicWords
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.files.pinned import fetched
from ray_jobs.quality.words import Found, Matcher

Lists = Mapping[str, tuple[str, ...]]
"""Language -> terms."""


def terms_of(spec: ToxicWords) -> Lists:
    """All terms of the spec, those of its files among them.

    Raises:
        UserError: a file is not there, has another checksum or is no UTF-8.
    """
    terms = dict(spec.terms)
    for language, file in sorted(spec.lists.items()):
        try:
            lines = fetched(file).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{file.url} is no UTF-8 at byte {error.start}: save it as UTF-8") from error
        terms[language] = (*terms.get(language, ()), *(line.strip() for line in lines if line.strip()))
    return terms


def measure(
    texts: pa.ChunkedArray, languages: pa.ChunkedArray, lists: Lists, everywhere: tuple[str, ...]
) -> list[Found]:
    """What each text holds of the lists for its language."""
    of_row = languages.to_pylist()
    matchers = {language: _matcher(_of_language(language, lists, everywhere)) for language in set(of_row)}
    return [
        matchers[language].measure(text.as_py())
        for text, language in zip(texts.cast(pa.large_binary()), of_row, strict=True)
    ]


def _of_language(language: str | None, lists: Lists, everywhere: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(lists[name] for name in sorted({language or "", *everywhere}) if name in lists)


@cache
def _matcher(lists: tuple[tuple[str, ...], ...]) -> Matcher:
    return Matcher(term for terms in lists for term in terms)
