"""KenLM's scores of documents, one a line of JSON: [text, text cut into words and sentences].

Prints documents a second of processor time, with cutting the text and without. Run by quality.py, in an environment of
its own. A sentence is a line; `model.score` is the fastest call.
"""

import json
import re
import sys
import time
from pathlib import Path

import kenlm

WORD = re.compile(r"\w+|[^\w\s]")
DIGIT = re.compile(r"\d")


def cut(text: str) -> list[str]:
    return [" ".join(WORD.findall(DIGIT.sub("0", line.lower()))) for line in text.split("\n") if line.strip()]


def perplexity(model: "kenlm.Model", lines: list[str]) -> float:
    total, num_words = 0.0, 0
    for line in lines:
        total += model.score(line)
        num_words += len(line.split()) + 1
    return 10 ** (-total / num_words) if num_words else 0.0


if __name__ == "__main__":
    model = kenlm.Model(sys.argv[1])
    pairs = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    lines = [text.splitlines() for _, text in pairs]
    for text, _ in pairs[:200]:
        perplexity(model, cut(text))
    began = time.process_time()
    for text, _ in pairs:
        perplexity(model, cut(text))
    with_cutting = time.process_time() - began
    began = time.process_time()
    for document in lines:
        perplexity(model, document)
    alone = time.process_time() - began
    print(len(pairs) / with_cutting, len(pairs) / alone)
