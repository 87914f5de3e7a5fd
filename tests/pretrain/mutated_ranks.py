"""Ranks that change their parameters while these are saved: `python -m tests.pretrain.mutated_ranks [TRAINING]`.

Every local element is 100 · rank + the tensor's number when the copy is taken, and −1 before any object is written.
"""

import json
import sys
import threading
from pathlib import Path

from ray_jobs.checkpoint.file_store import FileStore
from tests.pretrain.ranks import job_of


class GatedStore(FileStore):
    """No large object is written before `lets` is set."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.lets = threading.Event()

    def put_file(self, path: str, local: Path) -> None:
        assert self.lets.wait(60)
        super().put_file(path, local)


def main() -> None:
    import torch
    import torch.distributed as dist

    from ray_jobs.pretrain.saving import Saver
    from ray_jobs.pretrain.steps import StepStore
    from ray_jobs.pretrain.trainer import build, checkpoint_tensors

    (training,) = json.loads(sys.argv[1])
    job = job_of(**training)
    assert isinstance(job.store, FileStore)
    store = GatedStore(job.store.root)
    dist.init_process_group("gloo")
    tensors = checkpoint_tensors(*build(job.spec, job.vocabulary.num_tokens, torch.device("cpu")))
    with torch.no_grad():
        for number, tensor in enumerate(tensors.values()):
            tensor.to_local().fill_(100 * dist.get_rank() + number)
        saver = Saver(StepStore(store, job.path), "session", tensors, kept=2)
        saver.copy(5)
        saver.write({})
        for tensor in tensors.values():
            tensor.to_local().fill_(-1.0)
        dist.barrier()
    store.lets.set()
    saver.finish()
    saver.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
