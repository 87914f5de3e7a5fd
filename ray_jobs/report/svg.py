"""Elements and scales that all charts are made of. Everything written is escaped here, once."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from ray_jobs.report.figures import compact, count, printable


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """`<name attribute="…">children</name>`; `class_` is class, `_` in other names is "-", and None leaves one out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(Markup(_attribute_name(key)), _attribute_value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def _attribute_name(key: str) -> str:
    return key if key in {"viewBox", "preserveAspectRatio"} else key.rstrip("_").replace("_", "-")


def _attribute_value(value: str | float) -> str:
    return printable(value) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A coordinate: two decimals are a fiftieth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def titled(shape: str, title: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element that says `title` when pointed at."""
    return element(shape, element("title", title), *children, **attributes)


class Scale:
    """Values to places: linear or logarithmic, with ticks at round numbers. A range of one value is widened."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        assert not log or low > 0, "a logarithmic scale begins above 0"
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        self._of: Callable[[float], float] = math.log10 if log else float
        self.low, self.high, self.log = low, high, log
        self._start, self._slope = start, (end - start) / (self._of(high) - self._of(low))

    def __call__(self, value: float) -> float:
        return self._start + (self._of(value) - self._of(self.low)) * self._slope

    def ticks(self, most: int) -> list[float]:
        return log_ticks(self.low, self.high, most) if self.log else linear_ticks(self.low, self.high, most)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            break
    digits = max(0, -math.floor(math.log10(step * factor)))
    return [round(place * step * factor, digits) for place in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with their doubles and fives where there is room."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [d * 10.0**power for power in powers for d in digits if low <= d * 10.0**power <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Equal precision for all, as an axis wants it."""
    if any(abs(tick) >= 10_000 for tick in ticks):
        short = [compact(tick) for tick in ticks]
        return short if len(set(short)) == len(ticks) else [count(tick) for tick in ticks]
    digits = max((len(f"{tick:.6f}".rstrip("0").split(".")[1]) for tick in ticks), default=0)
    if digits >= 5:
        return [f"{tick:.1e}".replace("e-0", "e-") if tick else "0" for tick in ticks]
    return [f"{tick:,.{digits}f}" for tick in ticks]
