"""datatrove's WarcReader and Trafilatura extractor over one archive; prints the pages read a second of processor time.

Run by corpus.py, in an environment of its own. Its extractor works in a process beside the reader's, which waits for
each page: the processor time of both counts, so that it is one core's work.

Settings are those that make it fastest: a page that takes longer than a tenth of a second is given up, and neither
Trafilatura's second extractors nor its search for repeated paragraphs are asked for.
"""

import os
import sys
from pathlib import Path

import trafilatura  # noqa: F401  # here, so that the extractor's process inherits it
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import WarcReader
from datatrove.utils.logging import logger

TIMEOUT_SECONDS = 0.1
WARM_UP_PAGES = 20


def processor_seconds() -> float:
    """Of this process and of those that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def extract(archive: Path, limit: int = -1) -> tuple[int, int]:
    """Pages read, and pages that gave a text."""
    reader = WarcReader(str(archive.parent), glob_pattern=archive.name, limit=limit)
    extractor = Trafilatura(timeout=TIMEOUT_SECONDS, deduplicate=False, no_fallback=True)
    kept = sum(1 for _ in extractor.run(reader.run()))
    return extractor.stats["total"].total, kept


if __name__ == "__main__":
    logger.remove()
    extract(Path(sys.argv[1]), WARM_UP_PAGES)
    began = processor_seconds()
    read, kept = extract(Path(sys.argv[1]))
    print(read / (processor_seconds() - began), read, kept)
