"""What to train with a given compute: the best size and tokens, smaller models trained longer, hours and money."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from configs.devices import PEAK_FLOPS
from configs.scaling import FLOPS_PER_PARAMETER_TOKEN, ScalingLaw, parse_law
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import open_store

# Sizes below the best one, as shares of it.
SHARES = (0.75, 0.5, 0.35, 0.25, 0.125)


@dataclass(frozen=True)
class Machines:
    """The GPUs that train."""

    gpu: str
    num_gpus: int
    mfu: float
    """Share of the peak that 6·N·D takes. A training's own MFU counts attention as well, and is higher by its share."""
    price: float
    """Dollars an hour of one GPU."""

    @property
    def flops(self) -> float:
        """FLOP/s of all GPUs together."""
        return self.num_gpus * peak_of(self.gpu) * self.mfu

    def check(self) -> None:
        """Raises ValueError where the machines cannot be."""
        peak_of(self.gpu)
        if self.num_gpus < 1:
            raise ValueError(f"--gpus is {self.num_gpus}: give 1 or more")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"--mfu is {self.mfu:g}: give a share between 0 and 1, such as 0.4")
        if not 0 <= self.price < float("inf"):
            raise ValueError(f"--price is {self.price:g}: give dollars an hour of one GPU")


@dataclass(frozen=True)
class Training:
    """One choice of size and tokens."""

    parameters: float
    tokens: float
    loss: float
    """As the law predicts, in nats a token."""
    flops: float
    steps: int
    hours: float
    dollars: float

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


@dataclass(frozen=True)
class Alternative:
    """A model smaller than the best one, for which serving costs less."""

    share: float
    """Of the best size."""
    same_compute: Training
    same_loss: Training | None
    """Trained on until it is as good as the best one; None where no number of tokens does that."""


@dataclass(frozen=True)
class ComputePlan:
    best: Training
    alternatives: tuple[Alternative, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def law_at(place: str) -> ScalingLaw:
    """The law of a scaling node, by the URL or path of its checkpoint (…/nodes/scaling/KEY); or of a JSON file.

    Raises:
        ValueError: there is no such file, or it holds no law.
        FileNotFoundError: the store has no such checkpoint.
    """
    root, named, rest = place.partition("/nodes/scaling/")
    if named:
        checkpoint = Checkpoint.open(open_store(root), "scaling", rest.split("/")[0])
        return parse_law(checkpoint.read(checkpoint.file("law.json")), place)
    if not Path(place).is_file():
        raise ValueError(
            f"--fit {place} is no file: name a law.json or a scaling node's checkpoint (…/nodes/scaling/KEY), or leave "
            "--fit out for published constants"
        )
    return parse_law(Path(place).read_bytes(), place)


def peak_of(gpu: str) -> float:
    """Its dense bf16 peak in FLOP/s. Raises ValueError for a GPU that is not in the table."""
    peaks = {name.lower(): peak for name, peak in PEAK_FLOPS.items()}
    if gpu.lower() not in peaks:
        raise ValueError(f"--gpu {gpu} is not known: choose of {', '.join(sorted(peaks))}")
    return peaks[gpu.lower()]


def hours_until(deadline: datetime, now: datetime) -> float:
    """Raises ValueError where the deadline is past."""
    hours = (deadline - now).total_seconds() / 3600
    if hours <= 0:
        raise ValueError(f"--deadline {deadline:%Y-%m-%d %H:%M} is past: give a moment to come")
    return hours


def plan_compute(law: ScalingLaw, flops: float, machines: Machines, batch_tokens: int) -> ComputePlan:
    """The size and tokens of the least loss for 6·N·D = flops, and smaller models beside it.

    Raises:
        ValueError: there is no compute, or it is less than a step takes.
    """
    machines.check()
    if not 0 < flops < float("inf"):
        raise ValueError(f"the compute is {flops:g} FLOPs: give more than none by --flops, or by --hours and --gpus")
    if batch_tokens < 1:
        raise ValueError(f"--batch-tokens is {batch_tokens}: give 1 or more")
    parameters, tokens = law.optimum(flops)
    if parameters < 1 or tokens < batch_tokens:
        raise ValueError(
            f"{flops:g} FLOPs train on {tokens:,.0f} tokens, less than one batch of {batch_tokens:,}: "
            "give more compute, or lower --batch-tokens"
        )

    def training(size: float, num_tokens: float) -> Training:
        work = FLOPS_PER_PARAMETER_TOKEN * size * num_tokens
        hours = work / machines.flops / 3600
        steps = max(1, round(num_tokens / batch_tokens))
        dollars = hours * machines.num_gpus * machines.price
        return Training(size, num_tokens, law.loss(size, num_tokens), work, steps, hours, dollars)

    best = training(parameters, tokens)
    alternatives = []
    for share in SHARES:
        longer = law.tokens_for(parameters * share, best.loss)
        alternatives.append(
            Alternative(
                share,
                training(parameters * share, tokens / share),
                training(parameters * share, longer) if longer is not None else None,
            )
        )
    return ComputePlan(best, tuple(alternatives))
