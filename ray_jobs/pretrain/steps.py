"""The training checkpoints of a node: their names, receipts and retention. Free of torch.

steps/00001000-<session>/__0_0.distcp, …, .metadata    tensors of every rank, under names no other session uses
receipts/steps/00001000.json                           create-only: every object with size and sha256, and the state
"""

import logging
from typing import Any

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store

log = logging.getLogger("headrace")


class StepFile(Record):
    """One object of a training checkpoint."""

    name: str
    bytes: int
    sha256: str


class StepReceipt(Record):
    """A training checkpoint is whole: the create-only record names its objects and holds all that is no tensor."""

    step: int
    """Optimizer steps taken."""
    session: str
    world_size: int
    files: tuple[StepFile, ...]
    state: dict[str, Any]
    """Small JSON of the trainer."""


class DamagedStep(Exception):
    """An object of a training checkpoint is gone or is not what its receipt names."""


class StepStore:
    """The training checkpoints of one node; picklable."""

    def __init__(self, store: Store, path: NodePath):
        self.store, self.path = store, path

    def folder(self, step: int, session: str) -> str:
        return f"{self.path.root}/steps/{step:08d}-{session}"

    def receipt_path(self, step: int) -> str:
        return f"{self.path.receipts('steps')}{step:08d}.json"

    def receipts(self) -> list[StepReceipt]:
        """All published checkpoints, newest first. One whose receipt cannot be read is left out with a warning."""
        found = []
        for entry in self.store.list(self.path.receipts("steps")):
            receipt = self._read(entry.path)
            if receipt is not None:
                found.append(receipt)
        return sorted(found, key=lambda receipt: -receipt.step)

    def of_step(self, step: int) -> StepReceipt | None:
        """The checkpoint of this step, if it is published."""
        return self._read(self.receipt_path(step))

    def _read(self, path: str) -> StepReceipt | None:
        data = self.store.get(path)
        if data is None:  # also: deleted by another process since it was listed
            return None
        try:
            return StepReceipt.model_validate_json(data)
        except ValueError as error:
            log.warning("%s is damaged and is passed over: %s", path, str(error).splitlines()[0])
            return None

    def publish(self, receipt: StepReceipt) -> bool:
        """Creates the receipt; False where another session's stands for this step, which is as good."""
        path = self.receipt_path(receipt.step)
        if self.store.create(path, receipt.to_json()):
            return True
        if self._read(path) is not None:
            return False
        self.store.delete([path])  # what stands there can be of no use to anyone
        return self.store.create(path, receipt.to_json())

    def withdraw(self, receipt: StepReceipt) -> None:
        """Takes back a damaged checkpoint's receipt, so that its step can be published again."""
        self.store.delete([self.receipt_path(receipt.step)])

    def discard(self, step: int, session: str) -> None:
        """Deletes what a save of this session wrote for this step, unless it was published after all."""
        receipt = self.of_step(step)
        if receipt is None or receipt.session != session:
            self.store.delete([entry.path for entry in self.store.list(f"{self.folder(step, session)}/")])

    def keep_newest(self, count: int, permanent_every: int | None = None, from_step: int | None = None) -> None:
        """Deletes all but the newest `count` checkpoints, those from `from_step` on and those whose step is a multiple
        of `permanent_every`, receipts first, and what other sessions left half-written: of older steps, and of those
        that stand."""
        receipts = self.receipts()
        if not receipts:
            return
        oldest = receipts[:count][-1].step
        if from_step is not None:  # and one before it: a save by plan may have failed
            before = [receipt.step for receipt in receipts if receipt.step <= from_step]
            oldest = min(oldest, max(before, default=from_step))
        kept = {
            receipt.step: self.folder(receipt.step, receipt.session)
            for receipt in receipts
            if receipt.step >= oldest or (permanent_every and receipt.step % permanent_every == 0)
        }
        self.store.delete([self.receipt_path(receipt.step) for receipt in receipts if receipt.step not in kept])
        prefix = f"{self.path.root}/steps/"
        gone = []
        for entry in self.store.list(prefix):
            step, folder = int(entry.path[len(prefix) :][:8]), entry.path.rpartition("/")[0]
            if (step < oldest or step in kept) and folder != kept.get(step):
                gone.append(entry.path)
        self.store.delete(gone)
