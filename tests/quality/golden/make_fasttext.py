"""Made the .bin files beside it, with fasttext-community 0.11.9 (which holds fastText 0.9's trainer), in an environment
of its own: its module has the name of fasttext-predict's.

    python -m venv peer && peer/bin/pip install fasttext-community==0.11.9
    peer/bin/python tests/quality/golden/make_fasttext.py
"""

import random
import tempfile
from pathlib import Path

import fasttext

FOLDER = Path(__file__).parent
TOPICS = {
    "mill": "water mill channel stone wheel river Straße größe 水車 grain flour quiet",
    "spam": "click buy NOW cheap free Казино casino spam ラーメン winner prize",
    "plain": "neutral plain words",
}
COMMON = "the a of and is in"
KINDS = {
    "bigrams": {"loss": "softmax", "wordNgrams": 2, "bucket": 64},
    "characters": {"loss": "softmax", "wordNgrams": 3, "bucket": 50, "minn": 1, "maxn": 3},
    "words": {"loss": "softmax", "wordNgrams": 1, "bucket": 0},
    "ova": {"loss": "ova", "wordNgrams": 2, "bucket": 50, "minn": 2, "maxn": 3},
    "hierarchical": {"loss": "hs", "wordNgrams": 1, "bucket": 0},
}


def lines() -> list[str]:
    draw = random.Random(3)
    made = []
    for number in range(200):
        label = list(TOPICS)[number % len(TOPICS)]
        words = f"{TOPICS[label]} {COMMON}".split()
        made.append(f"__label__{label} " + " ".join(draw.choice(words) for _ in range(draw.randint(3, 12))))
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "texts.txt"
        text.write_text("\n".join(lines()) + "\n")
        for name, settings in KINDS.items():
            model = fasttext.train_supervised(
                str(text), dim=4, epoch=20, lr=0.5, thread=1, minCount=2, verbose=0, **settings
            )
            model.save_model(str(FOLDER / f"{name}.bin"))
