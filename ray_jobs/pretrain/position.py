"""Where a training stands: all that it resumes from, apart from tensors."""

from dataclasses import asdict, dataclass, field
from typing import Any

from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.curve import Segment
from ray_jobs.pretrain.curve import segments_of
from ray_jobs.pretrain.meter import Interval
from ray_jobs.pretrain.spikes import SpikeState, batch_of
from ray_jobs.pretrain.steps import StepReceipt


@dataclass
class Position:
    """JSON in a step's receipt."""

    step: int = 0
    interval: Interval = field(default_factory=Interval)
    segments: tuple[Segment, ...] = ()
    spikes: SpikeState = field(default_factory=SpikeState)

    @property
    def batch(self) -> int:
        """The global batch that the next step trains on."""
        return batch_of(self.step, self.spikes.holes)

    def to_state(self, spec: PretrainSpec, session: str) -> dict[str, Any]:
        before = self.segments
        if before and before[-1].session == session:  # which went back from a loss spike
            first, before = before[-1].first, before[:-1]
        else:
            first = before[-1].last if before else 0
        segments = (*before, Segment(session, first, self.step))
        return {
            "interval": asdict(self.interval),
            "segments": [asdict(segment) for segment in segments],
            "spikes": self.spikes.to_state(),
            # Both follow from the others and the spec; written for whoever reads the receipt.
            "next_sample": self.batch * spec.global_batch,
            "seed": spec.seed,
        }

    @classmethod
    def of_receipt(cls, receipt: StepReceipt) -> "Position":
        state = receipt.state
        spikes = SpikeState.of_state(state["spikes"])
        return cls(receipt.step, Interval(**state["interval"]), segments_of(receipt), spikes)
