"""Published constants give their published optima."""

import json

import pytest

from configs.scaling import PUBLISHED, ScalingLaw, parse_law

CHINCHILLA = 5.76e23


def test_the_printed_constants_of_hoffmann_do_not_give_their_own_model() -> None:
    """Chinchilla has 70B parameters and 1.4T tokens of the same compute; their constants give half that size."""
    law = PUBLISHED["hoffmann-2022"]
    parameters, tokens = law.optimum(CHINCHILLA)
    assert parameters == pytest.approx(32.2e9, rel=2e-3)
    assert tokens == pytest.approx(2.98e12, rel=2e-3)
    assert law.size_exponent == pytest.approx(0.452, abs=5e-4)


def test_the_corrected_constants_give_nearly_chinchilla() -> None:
    law = PUBLISHED["besiroglu-2024"]
    parameters, tokens = law.optimum(CHINCHILLA)
    assert parameters == pytest.approx(72e9, rel=1e-2)
    assert tokens == pytest.approx(1.33e12, rel=1e-2)
    assert tokens / parameters == pytest.approx(18, abs=0.6)
    assert law.size_exponent == pytest.approx(0.513, abs=5e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_other_split_of_the_compute_has_a_lower_loss(name: str) -> None:
    law = PUBLISHED[name]
    parameters, tokens = law.optimum(1e21)
    assert 6 * parameters * tokens == pytest.approx(1e21)
    best = law.loss(parameters, tokens)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(parameters * factor, tokens / factor) > best


def test_the_loss_comes_down_to_the_irreducible_one() -> None:
    law = PUBLISHED["besiroglu-2024"]
    assert law.loss(1e40, 1e40) == pytest.approx(law.E)


def test_tokens_for_a_loss_give_that_loss_and_none_where_the_model_is_too_small() -> None:
    law = PUBLISHED["besiroglu-2024"]
    tokens = law.tokens_for(1e9, 2.4)
    assert tokens is not None and law.loss(1e9, tokens) == pytest.approx(2.4)
    assert law.tokens_for(1e9, law.E + law.A / 1e9**law.alpha) is None


def test_a_law_is_read_plain_or_as_a_fit() -> None:
    law = PUBLISHED["hoffmann-2022"]
    for content in (law.model_dump(), {"law": law.model_dump(), "num_runs": 9}):
        assert parse_law(json.dumps(content).encode(), "law.json") == law


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"E": 1.7}', "missing: A, B, alpha, beta"),
        (b'{"E": 1.7, "A": -4, "B": 4, "alpha": 0.3, "beta": 0.3}', "missing: A"),
        (b'{"law": 3}', "wrong or missing: law"),
    ],
)
def test_content_without_a_law_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=f"law.json .*{says}"):
        parse_law(content, "law.json")


def test_another_factor_than_six_spends_the_same_compute() -> None:
    law = PUBLISHED["besiroglu-2024"]
    parameters, tokens = law.optimum(1e15, 7.5)
    assert 7.5 * parameters * tokens == pytest.approx(1e15)
    for factor in (0.9, 1.1):
        assert law.loss(parameters * factor, tokens / factor) > law.loss(parameters, tokens)


def test_laws_are_finite_and_positive() -> None:
    with pytest.raises(ValueError):
        ScalingLaw(E=1.0, A=1.0, B=1.0, alpha=float("nan"), beta=0.3)
