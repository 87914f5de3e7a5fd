"""The loss of each position is that of a plain forward pass, and a break is where the curve says so."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.long_context.losses import Span, Sums, excess_of, first_break, loss_of, spans_of, text_nlls
from ray_jobs.long_context.texts import cut_texts, edges_of
from ray_jobs.model.positions import stretch
from ray_jobs.model.scoring import bootstrap_draws
from ray_jobs.tokenizer.heldout import HeldOut
from tests.long_context.models import TRAINING_LENGTH, model_of
from tests.pretrain.corpus import VOCABULARY

END = 0
EDGES = edges_of(4, TRAINING_LENGTH, 4)


def tokens_of(num_texts: int = 3) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    tokens_TL = generator.integers(1, VOCABULARY, size=(num_texts, EDGES[-1] + 1))
    tokens_TL[:, 50::77] = END
    return tokens_TL


@torch.no_grad()
def plain_nlls(model: Any, tokens_TL: np.ndarray) -> np.ndarray:
    """One pass over each text by the whole class."""
    logits_TLV = model(torch.from_numpy(tokens_TL[:, :-1]), use_cache=False).logits.log_softmax(-1)
    targets_TL = torch.from_numpy(tokens_TL[:, 1:])
    nll_TL = -logits_TLV.gather(2, targets_TL[:, :, None])[..., 0]
    return nll_TL.masked_fill(targets_TL == END, 0).double().numpy()


@pytest.mark.parametrize("method", ["trained", "linear", "ntk", "yarn", "llama3"])
@pytest.mark.parametrize("name", ["rope", "qwen"])
def test_losses_are_those_of_a_plain_forward_pass(name: str, method: Any) -> None:
    model, tokens_TL = model_of(name), tokens_of()
    if method != "trained":
        stretch(model, method, 4.0, TRAINING_LENGTH)
    found = text_nlls(model, tokens_TL, EDGES, batch=2, num_real=VOCABULARY, end_of_text=END)
    assert np.allclose(found, plain_nlls(model, tokens_TL), atol=1e-4)
    assert (found[tokens_TL[:, 1:] == END] == 0).all()


def test_losses_with_alibi_are_those_of_a_model_made_for_that_length() -> None:
    tokens_TL = tokens_of()
    found = text_nlls(model_of("alibi"), tokens_TL, EDGES, batch=2, num_real=VOCABULARY, end_of_text=END)
    made_for_it = model_of("alibi", max_positions=4 * TRAINING_LENGTH)
    assert np.allclose(found, plain_nlls(made_for_it, tokens_TL), atol=1e-4)


def test_dynamic_losses_are_those_of_the_text_read_so_far() -> None:
    model, tokens_TL = model_of("rope"), tokens_of(2)
    stretch(model, "dynamic", 4.0, TRAINING_LENGTH)
    assert spans_of(model, EDGES)[:3] == [Span(0, 0, 64), Span(0, 64, 80), Span(0, 80, 96)]
    found = text_nlls(model, tokens_TL, EDGES, batch=2, num_real=VOCABULARY, end_of_text=END)
    for begin, end in ((0, 64), (64, 80), (240, 256)):
        fresh = model_of("rope")
        stretch(fresh, "dynamic", 4.0, TRAINING_LENGTH)
        oracle = plain_nlls(fresh, tokens_TL[:, : end + 1])
        assert np.allclose(found[:, begin:end], oracle[:, begin:], atol=1e-4), (begin, end)
    assert np.allclose(found[:, :64], plain_nlls(model_of("rope"), tokens_TL[:, :65]), atol=1e-4)


@pytest.mark.parametrize("name", ["rope", "alibi"])
def test_a_window_sees_no_more_than_the_training_length(name: str) -> None:
    tokens_TL = tokens_of(2)
    model = model_of(name)
    found = text_nlls(model, tokens_TL, EDGES, 2, VOCABULARY, END, window=TRAINING_LENGTH)
    assert np.allclose(found[:, :64], plain_nlls(model_of(name), tokens_TL[:, :65]), atol=1e-4)
    for begin, end in ((64, 80), (240, 256)):
        oracle = plain_nlls(model_of(name), tokens_TL[:, end - 64 : end + 1])
        assert np.allclose(found[:, begin:end], oracle[:, -16:], atol=1e-4), (begin, end)


@pytest.mark.parametrize("name", ["rope", "alibi"])
def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary(name: str) -> None:
    tokens_TL = tokens_of()
    model = model_of(name, init_std=0.0, vocabulary_multiple=128)
    nlls_TL = text_nlls(model, tokens_TL, EDGES, batch=3, num_real=VOCABULARY, end_of_text=END)
    sums = Sums.of(nlls_TL, tokens_TL[:, 1:], EDGES, END)
    for stretch_of in (slice(None), slice(0, 1), slice(15, 16)):
        loss = loss_of(sums, stretch_of, bootstrap_draws(3, 50, seed=0))
        assert loss.value == pytest.approx(math.log(VOCABULARY), abs=1e-5)
        assert loss.low == pytest.approx(loss.high)


def test_sums_are_kept_as_a_table() -> None:
    tokens_TL = tokens_of()
    sums = Sums.of(np.random.default_rng(0).random((3, EDGES[-1])), tokens_TL[:, 1:], EDGES, END)
    again = Sums.from_table(sums.to_table())
    assert again.edges == sums.edges == tuple(EDGES)
    assert np.array_equal(again.nats_TK, sums.nats_TK) and np.array_equal(again.tokens_TK, sums.tokens_TK)
    assert sums.tokens_TK.sum() == (tokens_TL[:, 1:] != END).sum()


def curve(values: list[float], noise: float = 0.02, seed: int = 0) -> Sums:
    """Ten tokens in each stretch of each of 40 texts. Texts are easy and hard by themselves, more than a method is
    better or worse; `noise` is the method's own."""
    texts_T1 = np.random.Generator(np.random.PCG64(99)).standard_normal((40, 1))
    own_TK = noise * np.random.Generator(np.random.PCG64(seed)).standard_normal((40, len(values)))
    means_TK = np.array(values) + texts_T1 + own_TK
    return Sums(tuple(range(0, 10 * len(values) + 1, 10)), 10 * means_TK, np.full_like(means_TK, 10.0))


