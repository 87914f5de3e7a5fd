r"""Pretraining under torchrun, without Ray:

    torchrun --nproc-per-node 8 [--nnodes 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400] \
        -m ray_jobs.pretrain REQUEST_URL

REQUEST_URL is the request of the node, as `python -m ray_jobs pretrain REQUEST_URL` takes it: nodes/pretrain/<key16>/
requests/<submission>.json in a store. The ranks are torchrun's; of the request's resources CPUs and GPUs a worker,
micro_batch, shard_ranks and tokens_from_store count. Any number of ranks goes on from the newest checkpoint: a new
start by hand with as many as it is given, and `--nnodes 2:4 --max-restarts 9` with the machines that are left, for
which micro_batch should be set, as each takes on sequences of the others. The training checkpoints lie where the
node looks for them: afterwards `python -m ray_jobs pretrain REQUEST_URL`, or any run of the graph, finds the last one
and publishes the model. Exit status: 2 for a user's mistake, 3 where the store fails, 1 when SIGTERM stopped the
training after a last checkpoint (torchrun passes the signal on).
"""

import argparse
import logging
import os
import secrets
import sys

import torch.distributed as dist

from configs.base import Resources
from configs.nodes import NODES
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.keys import key_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import StoreError, open_store
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.cluster.runner import NodeRequest
from ray_jobs.pretrain.job import training_job
from ray_jobs.pretrain.launch import NO_PROGRESS, TrainingJob, backend_of, device_of_rank, sigterm_asks, train_rank
from ray_jobs.pretrain.trainer import TrainingStopped


def job_of(request_url: str, workers: int) -> TrainingJob:
    """The job that a request describes, for `workers` ranks. Raises ValueError as the node does."""
    root, slash, rest = request_url.partition("/nodes/")
    store = open_store(root)
    data = store.get(f"nodes/{rest}") if slash else None
    if data is None:
        raise ValueError(f"there is no request at {request_url}: it lies under <store>/nodes/pretrain/<key>/requests/")
    request = NodeRequest.model_validate_json(data)
    if request.node != PretrainSpec.node:
        raise ValueError(f"{request_url} asks for {request.node}, not {PretrainSpec.node}")
    inputs = {slot: Checkpoint.open(store, upstream.node, upstream.key) for slot, upstream in request.inputs.items()}
    resources = Resources.model_validate(request.resources | {"workers": workers, "min_workers": 1})
    path = NodePath(request.node, key_of(request.payload(NODES[request.node])))
    spec = PretrainSpec.model_validate(request.spec)
    return training_job(spec, inputs, store, path, f"torchrun-{secrets.token_hex(6)}", resources)


def main() -> int:
    parser = argparse.ArgumentParser(prog="torchrun -m ray_jobs.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("request_url", help="s3://… or file:///… of the node's request")
    arguments = parser.parse_args()
    if "WORLD_SIZE" not in os.environ:
        parser.error("start it with torchrun; `python -m ray_jobs pretrain REQUEST_URL` computes the node by itself")
    rank = int(os.environ["RANK"])
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(message)s", datefmt="%H:%M:%S")
    try:
        job = job_of(arguments.request_url, int(os.environ["WORLD_SIZE"]))
        device_of_rank(job.resources)
        dist.init_process_group(backend_of(job.resources))
        with sigterm_asks() as asked:
            train_rank(job, _print_progress if rank == 0 else NO_PROGRESS, asked)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NodeFailed, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def _print_progress(done: float, total: float, unit: str, **figures: float) -> None:
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
    logging.getLogger("headrace").info("%d of %d %s, %s", done, total, unit, shown)


if __name__ == "__main__":
    sys.exit(main())
