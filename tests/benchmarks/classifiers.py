"""Classifiers and word lists: how fast they train and score, and how well they tell.

    python -m tests.benchmarks.classifiers [--only NAME …] [--peers] [--json]

Speed is of one core, over real main text (Debian's manuals) cut into documents of 4 KB. What is told apart are Debian's
manuals in English, as a reference, and English pages of the web, as a crawl; and 252 labelled comments.
"""

import csv
import functools
import io
import json
import subprocess
from typing import TYPE_CHECKING

from tests.benchmarks.corpus import DATA, equal_documents, processor_time
from tests.benchmarks.harness import Bench, NotMeasured, figure, main

if TYPE_CHECKING:
    import numpy as np

    from ray_jobs.quality.linear import LinearModel

PEER = "fasttext-community==0.11.9"
# fastText's own defaults but for bigrams: 100 numbers a row, as DCLM's classifier has.
SETTINGS = {"dim": 100, "epoch": 5, "lr": 0.5, "wordNgrams": 2, "bucket": 1_000_000}


@functools.cache
def pages() -> tuple[list[str], "np.ndarray"]:
    """English texts of manuals and of real pages, in random order, and which are manuals."""
    import numpy as np
    from fastwarc import ArchiveIterator, WarcRecordType

    from ray_jobs.crawl.languages import identify
    from ray_jobs.crawl.text import main_text
    from tests.dedup.corpus import debian_texts

    archive = DATA / "realpages" / "realpages-dev.warc.gz"
    if not archive.is_file():
        raise NotMeasured(f"{archive} is not there: set HEADRACE_DATA to the data's folder")
    manuals, web = [text for text in debian_texts(DATA, 2500) if identify(text).language == "en"], []
    with archive.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            text = main_text(record.reader.read().decode(errors="replace"))
            if text and len(text) > 200 and identify(text).language == "en":
                web.append(text)
    order = np.random.default_rng(1).permutation(len(manuals) + len(web))
    texts = [*manuals, *web]
    return [texts[i] for i in order], order < len(manuals)


def fitted(texts: list[str], is_positive: "np.ndarray", dimension: int = 16, **settings: object) -> "LinearModel":
    import numpy as np
    import pyarrow as pa

    from ray_jobs.quality.features import Features
    from ray_jobs.quality.linear import train

    chosen = {"epochs": 10, "learning_rate": 0.5, "features": Features(2, 1_000_000), **settings}
    return train(
        pa.array(texts, pa.large_string()),
        is_positive.astype(np.int64),
        ("0", "1"),
        min_word_count=1,
        max_words=1_000_000,
        dimension=dimension,
        seed=1,
        **chosen,  # type: ignore[arg-type]
    )


def probabilities(model: "LinearModel", texts: list[str]) -> "np.ndarray":
    import pyarrow as pa

    return model.probabilities(pa.array(texts, pa.large_string()), "1").astype(float)


@figure("AUC")
def quality_auc(bench: Bench) -> float:
    """Manuals against pages of the web, on every fifth document, which training does not see."""
    import numpy as np

    from ray_jobs.quality.roc import roc

    texts, is_manual = pages()
    heldout = np.arange(len(texts)) % 5 == 0
    model = fitted([text for text, out in zip(texts, heldout, strict=True) if not out], is_manual[~heldout])
    scores = probabilities(model, [text for text, out in zip(texts, heldout, strict=True) if out])
    bench.notes |= {"trained": int((~heldout).sum()), "heldout": int(heldout.sum())}
    return roc(scores, is_manual[heldout]).auc


@figure("MB/s")
def train_mb_per_s_core(bench: Bench) -> float:
    """Text trained on, times epochs: everything from text to model."""
    texts, is_manual = pages()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    bench.notes |= {"megabytes": round(megabytes, 1), "dimension": 16, "epochs": 10}
    with processor_time() as seconds:
        fitted(texts, is_manual)
    return 10 * megabytes / seconds()


@figure("MB/s", warm_up=False)
def train_mb_per_s_core_like_fasttext(bench: Bench) -> float:
    """With the peer's settings: 100 numbers a row, 5 epochs."""
    texts, is_manual = pages()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with processor_time() as seconds:
        fitted(texts, is_manual, SETTINGS["dim"], epochs=SETTINGS["epoch"])  # type: ignore[arg-type]
    return SETTINGS["epoch"] * megabytes / seconds()


