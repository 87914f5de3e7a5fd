"""One-process jobs wait for room, go on when there is some, and never wait for each other for good."""

import threading
import time
from contextlib import ExitStack

import pytest

from configs.base import Resources
from tasks.admission import Admission
from tasks.failures import Stopped

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


def test_a_job_that_fails_gives_its_room_back() -> None:
    admission = Admission(lambda: {"CPU": 1.0})
    for _ in range(2):
        with pytest.raises(RuntimeError), admission.admitted(ONE):
            raise RuntimeError
