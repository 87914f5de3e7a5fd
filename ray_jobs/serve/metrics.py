"""What a server counts, as Prometheus reads it."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

# Seconds, from what a small model takes on a GPU to what a client waits for at most.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Of one engine and the requests to it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "headrace_requests", "HTTP requests, by path and status", ("path", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "headrace_request_seconds",
            "From a request to the last byte of its answer",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter("headrace_prompt_tokens", "Tokens of accepted prompts", registry=registry)
        self.written_tokens = Counter("headrace_written_tokens", "Tokens of answers", registry=registry)
        self.answers = Counter(
            "headrace_answers",
            "Answers that are over, by their reason: stop, length, cancelled",
            ("reason",),
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            "headrace_time_to_first_token_seconds",
            "From acceptance to the first token, waiting included",
            buckets=SECONDS,
            registry=registry,
        )
        self.token_seconds = Histogram(
            "headrace_time_per_token_seconds",
            "Of an answer, the mean time between its tokens",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )

    def watch(self, gauges: dict[str, tuple[str, Callable[[], float]]], preempted: Callable[[], float]) -> None:
        """Figures of the engine, read when they are asked for. gauges: name → what it says, and its value now."""
        for name, (said, value) in gauges.items():
            Gauge(f"headrace_{name}", said, registry=self.registry).set_function(value)
        self.registry.register(_Preemptions(preempted))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Preemptions(Collector):
    """The engine counts them itself."""

    def __init__(self, value: Callable[[], float]):
        self._value = value

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "headrace_preemptions", "Running answers that gave their blocks up and waited again", value=self._value()
        )


def merged(texts: Sequence[tuple[str, bytes]]) -> bytes:
    """What several replicas told, each figure with its replica's label. texts: a replica's name and `Metrics.text`."""
    families: dict[str, Metric] = {}
    for replica, text in texts:
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
    registry = CollectorRegistry()
    registry.register(_Families(list(families.values())))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]):
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
