"""Whoever asks, leaves or is too slow: the engine's thread goes on, and what was held is given back."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from configs.inference import DecodingSpec, EngineSpec
from configs.serve import LimitsSpec, ServeSpec
from ray_jobs.inference.loading import load
from ray_jobs.serve.building import service_of
from ray_jobs.serve.loop import Answers, EngineLoop, EngineStopped, QueueFull

NUM_BLOCKS = 60


@pytest.fixture
def loop(tiny_model: Path) -> Iterator[EngineLoop]:
    """A small memory and endless answers."""
    spec = ServeSpec(
        model="tiny",
        engine=EngineSpec(block_size=4, num_blocks=NUM_BLOCKS, max_running=6, step_tokens=40),
        limits=LimitsSpec(max_queued=40),
    )
    loaded = load(str(tiny_model), device="cpu", dtype="fp32")
    service, _ = service_of(replace(loaded, end_tokens=()), spec)
    service.loop.start()
    yield service.loop
    service.loop.stop()


async def idle(loop: EngineLoop) -> None:
    async with asyncio.timeout(60):
        while loop.num_open or loop.engine.waiting or loop.engine.running:
            await asyncio.sleep(0.01)


async def texts(answers: Answers) -> dict[int, str]:
    found: dict[int, str] = {}
    async for piece in answers:
        found[piece.index] = found.get(piece.index, "") + piece.text
    return found


@pytest.mark.slow
def test_random_requests_and_cancellations_leave_nothing_behind(loop: EngineLoop) -> None:
    chance = random.Random(3)
    num_refused = 0

    async def ask() -> None:
        nonlocal num_refused
        prompts = [
            [chance.randrange(4, 300) for _ in range(chance.randrange(1, 40))] for _ in range(chance.choice([1, 2]))
        ]
        spec = DecodingSpec(seed=chance.randrange(99), max_new_tokens=chance.randrange(1, 40), stop=("e",))
        await asyncio.sleep(chance.random())
        num_answers, as_written = chance.choice([1, 1, 3]), chance.random() < 0.5
        while True:
            try:
                answers = loop.submit(prompts, spec, num_answers, as_written)
                break
            except QueueFull:
                num_refused += 1
                await asyncio.sleep(0.1)
        if chance.random() < 0.4:
            await asyncio.sleep(chance.random() / 5)
            answers.cancel()
            answers.cancel()
        else:
            assert len(await texts(answers)) == len(prompts) * answers.num_answers

    async def ask_all() -> None:
        await asyncio.gather(*(ask() for _ in range(400)))
        await idle(loop)

    asyncio.run(ask_all())
    assert loop.engine.blocks.num_available == NUM_BLOCKS and not loop.stopped
    assert num_refused > 0 and loop.engine.num_preempted > 0
    assert not loop._answers and not loop._requests and not loop._under_way


def test_who_takes_slowly_gets_all_the_same_in_fewer_pieces(loop: EngineLoop) -> None:
    spec = DecodingSpec(seed=1, max_new_tokens=60)

    async def both() -> None:
        quick = loop.submit([[5, 6, 7]], spec)
        wanted = (await texts(quick))[0]
        slow = loop.submit([[5, 6, 7]], spec)
        await idle(loop)
        pieces = [piece async for piece in slow]
        assert [piece.text for piece in pieces] == [wanted]
        assert len(pieces[0].tokens) == pieces[0].num_tokens == 60

    asyncio.run(both())


@pytest.mark.parametrize(("seconds", "told"), [(3.0, 6), (0.01, 1), (1000.0, 60)])
def test_who_is_refused_comes_back_when_half_of_the_queue_is_answered(
    loop: EngineLoop, monkeypatch: pytest.MonkeyPatch, seconds: float, told: int
) -> None:
    """Four answers wait for every one that is written, each of which takes so long."""
    monkeypatch.setattr(loop, "_answer_seconds", seconds)
    monkeypatch.setattr(loop, "num_open", 5 * loop.engine.spec.max_running)
    assert loop._retry_seconds() == told


def test_more_than_the_queue_holds_is_refused_whole_and_room_comes_back(loop: EngineLoop) -> None:
    async def fill() -> None:
        spec = DecodingSpec(max_new_tokens=8)
        first = loop.submit([[5]], spec, num_answers=40)
        with pytest.raises(QueueFull):
            loop.submit([[6]], spec, num_answers=7)
        second = loop.submit([[6]], spec, num_answers=6)
        first.cancel()
        assert len(await texts(second)) == 6
        await idle(loop)
        assert len(await texts(loop.submit([[7]], spec, num_answers=46))) == 46

    asyncio.run(fill())


def test_who_waits_is_told_when_the_server_stops(loop: EngineLoop) -> None:
    async def stop() -> None:
        answers = loop.submit([[5]], DecodingSpec(max_new_tokens=200), num_answers=6)
        await asyncio.to_thread(loop.stop)
        with pytest.raises(EngineStopped):
            await texts(answers)
        with pytest.raises(EngineStopped):
            loop.submit([[5]], DecodingSpec())

    asyncio.run(stop())


def test_an_asker_whose_event_loop_is_gone_disturbs_nobody(loop: EngineLoop) -> None:
    async def leave() -> None:
        loop.submit([[5]], DecodingSpec(max_new_tokens=20))

    async def stay() -> None:
        assert len(await texts(loop.submit([[5]], DecodingSpec(max_new_tokens=20)))) == 1
        await idle(loop)

    asyncio.run(leave())
    asyncio.run(stay())
    assert loop.engine.blocks.num_available == NUM_BLOCKS
