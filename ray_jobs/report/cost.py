"""What nodes cost: core- and GPU-hours at the prices of configs/rates.yaml."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.report.nodes import Node

RATES = Path(__file__).parents[2] / "configs" / "rates.yaml"


@dataclass(frozen=True)
class Prices:
    """Dollars an hour."""

    core_hour: float
    gpu_hour: float

    def of(self, node: Node) -> float:
        manifest = node.manifest
        return (manifest.cpu_seconds * self.core_hour + manifest.gpu_seconds * self.gpu_hour) / 3600


def read_prices() -> Prices:
    """List prices, or those of the file that HEADRACE_PRICES names."""
    rates: dict[str, Any] = yaml.safe_load(RATES.read_text())
    own = os.environ.get("HEADRACE_PRICES")
    if own:
        rates.update(yaml.safe_load(Path(own).read_text()))
    return Prices(float(rates["core_hour"]), float(rates["gpu_hour"]))
