"""Loss spikes: how one is told from noise, what is gone back to, and which data are passed over.

PaLM (Chowdhery et al. 2022, section 5.1) went back about 100 steps and skipped the batches around a spike, which did
not come again, as it did not when those batches were trained on from another checkpoint: it takes a state of the model
and these data. All here is a function of the training's own numbers, which every rank has, and is JSON in a checkpoint:
so ranks decide alike without asking one another, and a resumed training decides as the uninterrupted one. Free of
torch.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from configs.pretrain import SpikeSpec

MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution: 1/Φ⁻¹(3/4)."""
LEAST_SPREAD = {"loss": 0.005, "gradient norm": 0.05}
"""The least standard deviation that is believed, as a share of the median: a window may be smoother by chance."""
LEAST_HISTORY = 32
"""Steps before anything counts as a spike: a median over fewer says little, and the first steps are steep."""


@dataclass(frozen=True)
class Hole:
    """Global batches of the data's order that are not trained on."""

    first: int
    count: int


@dataclass(frozen=True)
class Spike:
    """What was seen, and what was done."""

    step: int
    """The first that deviated, counted from 0 as its batch is."""
    found: int
    """The step at which that had lasted long enough."""
    kind: str
    """"loss", "gradient norm" or "not a number"."""
    value: float | None
    """None where it is no number."""
    median: float
    """Of the window before."""
    back_to: int | None = None
    """The step of the checkpoint that training went back to; None where it went on."""
    skipped: tuple[Hole, ...] = ()
    """Batches that are passed over since then."""

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Spike":
        return cls(**{**state, "skipped": tuple(Hole(**hole) for hole in state["skipped"])})

    def gone_back(self, step: int, hole: Hole) -> "Spike":
        return replace(self, back_to=step, skipped=(hole,))

    def __str__(self) -> str:
        value = "no number" if self.value is None else f"{self.value:.4g}"
        said = f"step {self.step}: {self.kind} {value}, where {self.median:.4g} was usual"
        if self.back_to is None:
            return said
        holes = ", ".join(f"{hole.first} to {hole.first + hole.count - 1}" for hole in self.skipped)
        return f"{said}; back to step {self.back_to}, past the batches {holes}"


@dataclass
class Window:
    """The last steps, by which the next is judged. JSON in a checkpoint."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    deviating: int = 0
    """Steps in a row up to the last that deviated."""
    since: str = ""
    """The kind by which the first of them did."""
    value: float | None = None
    """Of the first of them."""
    median: float = 0.0
    """Before the first of them."""

    def add(self, spec: SpikeSpec, step: int, loss: float, norm: float) -> Spike | None:
        """Takes the step in, and returns the spike that has lasted `spec.lasting` steps with it, each only once; or the
        one of a step that is no number."""
        kind, value, median = self._judge(spec, loss, norm)
        self.deviating = self.deviating + 1 if kind else 0
        if self.deviating == 1:
            self.since, self.value, self.median = kind, value, median
        if kind == "not a number":
            return Spike(step - self.deviating + 1, step, kind, None, median)
        self.losses = [*self.losses, loss][-spec.window :]
        self.norms = [*self.norms, norm][-spec.window :]
        if self.deviating != spec.lasting:
            return None
        return Spike(step - self.deviating + 1, step, self.since, self.value, self.median)

    def _judge(self, spec: SpikeSpec, loss: float, norm: float) -> tuple[str, float | None, float]:
        """The kind by which a step deviates, "" where it does not, its value, and the usual one."""
        usual = statistics.median(self.losses) if self.losses else 0.0
        if not math.isfinite(loss + norm):
            return "not a number", None, usual
        if len(self.losses) < LEAST_HISTORY:
            return "", loss, usual
        if loss > usual + spec.loss_deviations * _spread(self.losses, usual, "loss"):
            return "loss", loss, usual
        usual = statistics.median(self.norms)
        if norm > usual + spec.norm_deviations * _spread(self.norms, usual, "gradient norm"):
            return "gradient norm", norm, usual
        return "", loss, usual


def _spread(values: Sequence[float], median: float, kind: str) -> float:
    """Standard deviation by the median absolute deviation, which outliers do not move (Hampel 1974)."""
    deviation = MAD_TO_DEVIATION * statistics.median(abs(value - median) for value in values)
    return max(deviation, LEAST_SPREAD[kind] * abs(median))


@dataclass
class SpikeState:
    """All that a training knows of its spikes. JSON in a checkpoint."""

    window: Window = field(default_factory=Window)
    spikes: list[Spike] = field(default_factory=list)

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "SpikeState":
        return cls(Window(**state["window"]), [Spike.of_state(spike) for spike in state["spikes"]])

    def to_state(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def holes(self) -> list[Hole]:
        """In order, none touching another."""
        merged: list[Hole] = []
        for hole in sorted((hole for spike in self.spikes for hole in spike.skipped), key=lambda hole: hole.first):
            if merged and hole.first <= merged[-1].first + merged[-1].count:
                last = max(merged[-1].first + merged[-1].count, hole.first + hole.count)
                merged[-1] = Hole(merged[-1].first, last - merged[-1].first)
            else:
                merged.append(hole)
        return merged

    @property
    def num_rollbacks(self) -> int:
        return sum(spike.back_to is not None for spike in self.spikes)


def batch_of(step: int, holes: Sequence[Hole]) -> int:
    """The global batch that a step trains on: the step's own, but for the holes before it (`SpikeState.holes`)."""
    batch = step
    for hole in holes:
        if batch >= hole.first:
            batch += hole.count
    return batch


def batches_between(first: int, last: int, holes: Sequence[Hole]) -> Iterator[int]:
    """The global batches of the steps first … last − 1."""
    return (batch_of(step, holes) for step in range(first, last))


def hole_of(spec: SpikeSpec, spike: Spike, target: int, holes: Sequence[Hole]) -> Hole:
    """What to pass over after going back to step `target`: from `skip_before` batches before the spike's first, or the
    target's, to `skip_after` behind the one at which it was found."""
    first = batch_of(max(target, spike.step - spec.skip_before), holes)
    last = batch_of(spike.found, holes) + spec.skip_after
    return Hole(first, last - first + 1)


def newest_target(spec: SpikeSpec, spike: Spike, checkpoint_every: int) -> int:
    """The step to go back to: of those that have a checkpoint by plan, the newest that lies `rollback_steps` before the
    spike; 0 is the beginning. Others, such as one that a preemption made, are passed over, as an uninterrupted training
    would not have them."""
    return max(0, spike.step - spec.rollback_steps) // checkpoint_every * checkpoint_every
