"""fastText's trainer on texts, one a line as `__label__x text`; prints megabytes trained and texts scored a second of
processor time, on one thread, and the area under the ROC curve on the held-out file.

Run by classifiers.py, in an environment of its own: its module has the name of fasttext-predict's.
"""

import json
import sys
import time
from pathlib import Path

import fasttext


def area(scores: list[float], positive: list[bool]) -> float:
    """By pairs, ties counting half."""
    ones = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    others = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    won = sum((a > b) + 0.5 * (a == b) for a in ones for b in others)
    return won / (len(ones) * len(others))


if __name__ == "__main__":
    trained, heldout, model_path = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    settings = json.loads(sys.argv[4])
    began = time.process_time()
    model = fasttext.train_supervised(str(trained), thread=1, verbose=0, **settings)
    seconds = time.process_time() - began
    model.save_model(model_path)
    lines = [line.partition(" ") for line in heldout.read_text().splitlines()]
    texts, positive = [text for _, _, text in lines], [label == "__label__1" for label, _, _ in lines]
    model.predict(texts[:10])
    began = time.process_time()
    predicted = [model.predict(text, k=2) for text in texts]
    scored = len(texts) / (time.process_time() - began)
    scores = [dict(zip(*one, strict=True))["__label__1"] for one in predicted]
    print(trained.stat().st_size * settings["epoch"] / 1e6 / seconds, scored, area(scores, positive))
