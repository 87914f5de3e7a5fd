"""Each token is scored once, by the context it should have."""

import math

import numpy as np
import pytest
import torch

from configs.model import ModelSpec
from ray_jobs.evaluate.perplexity import document_nlls, score
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.scoring import bootstrap_draws, windows_of
from ray_jobs.tokenizer.heldout import HeldOut


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    spec = ModelSpec(hidden=32, layers=2, heads=2, intermediate=48, max_positions=16, init_std=0.3)
    made = empty_model(transformers_config(spec, 50))
    materialise(made, torch.device("cpu"))
    initialise(made, seed=0)
    return made.eval()


def documents(*lengths: int) -> list[HeldOut]:
    generator = np.random.Generator(np.random.PCG64(0))
    return [HeldOut(str(n), generator.integers(1, 50, n), num_bytes=3 * n) for n in lengths]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100])
@pytest.mark.parametrize(("context", "stride"), [(8, 8), (8, 4), (8, 1), (8, 3)])
def test_windows_score_each_target_once_with_enough_before_it(length: int, context: int, stride: int) -> None:
    scored: list[int] = []
    for window in windows_of(length, context, stride):
        assert window.length <= context
        end = window.start + window.length
        for target in range(end - window.num_scored, end):
            scored.append(target)
            assert target - window.start >= min(target, context - stride)
    assert scored == list(range(length))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_documents_score_what_token_by_token_scoring_gives(model: torch.nn.Module, batch: int) -> None:
    given = documents(5, 16, 40, 1)
    nlls = document_nlls(model, given, first=0, context=16, stride=8, batch=batch)
    for document, nll in zip(given, nlls, strict=True):
        expected = 0.0
        inputs = np.concatenate([[0], document.tokens[:-1]])
        for window in windows_of(len(document.tokens), 16, 8):
            end = window.start + window.length
            with torch.no_grad():
                logits = model(torch.from_numpy(inputs[window.start : end]).unsqueeze(0)).logits[0]
            logprobs = logits.log_softmax(dim=-1)
            for target in range(end - window.num_scored, end):
                expected -= logprobs[target - window.start, document.tokens[target]].item()
        assert nll == pytest.approx(expected, rel=1e-5)


def test_bits_per_byte_and_perplexity_follow_from_the_sum() -> None:
    given = documents(10, 30)
    result = score(np.array([20.0, 40.0]), given, None)
    assert result.perplexity == pytest.approx(math.exp(60 / 40))
    assert result.bits_per_byte == pytest.approx(60 / math.log(2) / 120)
    assert result.interval is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    covered = 0
    for trial in range(200):
        given = [HeldOut("", np.zeros(100, dtype=np.int64), 100) for _ in range(60)]
        nlls = 100 * math.log(2) * generator.gamma(4.0, 0.25, size=60)  # of mean 1 bit a byte
        interval = score(nlls, given, bootstrap_draws(60, 400, seed=trial)).interval
        assert interval is not None
        covered += interval[0] <= 1 <= interval[1]
    assert 180 <= covered <= 199


def test_draws_are_those_of_the_seed() -> None:
    first, second, other = (bootstrap_draws(10, 50, seed) for seed in (1, 1, 2))
    assert first is not None and other is not None
    assert (first == second).all() and (first != other).any()
    assert (first.sum(axis=1) == 10).all()
    assert bootstrap_draws(10, 0, 1) is None
