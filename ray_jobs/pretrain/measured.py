"""What an evaluation during training scores: held-out documents with their domains, and questions. Free of torch."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.pretrain import EvaluationSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.model.questions import Question, questions_of
from ray_jobs.tokenizer.heldout import HeldOut, domains_of, heldout_documents

log = logging.getLogger("headrace")

OTHERS = "others"


@dataclass(frozen=True)
class Measured:
    """What an evaluation scores. Picklable."""

    documents: tuple[HeldOut, ...]
    domains: tuple[str, ...]
    """Of each document."""
    questions: tuple[Question, ...] = ()


def measured(
    spec: EvaluationSpec, tokens: Checkpoint, tokenizer: Checkpoint, eval_sets: Checkpoint | None = None
) -> Measured:
    """Raises ValueError where there is no held-out document, or no question in the sets."""
    documents = heldout_documents(tokens, spec.max_documents)
    domains = largest(domains_of(tokens, documents), documents, spec.num_domains)
    questions: tuple[Question, ...] = ()
    if eval_sets is not None and spec.num_questions:
        from ray_jobs.tokenizer.encode import Encoder

        encoder = Encoder(tokenizer.read(tokenizer.file("tokenizer.json")))
        questions = tuple(questions_of(eval_sets, encoder, spec.num_questions))
    log.info("every %d steps %d held-out documents and %d questions", spec.every, len(documents), len(questions))
    return Measured(tuple(documents), tuple(domains), questions)


def largest(domains: Sequence[str], documents: Sequence[HeldOut], most: int) -> list[str]:
    """The domains with the most bytes by name, the others put together; as they are where they are so few."""
    sizes: Counter[str] = Counter()
    for domain, document in zip(domains, documents, strict=True):
        sizes[domain] += document.num_bytes
    kept = {domain for domain, _ in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))[:most]}
    return [domain if domain in kept else OTHERS for domain in domains]
