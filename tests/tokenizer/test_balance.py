import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_jobs.tokenizer.balance import MOST_HELD_OUT, LanguageText, added_up, filled, shares

CORPUS = {"en": LanguageText(9_000_000, 0.0001, 0.9999), "de": LanguageText(900_000, 0.001, 0.999)}
CORPUS |= {"sw": LanguageText(100_000, 0.01, 0.99)}


def sampled(sample_bytes: int, alpha: float) -> dict[str, float]:
    found = shares(CORPUS, sample_bytes, alpha, 10_000)
    return {language: share.sampled * CORPUS[language].bytes for language, share in found.items()}


def test_alpha_one_takes_languages_as_they_are() -> None:
    drawn = sampled(1_000_000, 1)
    assert drawn == pytest.approx({"en": 900_000, "de": 90_000, "sw": 10_000})


def test_shares_follow_the_formula_of_xlm() -> None:
    drawn = sampled(100_000, 0.3)
    powers = {language: text.bytes**0.3 for language, text in CORPUS.items()}
    assert drawn == pytest.approx(
        {language: 100_000 * power / sum(powers.values()) for language, power in powers.items()}
    )


def test_alpha_zero_gives_all_the_same_and_the_rest_of_a_small_one_to_the_others() -> None:
    assert sampled(30_000, 0) == pytest.approx({"en": 10_000, "de": 10_000, "sw": 10_000})
    drawn = sampled(600_000, 0)
    small = 100_000 * (1 - MOST_HELD_OUT)
    assert drawn == pytest.approx({"en": (600_000 - small) / 2, "de": (600_000 - small) / 2, "sw": small})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0.01, 10), st.floats(0, 1000)), min_size=1),
    st.floats(0, 5000),
)
def test_all_is_shared_out_and_nobody_gets_more_than_there_is(
    languages: dict[str, tuple[float, float]], size: float
) -> None:
    weights, available = ({name: pair[i] for name, pair in languages.items()} for i in (0, 1))
    quotas = filled(weights, available, size)
    assert sum(quotas.values()) == pytest.approx(min(size, sum(available.values())))
    assert all(quota <= available[name] * (1 + 1e-9) + 1e-9 for name, quota in quotas.items())
    units = {name: quotas[name] / weights[name] for name in quotas if quotas[name] < available[name] * (1 - 1e-9)}
    assert max(units.values(), default=0) == pytest.approx(min(units.values(), default=0), rel=1e-6, abs=1e-6)


def test_the_sample_and_what_is_held_out_never_meet() -> None:
    for size in (1, 10**5, 10**9):
        for share in shares(CORPUS, size, 0.5, 10_000).values():
            assert share.sampled <= share.held_out


@given(st.integers(1, 10**7), st.floats(0.5, 1, exclude_max=True))
@example(3_051_827, 0.8983800152004295)
def test_what_is_held_out_is_not_sampled_by_rounding_where_all_is_taken(size: int, last_place: float) -> None:
    share = shares({"en": LanguageText(size, 0.0, last_place)}, 10**12, 1, 200_000)["en"]
    assert share.sampled <= share.held_out


def test_one_text_of_a_small_language_is_held_out_and_a_lone_one_is_trained_on() -> None:
    corpus = {"cy": LanguageText(500, 0.2, 0.4), "ga": LanguageText(500, 0.8, 0.8), "": LanguageText(0, 0.1, 0.7)}
    found = shares(corpus, 10**6, 1, 10_000)
    assert found["cy"].held_out == 0.4 and found["ga"].held_out == 1.0
    assert found.keys() == {"cy", "ga"}
    assert found["ga"].sampled == 1.0
    assert shares(corpus, 10**6, 1, 0)["cy"].held_out == 1.0


def test_shards_add_up() -> None:
    parts = [{"en": [10, 0.2, 0.3], "de": [5, 0.9, 0.9]}, {}, {"en": [7, 0.1, 0.8]}]
    assert added_up(parts) == {"de": LanguageText(5, 0.9, 0.9), "en": LanguageText(17, 0.1, 0.8)}
