"""Next tokens are drawn from the distribution that transformers' processors make, whatever stands beside."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from configs.inference import DecodingSpec
from ray_jobs.inference.decoding import Rows, drawn, penalised, probabilities, uniform

CPU = torch.device("cpu")
VOCABULARY = 211
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 1.5, "top_k": 7},
    {"top_p": 0.6},
    {"top_p": 0.05},
    {"min_p": 0.2},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3},
    {"top_k": 100_000, "top_p": 0.99},
    {"temperature": 0.0, "top_k": 3, "repetition_penalty": 5.0},
]


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def by_transformers(logits_1V: torch.Tensor, history: torch.Tensor, spec: DecodingSpec) -> torch.Tensor:
    steps = LogitsProcessorList()
    if spec.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(spec.repetition_penalty))
    if spec.greedy:
        best = steps(history, logits_1V).argmax(dim=1)
        return torch.nn.functional.one_hot(best, VOCABULARY).float()
    steps.append(TemperatureLogitsWarper(spec.temperature))
    if spec.top_k:
        steps.append(TopKLogitsWarper(spec.top_k))
    if spec.top_p < 1:
        steps.append(TopPLogitsWarper(spec.top_p))
    if spec.min_p:
        steps.append(MinPLogitsWarper(spec.min_p))
    return steps(history, logits_1V).softmax(dim=1)


def test_each_row_has_the_distribution_of_transformers_processors() -> None:
    specs = [DecodingSpec(**settings) for settings in SETTINGS] * 5
    logits_RV = logits(len(specs))
    history_RL = torch.randint(0, VOCABULARY, (len(specs), 20), generator=torch.Generator().manual_seed(1))
    rows = Rows.of(specs, VOCABULARY, CPU)
    seen_RV = torch.zeros_like(logits_RV, dtype=torch.bool).scatter_(1, history_RL, True)
    found_RV = probabilities(penalised(logits_RV, seen_RV, rows), rows)
    for row, spec in enumerate(specs):
        wanted_1V = by_transformers(logits_RV[row : row + 1].clone(), history_RL[row : row + 1], spec)
        assert torch.equal(found_RV[row] > 0, wanted_1V[0] > 0), spec
        torch.testing.assert_close(found_RV[row], wanted_1V[0])


def test_a_row_alone_draws_what_it_draws_beside_others() -> None:
    specs = [DecodingSpec(**settings) for settings in SETTINGS]
    logits_RV = logits(len(specs))
    numbers = [uniform(7, row) for row in range(len(specs))]
    together_R = drawn(probabilities(logits_RV, Rows.of(specs, VOCABULARY, CPU)), numbers)
    for row, spec in enumerate(specs):
        alone = drawn(probabilities(logits_RV[row : row + 1], Rows.of([spec], VOCABULARY, CPU)), numbers[row : row + 1])
        assert alone.item() == together_R[row].item()


def test_tokens_come_as_often_as_they_are_likely() -> None:
    spec = DecodingSpec(temperature=0.7, top_k=12)
    probs_1V = probabilities(logits(1), Rows.of([spec], VOCABULARY, CPU))
    num = 20_000
    tokens = drawn(probs_1V.expand(num, -1), [uniform(3, step) for step in range(num)])
    kept = probs_1V[0].nonzero().squeeze(1)
    counts = torch.bincount(tokens, minlength=VOCABULARY)
    assert counts[kept].sum() == num  # none of probability 0
    expected = (probs_1V[0, kept].double() / probs_1V[0, kept].double().sum() * num).numpy()
    assert chisquare(counts[kept].numpy(), expected).pvalue > 1e-4


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_draw_no_token_of_probability_0(number: float) -> None:
    probs_1V = torch.zeros(1, VOCABULARY)
    probs_1V[0, 17], probs_1V[0, 99] = 0.25, 0.75
    assert drawn(probs_1V, [number]).item() == (17 if number == 0 else 99)


def test_numbers_are_a_function_of_seed_step_and_draw_and_look_random() -> None:
    assert uniform(0, 0) == uniform(0, 0)
    numbers = [uniform(seed, step, draw) for seed in range(20) for step in range(50) for draw in range(2)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    histogram = torch.histc(torch.tensor(numbers), 20, 0, 1)
    assert chisquare(histogram.numpy()).pvalue > 1e-4
    mean = sum(numbers) / len(numbers)
    assert abs(mean - 0.5) < 4 / math.sqrt(12 * len(numbers))
    # By splitmix64's reference implementation: the first output of seed 0.
    from ray_jobs.inference.decoding import _mixed

    assert _mixed(0) == 0xE220A8397B1DCDAF


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ValueError, match="at which every answer would end"):
        DecodingSpec(stop=("", "END"))
