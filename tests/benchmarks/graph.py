"""python -m tests.benchmarks.graph: what the graph itself costs, apart from the work in it."""

import atexit
import contextlib
import functools
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.base import Resources
from ray_jobs.checkpoint.keys import key_of, key_payload
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.executor import RayExecutor
from ray_jobs.cluster.fan_out import Limits, Stage, fan_out
from tests.benchmarks.harness import Bench, NotMeasured, figure, main
from tests.s3_server import S3Server, running_s3_server

NUM_SHARDS = int(os.environ.get("HEADRACE_BENCH_SHARDS", "10000"))
NUM_PEER_SHARDS = 300  # of a runner that takes about 90 ms a task
WORKERS = 2
until_exit = contextlib.ExitStack()
atexit.register(until_exit.close)
LIMITS = Limits(shard_retries=0, infrastructure_retries=0, max_quarantined_share=0.0)


def empty_shard(shard: dict[str, Any], context: None) -> ShardOutput:
    return ShardOutput({}, {"n": 1})


@functools.cache
def s3_server() -> S3Server:
    """One server for all figures. Ends with this process."""
    folder = until_exit.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-s3-"))
    server = until_exit.enter_context(running_s3_server(Path(folder)))
    os.environ.update(server.environment)
    return server


@functools.cache
def ray_cluster() -> Any:
    """One cluster for all figures, with as many workers as are measured. Ends with this process."""
    s3_server()  # before the cluster, whose workers inherit the keys
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=200 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=until_exit.enter_context(
            tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        ),
        _node_ip_address="127.0.0.2",
    )
    until_exit.callback(ray.shutdown)
    return ray


def fanned_out(store: Store, shards_per_task: int, num_shards: int) -> float:
    """Milliseconds a shard of a fan-out of empty shards, from the plan to the stage's end."""
    resources = Resources(workers=WORKERS, shards_per_task=shards_per_task)
    stage = Stage(store, NodePath("empty", "0" * 64), "attempt", "empty", empty_shard, None)
    shards = [{"index": index} for index in range(num_shards)]
    executor = RayExecutor(resources)
    began = time.perf_counter()
    result = fan_out(
        stage, shards, executor, shards_per_task, LIMITS, lambda done, total: None, lambda name, content: None
    )
    took = time.perf_counter() - began
    assert len(result.receipts) == num_shards
    return 1000 * took / num_shards


@figure("ms")
def fanout_ms_per_shard_plain_ray(bench: Bench) -> float:
    """One Ray task a shard that returns as much as a receipt holds, and nothing else: what Ray itself costs."""
    ray = ray_cluster()
    bench.notes["shards"] = NUM_SHARDS
    task = ray.remote(num_cpus=1, max_retries=0)(plain_task)
    began = time.perf_counter()
    assert len(ray.get([task.remote({"index": index}) for index in range(NUM_SHARDS)])) == NUM_SHARDS
    return 1000 * (time.perf_counter() - began) / NUM_SHARDS


def plain_task(shard: dict[str, Any]) -> dict[str, int]:
    return {"n": 1}


@figure("ms", target="≤ 2 × fanout_ms_per_shard_plain_ray")
def fanout_ms_per_shard_file(bench: Bench) -> float:
    """With receipts, each synced to the disk."""
    ray_cluster()
    bench.notes |= {"shards": NUM_SHARDS, "shards_per_task": Resources().shards_per_task}
    return fanned_out(open_store(bench.new_folder()), Resources().shards_per_task, NUM_SHARDS)


@figure("ms", target="2–4")
def fanout_ms_per_shard_s3(bench: Bench) -> float:
    """With receipts on a real S3 server on this machine, which shares its cores."""
    server = s3_server()
    ray_cluster()
    bench.notes |= {"shards": NUM_SHARDS, "shards_per_task": Resources().shards_per_task}
    store = open_store(f"s3://{server.bucket}/{secrets.token_hex(4)}")
    return fanned_out(store, Resources().shards_per_task, NUM_SHARDS)


