"""What a plan's nodes will take: time, core- and GPU-hours, money; from earlier checkpoints, or the benchmark table."""

from dataclasses import dataclass

from configs.crawl import CrawlSource
from configs.rates import Rates, read_rates
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.store import Store
from tasks.node import task_of
from tasks.plan import HIT, Plan, PlannedNode

# Enough to smooth one odd run; each costs a read of its manifest and of its inputs'.
NUM_EARLIER = 3
# A checkpoint says little of one a hundred times its size, where other costs than its fixed ones count.
FARTHEST = 30.0


@dataclass(frozen=True)
class Estimate:
    seconds: float
    core_hours: float
    gpu_hours: float
    dollars: float
    output_bytes: float
    basis: str


def estimate(plan: Plan) -> dict[str, Estimate]:
    """For every node that is to run."""
    rates = read_rates()
    output_bytes: dict[str, float] = {}
    estimates = {}
    for name, node in plan.nodes.items():
        if node.manifest is not None and node.state == HIT:
            output_bytes[name] = stored_bytes(node.manifest)
            continue
        inputs = sum(output_bytes[upstream] for upstream in set(node.recipe_node.inputs.values()))
        if not node.recipe_node.inputs:
            inputs = _pinned_bytes(node, rates)
        estimates[name] = _estimate(plan.store, node, inputs, rates)
        output_bytes[name] = estimates[name].output_bytes
    return estimates


def stored_bytes(manifest: Manifest) -> float:
    return sum(file.bytes for file in manifest.outputs) or float(manifest.metrics.get("archive_bytes", 0))


def _estimate(store: Store, node: PlannedNode, input_bytes: float, rates: Rates) -> Estimate:
    resources, task = node.recipe_node.resources, task_of(node.kind)
    flops, read_bytes = task.flops, task.reads(node.spec, input_bytes)
    earlier = [
        (manifest, size)
        for manifest, size in _earlier(store, node.kind)
        if size / FARTHEST <= max(read_bytes, 1.0) <= size * FARTHEST
    ]
    gpu_seconds = 0.0
    if earlier:
        basis = f"{len(earlier)} earlier {node.kind} checkpoint{'s' if len(earlier) > 1 else ''}"
        ratio = _median([stored_bytes(manifest) / size for manifest, size in earlier])
    else:
        basis = "benchmark table"
        ratio = rates.of_kind(node.kind).output_ratio
    if flops is not None:
        work = flops(node.spec)
        before = [(flops_of(manifest, node), manifest) for manifest, _ in earlier]
        per_flop = [manifest.cpu_seconds / done for done, manifest in before if done]
        if resources.gpus:
            gpu_seconds = work / rates.gpu_flops
            core_seconds = gpu_seconds * resources.cpus / resources.gpus
            basis = "benchmark table"
        else:
            core_seconds = work * (_median(per_flop) if per_flop else 1 / rates.core_flops)
    elif earlier:
        core_seconds = read_bytes * _median([manifest.cpu_seconds / size for manifest, size in earlier])
    else:
        core_seconds = read_bytes / 1e6 * rates.of_kind(node.kind).core_seconds_per_mb
    width = resources.workers * max(resources.cpus, 1)
    busy = gpu_seconds / (resources.workers * resources.gpus) if gpu_seconds else core_seconds / width
    dollars = core_seconds / 3600 * rates.core_hour + gpu_seconds / 3600 * rates.gpu_hour
    return Estimate(
        seconds=rates.node_seconds + busy,
        core_hours=core_seconds / 3600,
        gpu_hours=gpu_seconds / 3600,
        dollars=dollars,
        output_bytes=input_bytes * ratio,
        basis=basis,
    )


def flops_of(manifest: Manifest, node: PlannedNode) -> float:
    """The operations that an earlier checkpoint of the same kind took, by the spec that stands in it."""
    flops = task_of(node.kind).flops
    assert flops is not None
    return flops(node.recipe_node.kind.spec.model_validate(manifest.payload["spec"]))


def _earlier(store: Store, kind: str) -> list[tuple[Manifest, float]]:
    """Some earlier manifests of this kind, each with its input bytes."""
    found = []
    for key in store.folders(f"nodes/{kind}/")[:NUM_EARLIER]:
        try:
            manifest = read_manifest(store, NodePath(kind, key))
        except ValueError:  # damaged, or of a newer format: no basis for an estimate; `headrace verify` names it
            continue
        if manifest is None:
            continue
        size = 0.0
        for upstream in manifest.inputs.values():
            read = read_manifest(store, NodePath(upstream.node, upstream.key))
            size += stored_bytes(read) if read else 0.0
        size = size or stored_bytes(manifest)
        if size:
            found.append((manifest, size))
    return found


def _pinned_bytes(node: PlannedNode, rates: Rates) -> float:
    """What the pinned listing says that the crawl weighs; unpinned, by the average archive; generated, by the page."""
    if isinstance(node.spec, CrawlSource):
        crawl = node.spec.common_crawl
        if crawl is None:
            return 0.0
        return (crawl.num_files or rates.archives_of_a_crawl) * rates.archive_bytes[crawl.format]
    spec = node.payload["spec"]
    parts = [spec, spec.get("content", {}), *spec.get("sets", [])]
    lists = [part["files"] for part in parts if isinstance(part.get("files"), list)]  # unpinned, it is what was written
    pinned = sum(file["size"] for files in lists for file in files)
    generated = ("num_operations", "num_docstring_pages", "num_modules", "num_questions")
    return float(pinned) or 4000.0 * sum(part.get(name, 0) for part in parts for name in generated)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
