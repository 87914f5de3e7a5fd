"""The graph while it runs: a live table in a terminal, one line an event where the output is piped."""

import threading
import time
from types import TracebackType

from rich.live import Live
from rich.table import Table

from flows.cli.show import console, duration, styled
from tasks.events import NodeEvent


class Board:
    """Listens to node events. Use as a context manager."""

    def __init__(self, states: dict[str, str], shown: bool):
        self._console = console()
        self._shown = shown
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._state = {name: "HIT" if state == "HIT" else "WAITING" for name, state in states.items()}
        self._text = dict.fromkeys(states, "")
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._note = ""

    def __enter__(self) -> "Board":
        if self._shown and self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        self._note = text
        self._line(text)

    def show(self, event: NodeEvent) -> None:
        with self._lock:
            before = self._state.get(event.node)
            self._state[event.node] = event.state
            now = time.monotonic()
            self._began.setdefault(event.node, now)
            if event.state != "RUNNING":
                self._took[event.node] = now - self._began[event.node]
            text = event.message.split("\n")[0] or progress_text(event, now - self._began[event.node])
            self._text[event.node] = text or self._text.get(event.node, "")
        if event.state != before:
            took = f" in {duration(self._took[event.node])}" if event.state in {"DONE", "FAILED"} else ""
            self._line(f"{event.node} {event.state}{took} {event.message}".rstrip())

    def _line(self, text: str) -> None:
        if self._shown and self._live is None:
            self._console.print(text, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", caption=self._note, caption_justify="left")
        for heading in ("node", "state", "time", ""):
            table.add_column(heading, justify="right" if heading == "time" else "left", no_wrap=True)
        with self._lock:
            for name, state in self._state.items():
                began = self._began.get(name)
                took = self._took.get(name, time.monotonic() - began if began else 0.0)
                shown = "" if state in {"HIT", "WAITING", "SKIPPED"} else duration(took)
                table.add_row(name, styled(state), shown, self._text.get(name, "").replace("[", "\\["))
        return table


def progress_text(event: NodeEvent, seconds: float) -> str:
    """412 of 2,000 shards, 31/s, 51 s left."""
    done, total = float(event.progress.get("done", 0)), float(event.progress.get("total", 0))
    if not total:
        return ""
    text = f"{done:,.0f} of {total:,.0f} {event.progress.get('unit', '')}"
    stage = event.progress.get("stage")
    if stage:
        text = f"{stage}: {text}"
    if 0 < done < total and seconds > 1:
        rate = done / seconds
        text += f", {rate:,.1f}/s, {duration((total - done) / rate)} left"
    return text