@figure("ms", target="> 20 × fanout_ms_per_shard_file", warm_up=False)  # the script warms up by itself
def fanout_ms_per_shard_prefect_ray(bench: Bench) -> float:
    """One Prefect task a shard on prefect-ray's runner, in an environment of its own."""
    python = bench.peer_python("prefect-ray==0.6.0", "prefect==3.8.8", "ray==2.60.0", "fastapi==0.150.0")
    bench.notes["shards"] = NUM_PEER_SHARDS
    folder = bench.new_folder()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_AUTH_MODE": "disabled",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    script = Path(__file__).parent / "peer_prefect_ray.py"
    command = [str(python), str(script), str(NUM_PEER_SHARDS), str(WORKERS)]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return float(done.stdout.splitlines()[-1])


HEADRACE = [sys.executable, "-c", "from flows.cli import main; main()"]


@functools.cache
def finished_demo(given: Path | None) -> dict[str, str]:
    """The environment in which `headrace run demo` has nothing left to do: --input names its HEADRACE_HOME."""
    home = given or Path(".headrace")
    environment = {**os.environ, "HEADRACE_HOME": str(home.absolute())}
    plan = subprocess.run([*HEADRACE, "plan", "demo", "--json"], env=environment, capture_output=True, check=True)
    states = {node["state"] for node in json.loads(plan.stdout)["nodes"].values()}
    if states != {"HIT"}:
        raise NotMeasured(f"the demo has not run in {home}: `make run` first, or name its HEADRACE_HOME with --input")
    return environment


@figure("s", target="≤ 5", repeats=5)
def all_hit_wall_s(bench: Bench) -> float:
    """The second `headrace run demo`, as a whole process."""
    environment = finished_demo(bench.input)
    began = time.perf_counter()
    subprocess.run([*HEADRACE, "run", "demo"], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


@functools.cache
def local_head() -> Any:
    """A head as `headrace run` starts it, in a home of its own; stopped when this process ends."""
    home = until_exit.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-home-"))
    os.environ["HEADRACE_HOME"] = home
    from tasks import local

    head = local.ray_head()
    os.environ.update(head.environment)  # Ray reads how to authenticate when it is imported
    until_exit.callback(local.stop, head)
    return head


@figure("s")
def ray_job_start_s(bench: Bench) -> float:
    """A Ray job that does nothing, from submission until Ray says that it has succeeded."""
    local_head()
    from tasks.jobs import Cluster

    client = Cluster().client()
    began = time.perf_counter()
    submission = client.submit_job(entrypoint=f"{sys.executable} -c pass")
    while not client.get_job_status(submission).is_terminal():
        time.sleep(0.02)
    return time.perf_counter() - began


@figure("s")
def node_submission_to_manifest_s(bench: Bench) -> float:
    """A node without work (a snapshot of one pinned file), from its submission until its manifest is read."""
    local_head()
    from configs.crawl import PinnedArchives, PinnedFile, SnapshotSpec
    from tasks.jobs import Cluster, JobRequest, Watcher, run_job

    pinned = PinnedArchives(files=(PinnedFile(url="file:///nowhere.warc.gz", size=1),))
    payload = key_payload("snapshot", 1, SnapshotSpec(crawl="none", content=pinned), {})
    store = open_store(bench.new_folder())
    request = JobRequest(store, "snapshot", payload, key_of(payload), Resources(workers=1), {})
    began = time.perf_counter()
    run_job(request, Cluster(), Watcher())
    return time.perf_counter() - began


@figure("s", target="≤ 1")
def node_fixed_cost_s(bench: Bench) -> float:
    """The two above in turn: what a node costs beside the Ray job's own start."""
    return node_submission_to_manifest_s(bench) - ray_job_start_s(bench)


if __name__ == "__main__":
    main("graph", __name__)
