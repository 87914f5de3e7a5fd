"""Real pages with gold main text and real sentences in known languages, and how near to them an extraction comes."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc import ArchiveIterator, WarcRecordType

from configs.crawl import LANGUAGES
from ray_jobs.crawl.payload import decode_text


@dataclass(frozen=True)
class Score:
    """Means over the pages."""

    pages: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def real_pages(data_dir: Path) -> Iterator[tuple[str, str]]:
    archive = str(data_dir / "realpages/realpages-dev.warc.gz")
    for record in ArchiveIterator(archive, record_types=WarcRecordType.response):
        yield record.headers["WARC-Target-URI"], decode_text(record.reader.read(), record.http_content_type or "")


def four_grams(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3)))


def f1_of_main_text(data_dir: Path, extract: Callable[[str], str | None]) -> Score:
    """Of 4-grams of words, with their multiplicity."""
    gold = json.loads((data_dir / "realpages/gold_articleBody.json").read_text())
    precisions, recalls = [], []
    for url, html in real_pages(data_dir):
        if url in gold:
            wanted, found = four_grams(gold[url]), four_grams(extract(html) or "")
            common = (wanted & found).total()
            precisions.append(common / found.total())
            recalls.append(common / wanted.total())
    return Score(len(precisions), sum(precisions) / len(precisions), sum(recalls) / len(recalls))


SENTENCES_IN = {"nb": "no"}
"""Languages of lid/sentences that lid.176 has under another code."""


def accuracy_by_language(data_dir: Path, tell: Callable[[str], str], most: int | None = None) -> dict[str, float]:
    """Share of its sentences whose language is told, for each language that lid.176 knows.

    Args:
        tell: from a sentence to lid.176's code.
        most: so many sentences a language.
    """
    shares = {}
    for file in sorted((data_dir / "lid/sentences").glob("*.txt")):
        language = SENTENCES_IN.get(file.stem, file.stem)
        if language in LANGUAGES:
            lines = [line for line in file.read_text().splitlines() if line.strip()][:most]
            shares[language] = sum(tell(line) == language for line in lines) / len(lines)
    return shares
