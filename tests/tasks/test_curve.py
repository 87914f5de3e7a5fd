"""Curves as they stand in a store, and what TensorBoard, MLflow and W&B make of them."""

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from ray_jobs.checkpoint.curve import standing_curve
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.runs import begin_run
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.output import MetricsLog
from tasks.curve import CurveWriter, curve_nodes, feed, numbers_of
from tasks.curve_writers import MLflow, TensorBoard, WeightsAndBiases
from tests.pretrain.corpus import publish

PATH = NodePath("pretrain", "ab" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def line(step: int, loss: float | None = None, **more: Any) -> dict[str, Any]:
    domains = {"docs.example.org": 1.5 - step / 1000, "others": 1.25}
    measured = {"heldout_bits_per_byte_by_domain": domains} if step % 20 == 0 else {}
    return {"step": step, "loss": loss or 5 - step / 100, "time": 1.7e9 + step, **measured, **more}


class Training:
    """Sessions that write lines and checkpoints as training does, without training."""

    def __init__(self, store: Store):
        self.store = store
        self.segments: list[dict[str, Any]] = []
        self.begin("first", 0)

    def begin(self, session: str, step: int) -> None:
        self.session, self.first = session, step
        self.log = MetricsLog(self.store, PATH, session)

    def lines(self, *lines: dict[str, Any]) -> None:
        for one in lines:
            self.log.add(one)
        self.log.flush()

    def checkpoint(self, step: int) -> None:
        segments = [*self.segments, {"session": self.session, "first": self.first, "last": step}]
        receipt = {"step": step, "session": self.session, "state": {"segments": segments}}
        self.store.create(f"{PATH.receipts('steps')}{step:08d}.json", json.dumps(receipt).encode())

    def dies_and_goes_on(self, session: str, step: int) -> None:
        self.segments.append({"session": self.session, "first": self.first, "last": step})
        time.sleep(0.02)  # files are told apart by the clock's ticks
        self.begin(session, step)

    def finish(self) -> list[dict[str, Any]]:
        lines = standing_curve(self.store, PATH).lines
        data = "".join(json.dumps(one) + "\n" for one in lines).encode()
        made = publish(self.store, "pretrain", {"model": {"metrics.jsonl": data}})
        manifest = made.manifest.model_copy(update={"key": PATH.key, "outputs": self.moved(made, data)})
        self.store.create(PATH.manifest, manifest.to_json())
        return list(lines)

    def moved(self, made: Any, data: bytes) -> tuple[Any, ...]:
        where = PATH.data("model", 0, "test", "0", "metrics.jsonl")
        self.store.put(where, data)
        return (made.manifest.outputs[0].model_copy(update={"path": where}),)


def steps(store: Store) -> list[int]:
    return [one["step"] for one in standing_curve(store, PATH).lines]


def test_a_curve_is_that_of_the_newest_checkpoint_and_what_was_written_since(store: Store) -> None:
    assert standing_curve(store, PATH).lines == ()
    training = Training(store)
    training.lines(line(10), line(20))
    assert (steps(store), standing_curve(store, PATH).sure) == ([10, 20], 0)
    training.checkpoint(20)
    training.lines(line(30), line(40))
    assert (steps(store), standing_curve(store, PATH).sure) == ([10, 20, 30, 40], 20)
    training.dies_and_goes_on("second", 20)
    training.lines(line(30, 9.0))
    curve = standing_curve(store, PATH)
    assert [(one["step"], one["loss"]) for one in curve.lines] == [(10, 4.9), (20, 4.8), (30, 9.0)]
    training.lines(line(40, 8.0))
    training.checkpoint(40)
    assert not standing_curve(store, PATH).finished
    whole = training.finish()
    assert [one["loss"] for one in whole] == [4.9, 4.8, 9.0, 8.0]
    curve = standing_curve(store, PATH)
    assert (list(curve.lines), curve.sure, curve.finished) == (whole, 40, True)


def test_figures_within_figures_are_named_by_both_and_words_are_left_out() -> None:
    numbers = numbers_of({"step": 3, "time": 1.0, "loss": 2, "by": {"a": 1.5, "b": {"c": 2}}, "why": "x", "on": True})
    assert numbers == {"loss": 2, "by/a": 1.5, "by/b/c": 2}
    layers = numbers_of({"entropy": [0.5] * 11, "told": ["spike"]})
    assert list(layers) == [f"entropy/{layer:02d}" for layer in range(11)]


def events_in(file: Path) -> Iterator[Any]:
    """The records of an event file: length, its checksum, the event, its checksum."""
    from tensorboardX.proto import event_pb2

    data, place = file.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def by_format(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """What the files hold by the rule that a START event withdraws all of its step and later."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for file in sorted(folder.iterdir()):
        for event in events_in(file):
            if event.HasField("session_log"):
                found = {tag: [one for one in points if one[0] < event.step] for tag, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    return found


def by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = module.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def expected_of(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any, float]]]:
    expected: dict[str, list[tuple[int, Any, float]]] = {}
    for one in lines:
        for name, value in numbers_of(one).items():
            expected.setdefault(name, []).append((one["step"], pytest.approx(value, rel=1e-6), one["time"]))  # fp32
    return expected


class Sleep:
    """In place of waiting, lets training go on by one of its acts."""

    def __init__(self, *acts: Callable[[], Any]):
        self.acts = list(acts)

    def __call__(self, seconds: float) -> None:
        self.acts.pop(0)()


@pytest.mark.parametrize("read", [by_format, by_tensorboard])
def test_tensorboard_shows_the_lines_of_a_training_that_died_and_went_on(
    store: Store, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    training = Training(store)
    training.lines(line(10), line(20))
    training.checkpoint(20)
    training.lines(line(30), line(40))
    writer = TensorBoard(tmp_path / "board", PATH)
    seen: list[Any] = []
    going_on = Sleep(
        lambda: seen.append(read(writer.folder)),
        lambda: training.dies_and_goes_on("second", 20),
        lambda: training.lines(line(30, 9.0)),
        lambda: seen.append(read(writer.folder)),
        lambda: training.lines(line(40, 8.0), line(50)),
        training.finish,
    )
    feed(store, PATH, writer, follow=True, sleep=going_on)
    lines = [line(10), line(20), line(30, 9.0), line(40, 8.0), line(50)]
    assert [step for step, _, _ in seen[0]["loss"]] == [10, 20, 30, 40]  # live, before a checkpoint made it sure
    assert [step for step, _, _ in seen[1]["loss"]] == [10, 20, 30]
    assert read(writer.folder) == expected_of(lines)
    # Once more into the same folder: nothing is there twice.
    feed(store, PATH, TensorBoard(tmp_path / "board", PATH), follow=False)
    assert read(writer.folder) == expected_of(lines)
    assert [file.name for file in (tmp_path / "board").iterdir()] == ["pretrain-" + "ab" * 8]


class Memory:
    """A writer that cannot take back, and finds what an earlier one wrote."""

    takes_back = False

    def __init__(self, written: list[dict[str, Any]]):
        self.written, self.finished = written, False

    def last_step(self) -> int:
        return self.written[-1]["step"] if self.written else 0

    def add(self, one: dict[str, Any]) -> None:
        self.written.append(one)

    def take_back(self, step: int) -> None:
        raise AssertionError

    def flush(self) -> None: ...

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None: ...


def test_a_writer_that_cannot_take_back_is_told_only_what_is_sure_and_each_step_once(store: Store) -> None:
    training = Training(store)
    written: list[dict[str, Any]] = []
    training.lines(line(10), line(20), line(30, 7.0))
    feed(store, PATH, Memory(written), follow=False)
    assert written == []
    training.checkpoint(20)
    feed(store, PATH, Memory(written), follow=False)
    assert written == [line(10), line(20)]
    training.dies_and_goes_on("second", 20)
    training.lines(line(30), line(40))
    training.checkpoint(40)
    feed(store, PATH, Memory(written), follow=False)
    training.finish()
    last = Memory(written)
    feed(store, PATH, last, follow=True, sleep=Sleep())
    assert written == [line(10), line(20), line(30), line(40)]
    assert last.finished


def trained(store: Store) -> tuple[Training, list[dict[str, Any]]]:
    training = Training(store)
    training.lines(line(10), line(20))
    training.checkpoint(20)
    training.dies_and_goes_on("second", 20)
    training.lines(line(30), line(40), line(50))
    training.checkpoint(40)
    return training, [line(10), line(20), line(30), line(40), line(50)]


def test_mlflow_holds_the_lines_each_step_once_and_the_spec(store: Store, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    training, lines = trained(store)
    folder = str(tmp_path / "mlflow")
    spec = {"model.hidden": 128, "steps": 50}

    def write() -> MLflow:
        writer: CurveWriter = MLflow(folder, PATH, spec)
        feed(store, PATH, writer, follow=False)
        return writer  # type: ignore[return-value]

    def read(run: str, name: str) -> list[tuple[int, float, int]]:
        history = client.get_metric_history(run, name)
        return sorted((point.step, point.value, point.timestamp) for point in history)

    first = write()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    assert [step for step, _, _ in read(first.run, "loss")] == [10, 20, 30, 40]
    training.finish()
    second = write()
    assert second.run == first.run
    for name, points in expected_of(lines).items():
        assert read(first.run, name) == [(step, value, int(1000 * at)) for step, value, at in points], name
    run = client.get_run(first.run)
    assert run.data.params == {"model.hidden": "128", "steps": "50"}
    assert run.info.status == "FINISHED"


def wandb_records(file: Path) -> Iterator[bytes]:
    """LevelDB's log format behind a header of 7 bytes: blocks of 32 KiB with parts of records."""
    data, place, record = file.read_bytes(), 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or its last part
            yield record
            record = b""


def test_wandb_takes_the_lines_offline(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    training, lines = trained(store)
    training.finish()
    feed(store, PATH, WeightsAndBiases(tmp_path / "wandb-folder", PATH, {"steps": 50}), follow=False)
    (file,) = (tmp_path / "wandb-folder").rglob("*.wandb")
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 20
    while len(found) < len(lines) and time.monotonic() < deadline:  # its own process writes it
        time.sleep(0.1)
        records = [wandb_internal_pb2.Record.FromString(data) for data in wandb_records(file)]
        histories = [record.history.item for record in records if record.HasField("history")]
        found = [{"/".join(one.nested_key): json.loads(one.value_json) for one in items} for items in histories]
    assert [row["_step"] for row in found] == [one["step"] for one in lines]
    for row, one in zip(found, lines, strict=True):
        assert {name: row[name] for name in numbers_of(one)} == numbers_of(one)


@pytest.mark.parametrize("target", ["mlflow", "wandb"])
def test_without_the_extra_it_says_how_to_install_it(
    target: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, target, None)
    trained(store)
    result = CliRunner().invoke(app, ["curve", f"pretrain@{PATH.key}", "--to", target, "--store", store.url])
    assert isinstance(result.exception, ValueError)
    assert f"pip install 'headrace[{target}]'" in str(result.exception)


def test_a_curve_is_named_by_its_node_or_by_a_run_that_is_under_way(store: Store) -> None:
    assert curve_nodes(store, "pretrain@" + "ab" * 8) == [NodePath("pretrain", "ab" * 8)]
    begin_run(store, "20261128-060000-demo-3f2a", [PATH.root, "nodes/tokens/" + "cd" * 8])
    for name in ("last", "20261128-06"):
        assert curve_nodes(store, name) == [NodePath("pretrain", "ab" * 8)]
    with pytest.raises(ValueError, match="runs called 'x': name one of"):
        curve_nodes(store, "x")
    begin_run(store, "20261128-070000-demo-3f2a", ["nodes/tokens/" + "cd" * 8])
    with pytest.raises(ValueError, match=r"has no node that leaves a curve .pretrain."):
        curve_nodes(store, "last")


def test_the_command_shows_the_curve_and_feeds_tensorboard(store: Store, tmp_path: Path) -> None:
    trained(store)
    asked = ["curve", f"pretrain@{PATH.key}", "--store", store.url]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0 and "under way, 5 lines" in shown.output and "4.6" in shown.output
    as_json = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert [one["step"] for one in as_json[f"pretrain@{PATH.key[:16]}"]] == [10, 20, 30, 40, 50]
    fed = CliRunner().invoke(app, [*asked, "--to", "tensorboard", "--out", str(tmp_path / "board")])
    assert fed.exit_code == 0 and "5 lines written, step 50 so far" in fed.output
    assert f"tensorboard --logdir {tmp_path / 'board'}" in fed.output.replace("\n", "")
    wrong = CliRunner().invoke(app, [*asked, "--to", "excel"])
    assert str(wrong.exception) == "--to 'excel': there are tensorboard, mlflow and wandb"
