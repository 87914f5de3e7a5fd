"""Where everything lies in a store.

nodes/<node>/<key16>/
    manifest.json                               the commit: create-only; absent = not done
    shards/<stage>.json                         create-only: shard -> inputs, whatever the number of workers
    stages/<stage>.json                         create-only: the stage is over, without the shards that it names
    data/<stage>/00017-<attempt>-<token>.<name> under a name no other attempt uses; a shard tried again by the same
                                                attempt has another token, as its first worker may still be alive
    receipts/<stage>/00017.json                 create-only; names the winning objects
    steps/00001000-<attempt>/…                  training state, published by receipts/steps/00001000.json
    lease.json                                  advisory: who works here, and how far
    requests/<submission>.json                  what a Ray job was asked to do
    attempts/<id>/…                             events, metrics, logs, what failed
runs/<run>.json                                 recipe, node -> key, timings, cost
running/<run>.json                              the nodes that a run under way relies on; deleted at its end
refs/<name>/00000007.json                       a numbered create-only log: the highest is the pointer
gc/<node>/<key16>.json                          garbage collection withdrew the manifest; the data follow later
retractions/<digest>.json                       documents that must leave the corpus
doctor/…                                        what `headrace doctor` found this store to guarantee
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

    def stage_data(self, stage: str) -> str:
        return f"{self.root}/data/{stage}/"

    def data(self, stage: str, shard: int, attempt: str, token: str, name: str) -> str:
        return f"{self.stage_data(stage)}{shard:05d}-{attempt}-{token}.{name}"

    @property
    def all_receipts(self) -> str:
        return f"{self.root}/receipts/"

    def stage_end(self, stage: str) -> str:
        return f"{self.root}/stages/{stage}.json"

    def receipts(self, stage: str) -> str:
        return f"{self.root}/receipts/{stage}/"

    def receipt(self, stage: str, shard: int) -> str:
        return f"{self.root}/receipts/{stage}/{shard:05d}.json"

    def receipt_of(self, data: str) -> str:
        """The receipt that publishes, or would publish, the object at `data`."""
        stage, _, file = data.removeprefix(f"{self.root}/data/").rpartition("/")
        return self.receipt(stage, int(file.partition("-")[0]))

    def request(self, submission: str) -> str:
        return f"{self.root}/requests/{submission}.json"

    def attempt(self, attempt: str, name: str) -> str:
        return f"{self.root}/attempts/{attempt}/{name}"
