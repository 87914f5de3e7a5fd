from itertools import pairwise

import pytest

from configs.pretrain import OptimizerSpec, PretrainSpec
from ray_jobs.pretrain.schedule import learning_rate


def test_warm_up_and_cosine_have_the_golden_values() -> None:
    spec = OptimizerSpec(learning_rate=1.0, floor=0.1, warmup_steps=10)
    golden = {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.55, 99: 0.100274, 100: 0.1, 1000: 0.1}
    for step, rate in golden.items():
        assert learning_rate(step, 100, spec) == pytest.approx(rate, abs=1e-6), step


@pytest.mark.parametrize(
    ("shape", "golden"), [("linear", {85: 0.775, 90: 0.55}), ("1-sqrt", {85: 0.55, 90: 0.3636039})]
)
def test_wsd_stays_at_the_peak_and_falls_in_the_last_steps(shape: str, golden: dict[int, float]) -> None:
    spec = OptimizerSpec(
        learning_rate=1.0, floor=0.1, warmup_steps=10, schedule="wsd", decay_share=0.2, decay_shape=shape
    )
    for step, rate in {0: 0.1, 9: 1.0, 10: 1.0, 79: 1.0, 80: 1.0, 100: 0.1, 1000: 0.1, **golden}.items():
        assert learning_rate(step, 100, spec) == pytest.approx(rate, abs=1e-6), step
    # A longer training has the same rates until the shorter one falls.
    assert all(learning_rate(step, 100, spec) == learning_rate(step, 400, spec) for step in range(81))


def test_what_is_of_wsd_is_refused_elsewhere_and_must_fit_the_steps() -> None:
    with pytest.raises(ValueError, match="decay_share is of schedule wsd"):
        OptimizerSpec(decay_share=0.5)
    with pytest.raises(ValueError, match=r"warm-up .30 steps. and decay .60. are more than all steps .80."):
        PretrainSpec(steps=80, optimizer=OptimizerSpec(schedule="wsd", decay_share=0.75))


def test_without_warm_up_the_peak_comes_first_and_the_rate_never_rises() -> None:
    spec = OptimizerSpec(learning_rate=0.5, floor=0.0, warmup_steps=0)
    rates = [learning_rate(step, 50, spec) for step in range(60)]
    assert rates[0] == 0.5 and rates[50] == 0.0
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_steps .30. must be less than steps"):
        PretrainSpec(steps=30)


def test_a_sequence_longer_than_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sequence_length .256. is more than model.max_positions .128.: raise"):
        PretrainSpec(sequence_length=256)
