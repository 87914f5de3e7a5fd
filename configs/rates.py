"""What work takes and costs: the benchmark table behind a plan's estimates, and prices.

`rates.yaml` holds both; the file that HEADRACE_PRICES names replaces any of its fields.
"""

import os
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

RATES = Path(__file__).parent / "rates.yaml"


class KindRate(BaseModel):
    """Of one kind of node."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    core_seconds_per_mb: float
    """Of the node's input, as stored."""
    output_ratio: float
    """Output bytes over input bytes, as stored."""


class Rates(BaseModel):
    """The fields of rates.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kinds: dict[str, KindRate]
    node_seconds: float
    """From submission to manifest, without any work."""
    core_flops: float
    gpu_flops: float
    archive_bytes: dict[str, float]
    archives_of_a_crawl: int
    core_hour: float
    """Dollars."""
    gpu_hour: float
    """Dollars."""

    def of_kind(self, kind: str) -> KindRate:
        return self.kinds.get(kind, KindRate(core_seconds_per_mb=1.0, output_ratio=1.0))


def read_rates() -> Rates:
    """Raises ValueError where HEADRACE_PRICES names no file or a field that there is not."""
    rates = yaml.safe_load(RATES.read_text())
    own = os.environ.get("HEADRACE_PRICES")
    if own:
        if not Path(own).is_file():
            raise ValueError(f"HEADRACE_PRICES names {own}, which is no file: name a YAML file, or unset it")
        rates.update(yaml.safe_load(Path(own).read_text()))
    return Rates.model_validate(rates)
