"""A reference told from a real crawl: Debian's manuals in English from English pages of many sites."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from fastwarc import ArchiveIterator, WarcRecordType

from ray_jobs.crawl.languages import identify
from ray_jobs.crawl.text import main_text
from ray_jobs.quality.features import Features
from ray_jobs.quality.linear import train
from ray_jobs.quality.roc import roc
from tests.dedup.corpus import debian_texts


def test_manuals_are_told_from_pages_of_the_web(data_dir: Path) -> None:
    """On documents held out; 1.000 was seen. Kinds of text that differ so much are easy to tell: this holds that
    training works on pages as they are, not that it finds good prose."""
    manuals = [text for text in debian_texts(data_dir, 2000) if identify(text).language == "en"]
    web = []
    with (data_dir / "realpages" / "realpages-dev.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            text = main_text(record.reader.read().decode(errors="replace"))
            if text and len(text) > 200 and identify(text).language == "en":
                web.append(text)
    assert len(manuals) > 100 and len(web) > 100

    texts = pa.array([*manuals, *web], pa.large_string())
    is_manual = np.arange(len(texts)) < len(manuals)
    heldout = np.arange(len(texts)) % 4 == 0
    model = train(
        texts.filter(pa.array(~heldout)),
        is_manual[~heldout].astype(np.int64),
        ("crawl", "reference"),
        Features(2, 1 << 18),
        min_word_count=1,
        max_words=1_000_000,
        dimension=16,
        epochs=10,
        learning_rate=0.5,
        seed=1,
    )
    scores = model.probabilities(texts.filter(pa.array(heldout)), "reference")
    assert roc(scores, is_manual[heldout]).auc >= 0.98
