"""A training under Ray Train on a small cluster of its own: `python -m tests.pretrain.ray_group REQUEST`.

REQUEST holds `training`, the arguments of `job_of`, the number of `gpus` that Ray is to hold, and what happens after
the first checkpoint: `kill`, a worker is killed; `stop`, this process gets SIGTERM, as from `ray job stop`.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.pretrain.launch import TrainingJob
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.ranks import job_of

# Read by Ray as it is imported. Nothing here listens beyond this machine.
os.environ["RAY_AUTH_MODE"] = "disabled"


def after_first_checkpoint(job: TrainingJob, happens: str) -> None:
    while not StepStore(job.store, job.path).receipts():
        time.sleep(0.05)
    if happens == "kill":
        kill_a_worker()
    elif happens == "stop":
        os.kill(os.getpid(), signal.SIGTERM)


def kill_a_worker() -> None:
    """The process of some rank."""
    import psutil

    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::") and "RayTrainWorker" in "".join(process.cmdline())
    ]
    os.kill(workers[-1].pid, signal.SIGKILL)
    print(f"killed one of {len(workers)} workers", flush=True)


def main() -> None:
    import ray

    from ray_jobs.pretrain.on_ray import train_on_ray

    request: dict[str, Any] = json.loads(sys.argv[1])
    job = job_of(**request["training"])
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=max(2, request.get("gpus", 0)),
            num_gpus=request.get("gpus", 0),
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level=logging.ERROR,
            _temp_dir=folder,
            _node_ip_address="127.0.0.2",
        )
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        threading.Thread(target=after_first_checkpoint, args=(job, request["happens"]), daemon=True).start()
        began = time.monotonic()
        try:
            train_on_ray(job, lambda done, total, unit, **extra: print(f"{done} of {total} {unit} {extra}", flush=True))
            print(f"trained in {time.monotonic() - began:.1f} s", flush=True)
        except (ValueError, NodeFailed) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            ray.shutdown()  # ends what this process started, and no other cluster


if __name__ == "__main__":
    main()
