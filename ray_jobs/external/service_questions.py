"""An evaluation set that is installed: questions with four choices out of botocore's service models.

    Which operation of Amazon EC2 does this? "Cancels the specified Capacity Reservation, releases the reserved …"
    CancelCapacityReservation | DeleteVolume | …

A documentation crawl holds some of these descriptions, so that decontamination has something to find.
"""

import gzip
import html
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from configs.external import PinnedServiceQuestions
from ray_jobs.files.installed import scattered, service_models, versions_of

GENERATOR = 1
"""Raised when the questions that the same version gives would change."""

NUM_CHOICES = 4
MIN_WORDS, MAX_WORDS = 12, 60
"""Of a description: fewer say too little, and of more only the first are asked about."""
MAX_MODEL_BYTES = 150_000
"""Compressed. The models of a few large services take seconds to parse."""


def installed_versions() -> dict[str, str]:
    """Raises ValueError where botocore is not installed."""
    return versions_of(("botocore",), "the evaluation set service_questions")


def examples(content: PinnedServiceQuestions) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text to be kept out of training, record) of each question.

    Raises:
        ValueError: there are fewer services than questions are wanted.
    """
    found = list(islice(_questions(), content.num_questions))
    if len(found) < content.num_questions:
        raise ValueError(
            f"botocore gives {len(found)} questions, wanted are {content.num_questions}: "
            "lower eval-sets.service_questions.num_questions"
        )
    for record in found:
        yield record["description"], record


def _questions() -> Iterator[dict[str, Any]]:
    for service, path in service_models():
        if path.stat().st_size <= MAX_MODEL_BYTES:
            question = _question(service, path)
            if question is not None:
                yield question


def _question(service: str, path: Path) -> dict[str, Any] | None:
    """The service's question, or None where no operation is described at length or there are too few to choose from."""
    model = json.loads(gzip.decompress(path.read_bytes()))
    title = model["metadata"].get("serviceFullName", service)
    operations = model["operations"]
    # Another order than the crawl's, which takes the first operations of its own.
    names = sorted(operations, key=lambda name: scattered(f"question/{service}/{name}"))
    for answer in names:
        description = _description(operations[answer].get("documentation", ""))
        if len(names) >= NUM_CHOICES and len(description.split()) >= MIN_WORDS and answer not in description:
            choices = sorted([answer, *[name for name in names if name != answer][: NUM_CHOICES - 1]])
            return {
                "query": f'Which operation of {title} does this? "{description}"',
                "choices": choices,
                "gold": choices.index(answer),
                "description": description,
            }
    return None


def _description(documentation: str) -> str:
    """The first words of the documentation's first paragraph, without its markup."""
    first = re.split(r"</p>|<note>|<ul>", documentation.replace("<p>", ""), maxsplit=1)[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", first)).split()[:MAX_WORDS])
