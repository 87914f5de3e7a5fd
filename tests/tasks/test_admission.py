"""One-process jobs wait for room, go on when there is some, and never wait for each other for good."""

import threading
import time
from contextlib import ExitStack

import pytest

from configs.base import Resources
from tasks.admission import Admission
from tasks.failures import Stopped
from tasks.jobs import Cluster

ONE = Resources(workers=1)


def test_no_more_run_at_once_than_the_cluster_has_cpus() -> None:
    admission, running, most = Admission(lambda: {"CPU": 3.0}), 0, 0
    lock = threading.Lock()

    def job() -> None:
        nonlocal running, most
        with admission.admitted(ONE):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

    threads = [threading.Thread(target=job) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert (running, most) == (0, 3)


@pytest.mark.parametrize(
    ("resources", "totals", "fit"),
    [
        (ONE, {"CPU": 2.0}, 2),
        (Resources(workers=1, cpus=2), {"CPU": 2.0}, 1),
        (Resources(workers=1, cpus=64), {"CPU": 2.0}, 1),
        (Resources(workers=1, gpus=1), {"CPU": 9.0, "GPU": 4.0}, 4),
        (Resources(workers=1, gpus=1), {"CPU": 9.0}, 1),
        (ONE, {}, 5),
        (Resources(workers=4, cpus=4), {"CPU": 2.0}, 5),
    ],
)
def test_what_fits_is_admitted_and_one_always_is(resources: Resources, totals: dict[str, float], fit: int) -> None:
    admission = Admission(lambda: totals)
    with ExitStack() as held:
        for _ in range(fit):
            held.enter_context(admission.admitted(resources))
        if fit < 5:
            with pytest.raises(Stopped), admission.admitted(resources, cancelled=lambda: True):
                pass


def test_jobs_begin_in_the_order_in_which_they_asked() -> None:
    admission = Admission(lambda: {"CPU": 1.0})
    begun: list[int] = []

    def job(number: int) -> None:
        with admission.admitted(ONE):
            begun.append(number)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    with admission.admitted(ONE):
        for number, thread in enumerate(threads):
            thread.start()
            while len(admission._queue) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(timeout=20)
    assert begun == list(range(8))


def test_one_that_is_cancelled_while_it_waits_lets_the_next_one_go_on() -> None:
    admission = Admission(lambda: {"CPU": 1.0})
    with admission.admitted(ONE), pytest.raises(Stopped), admission.admitted(ONE, cancelled=lambda: True):
        pass
    with admission.admitted(ONE):
        pass


@pytest.mark.parametrize(
    ("address", "resources", "reserved"),
    [
        (
            "http://head:8265",
            Resources(workers=1, cpus=4, gpus=1),
            {"entrypoint_num_cpus": 4, "entrypoint_num_gpus": 1},
        ),
        ("http://head:8265", Resources(workers=8, gpus=1), {}),
        (None, ONE, {}),
        (None, Resources(workers=1, gpus=1), {"entrypoint_num_gpus": 1}),
        (None, Resources(workers=1, gpus=4), {}),
    ],
)
def test_ray_reserves_for_a_job_what_its_own_process_takes(
    address: str | None, resources: Resources, reserved: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "totals", lambda cluster: {"CPU": 2.0, "GPU": 2.0})
    assert Cluster(address).placement(resources) == reserved


def test_a_job_that_fails_gives_its_room_back() -> None:
    admission = Admission(lambda: {"CPU": 1.0})
    for _ in range(2):
        with pytest.raises(RuntimeError), admission.admitted(ONE):
            raise RuntimeError
