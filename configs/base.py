"""What every node's configuration is made of.

A *Spec* says what to compute: every field is hashed into the node's key. *Resources* say how: they are recorded
in the manifest and never hashed, so moving a run from a laptop to a cluster keeps its keys.
"""

from collections.abc import Collection
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of all specs: frozen, and a field that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    # Set by the specs of nodes: the node's name, and an integer that is raised when its output would change.
    node: ClassVar[str]
    version: ClassVar[int]

    @property
    def needs_network(self) -> bool:
        """Whether pinning what this names asks a server. Only specs of external inputs are ever asked."""
        return True

    def takes(self, slot: str) -> bool:
        """Whether an optional slot is filled by the recipe's node for it, where the recipe does not say."""
        return True

    def check_inputs(self, slots: Collection[str]) -> None:
        """Raises ValueError where the spec speaks of an input that the node does not have. `slots`: those it has."""


class Resources(BaseModel):
    """How a node runs. None of it changes what the node computes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    workers: int = Field(default=2, ge=1)
    """Ray tasks at once, or training ranks. With 1, a data node works inside its job's own process."""
    min_workers: int | None = Field(default=None, ge=1)
    """With how few ranks training goes on when machines are lost: those that are left start again from the newest
    checkpoint, and up to `workers` when machines come back. None waits for all. Training nodes under Ray only."""
    cpus: float = Field(default=1, gt=0)
    """CPUs of one worker."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of one worker."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that Ray reserves for one worker; None reserves nothing."""
    shards_per_task: int = Field(default=16, ge=1)
    """Short shards that one Ray task works through, each with a receipt of its own. Few shards are spread over all
    workers anyway; of many short ones, 16 a task cost two thirds of a plain Ray task each, and 8 as much as one."""
    shard_retries: int = Field(default=2, ge=0)
    """How often a shard that raised is tried again before it is quarantined."""
    infrastructure_retries: int = Field(default=8, ge=0)
    """How many lost workers (killed, preempted, out of memory) a node survives; not charged to its shards."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Sequences a rank holds at once; None takes what the global batch gives each of `workers`. Training nodes only."""
    shard_ranks: int | None = Field(default=None, ge=1)
    """Ranks that share one copy of weights and optimizer state (FSDP). With fewer than all, each such group holds a
    copy, gradients are added up over the groups, and weights are gathered within a group only (HSDP): give the GPUs
    that NVLink joins. None shares one copy among all. Training nodes only."""
    tokens_from_store: bool = False
    """Read training tokens from an object store as they are needed, instead of copying their shards to each machine
    first: for more tokens than a disk holds. Slow unless the spec's shuffle_run is above 1. Training nodes only."""

    @model_validator(mode="after")
    def _least_is_not_more(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is more than workers ({self.workers}): lower it, or raise workers"
            )
        return self
