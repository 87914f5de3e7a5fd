"""Whatever is killed, the same command afterwards gives the undisturbed run's content."""

import signal
import time

import pytest

from tests.end_to_end.conftest import DATA_NODES
from tests.end_to_end.harness import Headrace, is_driver, is_head, is_worker, kill, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


# A killed head costs a minute and a half, so that some pairs of fault and store are left to `make soak`.
FILE, S3 = "headrace", "headrace_on_s3"
BOTH = [pytest.param(FILE, id="file"), pytest.param(S3, id="s3")]
FILE_FIRST = [pytest.param(FILE, id="file"), pytest.param(S3, id="s3", marks=pytest.mark.soak)]
S3_FIRST = [pytest.param(FILE, id="file", marks=pytest.mark.soak), pytest.param(S3, id="s3")]


@pytest.fixture
def stored(request: pytest.FixtureRequest) -> Headrace:
    """A home with an empty store of the kind that the test asks for."""
    return request.getfixturevalue(request.param)


def same_content_afterwards(headrace: Headrace, undisturbed: dict[str, str]) -> None:
    run = headrace.json("run", "tiny", *DATA_NODES)
    done = {name: node for name, node in run["nodes"].items() if name in undisturbed}
    assert {node["state"] for node in done.values()} <= {"HIT", "DONE"}
    assert headrace.digests({"nodes": done}) == undisturbed


@pytest.mark.parametrize("stored", BOTH, indirect=True)
def test_a_killed_flow_leaves_its_job_and_the_next_run_attaches(stored: Headrace, undisturbed: dict[str, str]) -> None:
    flow = stored.start("run", "tiny", *DATA_NODES)
    wait_for(lambda: stored.processes(is_driver), 60, "a job's start")
    time.sleep(0.5)
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    same_content_afterwards(stored, undisturbed)


@pytest.mark.parametrize("stored", S3_FIRST, indirect=True)
def test_a_killed_driver_is_submitted_again(stored: Headrace, undisturbed: dict[str, str]) -> None:
    flow = stored.start("run", "tiny", *DATA_NODES)
    drivers = wait_for(lambda: stored.processes(is_driver), 60, "a job's start")
    time.sleep(1.0)
    kill(drivers)
    assert flow.wait(timeout=180) == 0
    same_content_afterwards(stored, undisturbed)


@pytest.mark.parametrize("stored", BOTH, indirect=True)
def test_a_killed_worker_costs_its_batch_only(stored: Headrace, undisturbed: dict[str, str]) -> None:
    flow = stored.start("run", "tiny", *DATA_NODES)
    workers = wait_for(lambda: stored.processes(is_worker), 90, "a worker's start")
    kill(workers)
    assert flow.wait(timeout=180) == 0
    same_content_afterwards(stored, undisturbed)


@pytest.mark.parametrize("stored", FILE_FIRST, indirect=True)
def test_a_killed_head_is_started_again(stored: Headrace, undisturbed: dict[str, str]) -> None:
    flow = stored.start("run", "tiny", *DATA_NODES)
    wait_for(lambda: stored.processes(is_worker), 90, "a worker's start")
    kill(stored.processes(is_head))
    assert flow.wait(timeout=240) == 0
    same_content_afterwards(stored, undisturbed)


@pytest.mark.parametrize("stored", S3_FIRST, indirect=True)
def test_two_runs_of_the_same_nodes_both_succeed_with_one_manifest_each(
    stored: Headrace, undisturbed: dict[str, str]
) -> None:
    flows = [stored.start("run", "tiny", *DATA_NODES) for _ in range(2)]
    assert [flow.wait(timeout=240) for flow in flows] == [0, 0]
    same_content_afterwards(stored, undisturbed)
