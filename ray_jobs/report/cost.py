"""What a node cost: its core- and GPU-hours at the prices of configs/rates.yaml."""

from configs.rates import Rates
from ray_jobs.report.nodes import Node


def dollars_of(node: Node, prices: Rates) -> float:
    manifest = node.manifest
    return (manifest.cpu_seconds * prices.core_hour + manifest.gpu_seconds * prices.gpu_hour) / 3600
