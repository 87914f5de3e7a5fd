"""Real pages with gold main text, and how near to it an extraction comes."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc import ArchiveIterator, WarcRecordType

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
