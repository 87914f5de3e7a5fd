"""python -m tests.quality.golden LMPLZ: writes what KenLM's lmplz and its Python module make of a small corpus.

LMPLZ is the program, built from github.com/kpu/kenlm (the files here: commit 4cb443e, 2025-03-30). The module `kenlm`
must be installed (0.3.0).
"""

import json
import random
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "lmplz"
PRUNINGS = {"order2": (1, 1), "order3": (1, 1, 1), "order4_pruned": (1, 1, 2, 2)}
"""Least counts that are kept, by file."""
_LINE = (
    "the a mill wheel water turns race stone grain flour river runs old new and , . miller grinds slow fast day night"
)
WORDS = _LINE.split()
NUM_SENTENCES = 160


def corpus() -> list[str]:
    """Sentences in which some words follow others more often than by chance.

    The last one ends in a word that comes once. lmplz, at its end, counts the last n-gram of each order in the order of
    words' first appearance by how often it comes, not by its adjusted count (adjust_counts.cc); here both are 1.
    """
    draw = random.Random(7)
    sentences = []
    for _ in range(NUM_SENTENCES):
        place = draw.randrange(8)
        sentence = []
        for _ in range(draw.randrange(2, 9)):
            sentence.append(WORDS[place])
            place = (3 * place + int(1 + 6 * draw.random() ** 3)) % len(WORDS)
        sentences.append(" ".join(sentence))
    return [*sentences, "the wheel stands"]


def probes() -> list[str]:
    """Sentences to score: seen and unseen words, and both at a sentence's ends."""
    draw = random.Random(8)
    words = [*WORDS, "unheard", "éclair", "0000"]
    made = [" ".join(draw.choices(words, k=draw.randrange(1, 12))) for _ in range(40)]
    return [*corpus()[:10], *made, "the", "unheard", "unheard unheard the wheel turns"]


def main(lmplz: str) -> None:
    import kenlm

    FOLDER.mkdir(exist_ok=True)
    text = "".join(sentence + "\n" for sentence in corpus())
    scores = {}
    for name, least in PRUNINGS.items():
        prune = [str(count - 1) for count in least]
        command = [lmplz, "-o", str(len(least)), "-S", "100M", "--discount_fallback", "--prune", *prune]
        made = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        (FOLDER / f"{name}.arpa").write_bytes(made)
        model = kenlm.Model(str(FOLDER / f"{name}.arpa"))
        scores[name] = [round(model.score(sentence), 5) for sentence in probes()]
    (FOLDER / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
