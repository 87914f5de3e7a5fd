import io
import pickle
import struct
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.quality.features import Features
from ray_jobs.quality.linear import LinearModel
from ray_jobs.quality.weights import fasttext_of, read_model, safetensors_of
from tests.quality.test_linear import trained

GOLDEN = Path(__file__).parent / "golden"
# fastText reports each probability with 1e-5 added.
ADDED = 1e-5
WORDS = "water mill the Straße größe 水車 casino Казино ラーメン NOW now unknown слово __label__mill </s> x </s"
words = st.sampled_from(WORDS.split())
texts = st.lists(
    st.lists(st.tuples(words, st.sampled_from([" ", "  ", "\t", "\0", "\r"])), max_size=12), min_size=1, max_size=5
).map(lambda many: ["".join(word + space for word, space in one) for one in many])


def golden(name: str) -> LinearModel:
    with (GOLDEN / f"{name}.bin").open("rb") as file:
        return read_model(file, name)


def read(data: bytes) -> LinearModel:
    return read_model(io.BytesIO(data), "a file")


def by_fasttext(path: Path, texts: list[str], labels: tuple[str, ...]) -> np.ndarray:
    """[texts, labels], by fasttext-predict."""
    model = fasttext.load_model(str(path))
    rows = []
    for text in texts:
        found = dict(zip(*model.predict(text, k=len(labels)), strict=True))
        rows.append([found[f"__label__{label}"] for label in labels])
    return np.array(rows)


def ours(model: LinearModel, texts: list[str]) -> np.ndarray:
    column = pa.array(texts, pa.large_string())
    return np.stack([model.probabilities(column, label) for label in model.labels], axis=1)


TOLERANCE = {"bigrams": 1e-6, "characters": 1e-6, "words": 1e-6, "ova": 8e-3}


@pytest.mark.parametrize("name", TOLERANCE)
@settings(deadline=None, max_examples=40)
@given(texts)
def test_fasttexts_models_give_its_probabilities(name: str, texts: list[str]) -> None:
    """One-vs-all to the step of fastText's table of sigmoids."""
    model = golden(name)
    expected = by_fasttext(GOLDEN / f"{name}.bin", texts, model.labels)
    assert np.allclose(ours(model, texts) + ADDED, expected, atol=TOLERANCE[name], rtol=0)


@pytest.mark.parametrize("features", [Features(), Features(2, 100), Features(3, 100, 2, 4)])
def test_fasttext_reads_our_models_and_gives_our_probabilities(features: Features, tmp_path: Path) -> None:
    model = trained(features=features)
    path = tmp_path / "classifier.bin"
    path.write_bytes(fasttext_of(model))
    texts = ["the water", "click to win a prize", "", "größe 水車 of unknown words", "cheap " * 300]
    assert np.allclose(ours(model, texts) + ADDED, by_fasttext(path, texts, model.labels), atol=1e-6, rtol=0)
    again = read(path.read_bytes())
    assert np.array_equal(again.logits, model.logits) and again.features == model.features


@pytest.mark.parametrize("name", ["bigrams", "characters", "ova"])
def test_safetensors_keep_a_model_as_it_is(name: str) -> None:
    model = golden(name)
    again = read(safetensors_of(model))
    assert (again.labels, again.features, again.loss) == (model.labels, model.features, model.loss)
    assert np.array_equal(again.logits, model.logits) and again.vocabulary.words() == model.vocabulary.words()
    assert safetensors_of(again) == safetensors_of(model)


@pytest.mark.parametrize(
    "data", [pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(40), b"\x1f\x8b\x08" + bytes(40), b"x\x9c" + bytes(40)]
)
def test_what_may_run_code_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="would run code that it holds"):
        read(data)


def test_other_files_are_refused_with_what_to_do() -> None:
    for data in (b"", b"text", bytes(100)):
        with pytest.raises(ValueError, match="neither safetensors nor"):
            read(data)
    with pytest.raises(ValueError, match="hierarchical softmax"):
        golden("hierarchical")
    whole = bytearray((GOLDEN / "words.bin").read_bytes())
    vectors = whole.copy()
    vectors[8 + 4 * 7 : 8 + 4 * 8] = struct.pack("<i", 1)
    with pytest.raises(ValueError, match="word vectors and no classifier"):
        read(bytes(vectors))
    newer = whole.copy()
    newer[4:8] = struct.pack("<i", 13)
    with pytest.raises(ValueError, match="version 13"):
        read(bytes(newer))
    with pytest.raises(ValueError, match="no classifier that Headrace wrote"):
        from safetensors.numpy import save

        read(save({"weight": np.zeros(3, np.float32)}))


def test_a_file_that_is_cut_off_anywhere_is_refused() -> None:
    for name in ("bigrams.bin", "safetensors"):
        data = safetensors_of(golden("bigrams")) if name == "safetensors" else (GOLDEN / name).read_bytes()
        for end in range(0, len(data), 7):
            with pytest.raises(ValueError, match=r"(anew|convert|a fastText) "):
                read(data[:end])


def test_safetensors_of_other_shapes_are_refused() -> None:
    import json

    from safetensors.numpy import load, save

    data = safetensors_of(golden("words"))
    tensors = load(data)
    config = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["config"]
    for change in (
        {"logits": tensors["logits"][1:].copy()},
        {"logits": tensors["logits"].astype(np.float64)},
        {"word_offsets": tensors["word_offsets"][::-1].copy()},
        {"words": tensors["words"][1:].copy()},
    ):
        with pytest.raises(ValueError, match="damaged"):
            read(save(tensors | change, {"config": config}))
