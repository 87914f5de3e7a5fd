import itertools

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.files.columns import text_buffers
from ray_jobs.quality.features import Features, Vocabulary, rows_of
from ray_jobs.quality.linear import ONE_VS_ALL, LinearModel, _train, fold, train
from ray_jobs.quality.weights import safetensors_of

MILL = ["the water turns the wheel", "grain becomes flour in the mill", "a channel of water", "stone on stone"]
SPAM = ["click here to win", "buy now and win a prize", "free casino click", "cheap cheap cheap prize"]
TEXTS = pa.array([*MILL, *SPAM], pa.large_string())
TARGETS = np.array([0] * len(MILL) + [1] * len(SPAM))
SETTINGS = {"min_word_count": 1, "max_words": 1000, "dimension": 8, "epochs": 20, "learning_rate": 0.5}


def trained(seed: int = 1, features: Features = Features(2, 100)) -> LinearModel:
    return train(TEXTS, TARGETS, ("mill", "spam"), features, **SETTINGS, seed=seed)  # type: ignore[arg-type]


def test_a_step_follows_the_gradient_of_the_loss() -> None:
    """One text a step, as torch's autograd has it in double precision, with a label's row and the mean of the rows."""
    torch = pytest.importorskip("torch")
    features = Features(2, 50)
    vocabulary = Vocabulary.of_words([b"water", b"the", b"click", b"</s>"])
    rows, offsets = rows_of(*text_buffers(TEXTS), vocabulary, features)
    generator = np.random.default_rng(5)
    embeddings = generator.normal(size=(len(vocabulary) + 50, 6)).astype(np.float32)
    outputs = generator.normal(size=(3, 6)).astype(np.float32)
    targets, order = np.arange(8) % 3, np.array([3, 1, 7, 0, 2, 6, 5, 4])

    e, o = (torch.tensor(matrix, dtype=torch.float64, requires_grad=True) for matrix in (embeddings, outputs))
    for step, text in enumerate(order):
        logits = o @ e[torch.tensor(rows[offsets[text] : offsets[text + 1]])].mean(dim=0)
        loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([targets[text]]))
        gradients = torch.autograd.grad(loss, (e, o))
        rate = 0.3 * (1 - (8 + step) / 24)
        with torch.no_grad():
            for matrix, gradient in zip((e, o), gradients, strict=True):
                matrix -= rate * gradient

    _train(rows, offsets, targets, order, embeddings, outputs, 0.3, 8, 24)
    assert np.allclose(embeddings, e.detach(), atol=1e-5)
    assert np.allclose(outputs, o.detach(), atol=1e-5)


def test_folded_rows_give_the_probabilities_of_the_embeddings() -> None:
    generator = np.random.default_rng(5)
    features, vocabulary = Features(2, 50), Vocabulary.of_words([b"water", b"the"])
    embeddings, outputs = generator.normal(size=(52, 7)), generator.normal(size=(3, 7))
    rows, offsets = rows_of(*text_buffers(TEXTS), vocabulary, features)
    logits = np.stack([outputs @ embeddings[rows[a:b]].mean(axis=0) for a, b in itertools.pairwise(offsets)])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    folded = fold(embeddings.astype(np.float32), outputs.astype(np.float32))
    model = LinearModel(("a", "b", "c"), vocabulary, features, folded)
    for place, label in enumerate(model.labels):
        assert np.allclose(model.probabilities(TEXTS, label), softmax[:, place], atol=1e-6)
    apart = LinearModel(model.labels, vocabulary, features, folded, ONE_VS_ALL)
    assert np.allclose(apart.probabilities(TEXTS, "b"), 1 / (1 + np.exp(-logits[:, 1])), atol=1e-6)


def test_training_tells_labels_apart_and_repeats_itself_byte_for_byte() -> None:
    model = trained()
    assert np.array_equal(model.probabilities(TEXTS, "spam") > 0.5, TARGETS == 1)
    assert safetensors_of(model) == safetensors_of(trained())
    assert safetensors_of(model) != safetensors_of(trained(seed=2))


def test_rare_words_are_no_rows() -> None:
    few = train(TEXTS, TARGETS, ("a", "b"), Features(), **{**SETTINGS, "min_word_count": 3}, seed=1)  # type: ignore[arg-type]
    assert few.vocabulary.words() == [b"</s>", b"the", b"cheap"]
    one = train(TEXTS, TARGETS, ("a", "b"), Features(), **{**SETTINGS, "max_words": 2}, seed=1)  # type: ignore[arg-type]
    assert one.vocabulary.words() == [b"</s>", b"the"]


def test_odd_texts_have_a_probability() -> None:
    odd = pa.array([b"", b"\0", b"\xff\xfe", b" \n ", b"x" * 100_000, b"a " * 100_000], pa.large_binary())
    for features in (Features(), Features(3, 10, 1, 4)):
        found = trained(features=features).probabilities(odd, "mill")
        assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    assert trained().probabilities(pa.array([], pa.large_string()), "mill").shape == (0,)


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="no label 'ham': name one of mill, spam"):
        trained().probabilities(TEXTS, "ham")
