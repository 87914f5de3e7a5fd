"""Every sample of a batch is scored by one rank, whatever their number, and all ranks do the same work."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from ray_jobs.pretrain.share import idle_share, share_of


@given(st.integers(1, 40), st.integers(1, 12), st.none() | st.integers(1, 9), st.integers(0, 5))
@example(8, 3, 1, 0)  # the last rank's first micro-batch is all ignored
@example(8, 2, 3, 0)
def test_each_sample_is_scored_once_and_all_ranks_run_the_same_shapes(
    global_batch: int, world: int, micro_batch: int | None, step: int
) -> None:
    scored: Counter[int] = Counter()
    run = 0
    shapes = set()
    for rank in range(world):
        share = share_of(global_batch, rank, world, micro_batch)
        requests = list(share.requests([step, step + 1]))
        shapes.add(tuple(count for _, count in requests))
        run += sum(count for _, count in requests)
        for place, (first, count) in enumerate(requests):
            number = place % share.num_micro_batches
            of_step = step + place // share.num_micro_batches
            assert share.samples_of(of_step, number) == range(first, first + count)
            # A sample that gives no number is found in the step in which it does.
            assert of_step * global_batch <= first and first + count <= (of_step + 1) * global_batch
            scored.update(range(first + share.ignored_of(number), first + count))
    assert scored == Counter(range(step * global_batch, (step + 2) * global_batch))
    assert len(shapes) == 1
    assert abs(idle_share(global_batch, world) - (1 - 2 * global_batch / run)) < 1e-9


def test_ranks_that_divide_the_batch_take_equal_slices_in_their_order() -> None:
    assert [list(share_of(8, rank, 2, 3).requests([1])) for rank in (0, 1)] == [[(8, 3), (11, 1)], [(12, 3), (15, 1)]]
    assert share_of(8, 1, 2, None).ignored == 0
