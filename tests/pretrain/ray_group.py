"""A training under Ray Train on a small cluster of its own: `python -m tests.pretrain.ray_group REQUEST`.

REQUEST holds `training`, the arguments of `job_of`, the number of `gpus` that Ray is to hold, and what happens. After
the first checkpoint: `kill`, a worker is killed; `stop`, this process gets SIGTERM, as from `ray job stop`; `lose`, the
second of two machines of a CPU each is gone. After the first lines of the curve: `return`, the second machine is gone
and comes back when the other has begun alone; when both train, this process gets SIGTERM.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.pretrain.launch import TrainingJob
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.ranks import job_of

# Read by Ray as it is imported. Nothing here listens beyond this machine.
os.environ["RAY_AUTH_MODE"] = "disabled"
# Places are free at once here, or gone.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "4")


class Machine:
    """One more node with one CPU, under an address of its own."""

    def __init__(self, gcs_address: str):
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        options = ["--num-cpus=1", f"--object-store-memory={100 << 20}", "--node-ip-address=127.0.0.3"]
        self._process = subprocess.Popen(
            [*command, f"--address={gcs_address}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def vanish(self) -> None:
        """All its processes at once, as a power cut would."""
        import psutil

        for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
            process.send_signal(signal.SIGKILL)
        self._process.wait()


def after_first_checkpoint(job: TrainingJob, happens: str, machines: list[Machine], gcs_address: str) -> None:
    """`kill-saving` also is known: a worker is killed while it writes its part of the second one, as `held` of the
    training makes it wait."""
    if happens == "return":
        wait_until(lambda: num_sessions(job) == 1)
        machines.pop().vanish()
        wait_until(lambda: num_sessions(job) == 2)
        machines.append(Machine(gcs_address))
        wait_until(lambda: num_sessions(job) == 3)
        os.kill(os.getpid(), signal.SIGTERM)
        return
    wait_until(lambda: bool(StepStore(job.store, job.path).receipts()))
    if happens == "kill-saving":
        wait_until((Path(job.store.url.removeprefix("file://")) / "held").exists)
    if happens.startswith("kill"):
        kill_a_worker()
    elif happens == "lose":
        machines.pop().vanish()
    elif happens == "stop":
        os.kill(os.getpid(), signal.SIGTERM)


def num_sessions(job: TrainingJob) -> int:
    """Starts of the ranks that have written of their loss."""
    paths = [entry.path.split("/") for entry in job.store.list(f"{job.path.root}/attempts/")]
    return len({session for *_, session, name in paths if name.startswith("metrics-")})


def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.05)


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

    from ray_jobs.pretrain import on_ray

    on_ray.RESIZE_SECONDS = 2.0
    request: dict[str, Any] = json.loads(sys.argv[1])
    job, happens = job_of(**request["training"]), request["happens"]
    two_machines = happens in {"lose", "return"}
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=1 if two_machines else max(2, request.get("gpus", 0)),
            num_gpus=request.get("gpus", 0),
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level=logging.ERROR,
            _temp_dir=folder,
            _node_ip_address="127.0.0.2",
        )
        gcs_address = os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        machines = [Machine(gcs_address)] if two_machines else []
        wait_until(lambda: ray.cluster_resources().get("CPU", 0) >= 2)
        arguments = (job, happens, machines, gcs_address)
        threading.Thread(target=after_first_checkpoint, args=arguments, daemon=True).start()
        began = time.monotonic()
        try:
            on_ray.train_on_ray(
                job, lambda done, total, unit, **extra: print(f"{done} of {total} {unit} {extra}", flush=True)
            )
            print(f"trained in {time.monotonic() - began:.1f} s", flush=True)
        except (ValueError, NodeFailed) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            for machine in machines:
                machine.vanish()
            ray.shutdown()  # ends what this process started, and no other cluster


if __name__ == "__main__":
    main()
