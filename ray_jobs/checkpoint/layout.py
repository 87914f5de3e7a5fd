"""Where everything lies in a store.

nodes/<node>/<key16>/
    manifest.json                               the commit: create-only; absent = not done
    shards/<stage>.json                         create-only: shard -> inputs, whatever the number of workers
    data/<stage>/00017-<attempt>.<name>         under a name no other attempt uses
    receipts/<stage>/00017.json                 create-only; names the winning objects
    steps/00001000-<attempt>/…                  training state, published by receipts/steps/00001000.json
    lease.json                                  advisory: who works here, and how far
    requests/<submission>.json                  what a Ray job was asked to do
    attempts/<id>/…                             events, metrics, logs, what failed
runs/<run>.json                                 recipe, node -> key, timings, cost
refs/<name>/00000007.json                       a numbered create-only log: the highest is the pointer
"""

from dataclasses import dataclass

from ray_jobs.checkpoint.keys import KEY_DIGITS_IN_PATHS


@dataclass(frozen=True)
class NodePath:
    """The folder of one node's checkpoint."""

    node: str
    key: str

    @property
    def root(self) -> str:
        return f"nodes/{self.node}/{self.key[:KEY_DIGITS_IN_PATHS]}"

    @property
    def manifest(self) -> str:
        return f"{self.root}/manifest.json"

    @property
    def lease(self) -> str:
        return f"{self.root}/lease.json"

    def shards(self, stage: str) -> str:
        return f"{self.root}/shards/{stage}.json"

    def data(self, stage: str, shard: int, attempt: str, name: str) -> str:
        return f"{self.root}/data/{stage}/{shard:05d}-{attempt}.{name}"

    def receipts(self, stage: str) -> str:
        return f"{self.root}/receipts/{stage}/"

    def receipt(self, stage: str, shard: int) -> str:
        return f"{self.root}/receipts/{stage}/{shard:05d}.json"

    def request(self, submission: str) -> str:
        return f"{self.root}/requests/{submission}.json"

    def attempt(self, attempt: str, name: str) -> str:
        return f"{self.root}/attempts/{attempt}/{name}"
