"""One Prefect task a shard on prefect-ray's runner, as its users write it; prints the milliseconds a shard.

Run by graph.py, in an environment of its own.
"""

import sys
import time

import ray
from prefect import flow, task
from prefect_ray import RayTaskRunner


@task
def empty(index: int) -> dict[str, int]:
    return {"n": 1}


@flow
def fan_out(num_shards: int) -> float:
    empty.submit(-1).result()  # the runner is up
    began = time.perf_counter()
    futures = empty.map(range(num_shards))
    assert len(futures.result()) == num_shards
    return 1000 * (time.perf_counter() - began) / num_shards


if __name__ == "__main__":
    num_shards, workers = int(sys.argv[1]), int(sys.argv[2])
    ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.2", log_to_driver=False)
    runner = RayTaskRunner()
    print(fan_out.with_options(task_runner=runner, log_prints=False)(num_shards))