DRAWS = bootstrap_draws(40, 500, seed=1)
CUT = [4.0, 3.5, 3.2, 3.0, 3.0, 3.1, 2.9, 3.0]


def break_of(method: Sums, draws: np.ndarray | None = DRAWS) -> int | None:
    return first_break([excess_of(method, curve(CUT, seed=1), place, draws) for place in range(len(CUT))], margin=0.1)


@pytest.mark.parametrize(
    ("method", "at"),
    [
        (CUT, None),
        ([4.0, 3.5, 3.2, 3.0, 3.05, 3.1, 2.9, 3.05], None),  # within the margin
        ([4.0, 3.5, 3.2, 3.0, 3.0, 3.4, 5.0, 6.0], 5),
        ([4.0, 3.5, 3.2, 3.0, 3.4, 3.1, 2.9, 3.0], 4),  # though it comes back
        ([4.0, 3.5, 3.6, 3.0, 3.0, 3.1, 2.9, 3.0], 2),  # within the training length
        ([4.5, 3.9, 3.6, 3.4, 3.4, 3.4, 3.4, 3.4], 0),
        ([4.0, 3.5, 3.2, 2.5, 2.4, 2.3, 2.2, 2.1], None),  # better is no break
    ],
)
def test_a_break_is_the_first_stretch_above_the_margin(method: list[float], at: int | None) -> None:
    assert break_of(curve(method)) == at


def test_the_interval_is_of_the_difference_and_not_of_how_hard_texts_are() -> None:
    worse = curve([value + 0.3 for value in CUT])
    excess = excess_of(worse, curve(CUT, seed=1), 5, DRAWS)
    own = loss_of(worse, slice(5, 6), DRAWS)
    assert excess.low is not None and excess.high is not None and own.low is not None and own.high is not None
    assert excess.low < 0.3 < excess.high
    assert excess.high - excess.low < 0.05 < own.high - own.low


def test_what_texts_leave_open_is_no_break() -> None:
    noisy = curve([value + 0.2 * (place == 6) for place, value in enumerate(CUT)], noise=0.6, seed=4)
    assert break_of(noisy) is None
    assert break_of(noisy, draws=None) is not None  # by the values alone


def test_texts_are_the_stream_of_documents_cut_evenly() -> None:
    documents = [HeldOut(str(i), np.full(length, i + 1), length) for i, length in enumerate((5, 9, 3, 40, 2))]
    stream = [END]
    for document in documents:
        stream += [*document.tokens.tolist(), END]
    texts = cut_texts(documents, length=8, most=100, end_of_text=END)
    assert texts.tokens_TL[:, :-1].ravel().tolist() == stream[: 8 * len(texts.tokens_TL)]
    assert (texts.tokens_TL[:-1, -1] == texts.tokens_TL[1:, 0]).all()
    # The end of text, then 1 1 1 1 1, its end and one token of the next.
    assert texts.own_TL[0].tolist() == [0, 0, 1, 2, 3, 4, 0, 0, 1]
    assert (texts.num_documents, texts.num_tokens) == (5, 59)
    few = cut_texts(documents, length=8, most=3, end_of_text=END)
    assert [row.tolist() for row in few.tokens_TL] == [texts.tokens_TL[place].tolist() for place in (0, 2, 5)]
    with pytest.raises(ValueError, match=r"hold 59 tokens, less than two texts of 60: raise tokens.heldout_share"):
        cut_texts(documents, length=60, most=3, end_of_text=END)


@pytest.mark.parametrize(
    ("factor", "edges"), [(1, [0, 16, 32, 48, 64]), (1.25, [0, 16, 32, 48, 64, 80]), (1.5, [0, 16, 32, 48, 64, 80, 96])]
)
def test_stretches_are_a_share_of_the_training_length(factor: float, edges: list[int]) -> None:
    assert edges_of(factor, 64, 4) == edges


def test_stretches_of_any_length_have_all_edges_in_common() -> None:
    for training_length in (13, 100, 127):
        long = edges_of(4, training_length, 8)
        assert training_length in long and long == sorted(set(long))
        for factor in (1, 1.5, 2.25):
            assert long[: round(8 * factor) + 1] == edges_of(factor, training_length, 8)