@functools.cache
def peer(bench_python: str, folder: str) -> tuple[float, float, float, str]:
    """Speed of training, of scoring 4 KB documents, the AUC on the pages held out, and where its model is."""
    from pathlib import Path

    texts, is_manual = pages()
    lines = [f"__label__{int(label)} " + " ".join(text.split()) for text, label in zip(texts, is_manual, strict=True)]
    trained, heldout, model = (Path(folder) / name for name in ("trained.txt", "heldout.txt", "model.bin"))
    trained.write_text("\n".join(line for place, line in enumerate(lines) if place % 5))
    heldout.write_text("\n".join(line for place, line in enumerate(lines) if not place % 5))
    script = Path(__file__).parent / "peer_fasttext.py"
    command = [bench_python, str(script), str(trained), str(heldout), str(model), json.dumps(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    speed, scored, auc = map(float, done.stdout.splitlines()[-1].split())
    return speed, scored, auc, str(model)


def measured_peer(bench: Bench) -> tuple[float, float, float, str]:
    return peer(str(bench.peer_python(PEER)), str(_folder()))


@functools.cache
def _folder() -> str:
    from tests.benchmarks.corpus import scratch

    folder = scratch() / "fasttext"
    folder.mkdir()
    return str(folder)


@figure("MB/s", warm_up=False)
def train_mb_per_s_core_fasttext(bench: Bench) -> float:
    bench.notes["version"] = PEER
    return measured_peer(bench)[0]


@figure("AUC", warm_up=False)
def quality_auc_fasttext(bench: Bench) -> float:
    """fastText's own training, on the same documents."""
    bench.notes["version"] = PEER
    return measured_peer(bench)[2]


@figure("docs/s")
def score_docs_per_s_core(bench: Bench) -> float:
    """Documents of 4 KB, words and bigrams."""
    documents = equal_documents(bench.input)
    model = fitted(*pages())
    model.probabilities(documents[:10], "1")
    bench.notes |= {"documents": len(documents), "words": len(model.vocabulary)}
    with processor_time() as seconds:
        model.probabilities(documents, "1")
    return len(documents) / seconds()


@figure("docs/s")
def score_docs_per_s_core_fasttext(bench: Bench) -> float:
    """fasttext-predict on the same model, two numbers a row; the note is of rows of 100, as it is trained with."""
    import fasttext

    from ray_jobs.quality.weights import fasttext_of

    path = bench.new_folder() / "model.bin"
    path.write_bytes(fasttext_of(fitted(*pages())))
    texts = [text.replace("\n", " ") for text in equal_documents(bench.input).to_pylist()]
    if bench.peers:
        bench.notes["rows_of_100_docs_per_s"] = round(_predicted(fasttext.load_model(measured_peer(bench)[3]), texts))
    return _predicted(fasttext.load_model(str(path)), texts)


def _predicted(model: object, texts: list[str]) -> float:
    with processor_time() as seconds:
        for text in texts:
            model.predict(text)  # type: ignore[attr-defined]
    return len(texts) / seconds()


@figure("MB/s")
def word_list_mb_per_s(bench: Bench) -> float:
    """LDNOOBW's 403 English terms, as whole words."""
    from ray_jobs.quality.words import Matcher

    matcher, texts = Matcher(listed()), [text.encode() for text in equal_documents(bench.input).to_pylist()]
    with processor_time() as seconds:
        found = sum(matcher.measure(text).num_terms for text in texts)
    bench.notes |= {"terms": len(matcher.terms), "found": found}
    return sum(map(len, texts)) / 1e6 / seconds()


@figure("MB/s")
def word_list_mb_per_s_re2(bench: Bench) -> float:
    r"""The same terms as one regular expression between \b, by google-re2, to which letters beyond ASCII part words:
    what it finds more lies within words, such as "spécialisés"."""
    import re2

    options = re2.Options()
    options.case_sensitive, options.max_mem = False, 64 << 20
    terms = "|".join(re2.escape(term) for term in sorted(listed(), key=len, reverse=True))
    pattern = re2.compile(rf"\b(?:{terms})\b", options=options)
    texts = [text.encode() for text in equal_documents(bench.input).to_pylist()]
    with processor_time() as seconds:
        bench.notes["found"] = sum(len(set(pattern.findall(text))) for text in texts)
    return sum(map(len, texts)) / 1e6 / seconds()


def listed() -> list[str]:
    path = DATA / "toxicity" / "ldnoobw" / "en"
    if not path.is_file():
        raise NotMeasured(f"{path} is not there: set HEADRACE_DATA to the data's folder")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


@functools.cache
def toxicity_aucs() -> dict[str, float]:
    """Of the word list, of a classifier cross-validated over ten parts, and of both: listed words first."""
    import numpy as np

    from ray_jobs.quality.features import Features
    from ray_jobs.quality.roc import roc
    from ray_jobs.quality.words import Matcher

    rows = list(csv.DictReader(io.StringIO((DATA / "toxicity" / "surge_toxicity_en.csv").read_text())))
    texts, is_toxic = [row["text"] for row in rows], np.array([row["is_toxic"] == "Toxic" for row in rows])
    matcher = Matcher(listed())
    shares = np.array([matcher.measure(text.encode()).share for text in texts])
    features = Features(word_ngrams=2, num_buckets=1 << 18, min_characters=3, max_characters=5, lowercase=True)
    part, scores = np.random.default_rng(0).integers(0, 10, len(texts)), np.empty(len(texts))
    for number in range(10):
        seen, unseen = np.flatnonzero(part != number), np.flatnonzero(part == number)
        trained = [texts[i] for i in seen]
        model = fitted(trained, is_toxic[seen], features=features, epochs=50, learning_rate=1.0)
        scores[unseen] = probabilities(model, [texts[i] for i in unseen])
    return {
        "words": roc(shares, is_toxic).auc,
        "classifier": roc(scores, is_toxic).auc,
        "both": roc(scores + (shares > 0), is_toxic).auc,
    }


@figure("AUC", repeats=1, warm_up=False)
def toxicity_auc_words(bench: Bench) -> float:
    return toxicity_aucs()["words"]


@figure("AUC", repeats=1, warm_up=False)
def toxicity_auc_classifier(bench: Bench) -> float:
    return toxicity_aucs()["classifier"]


@figure("AUC", repeats=1, warm_up=False)
def toxicity_auc_both(bench: Bench) -> float:
    return toxicity_aucs()["both"]


if __name__ == "__main__":
    main("classifiers", __name__)
