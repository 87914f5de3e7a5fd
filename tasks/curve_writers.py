"""TensorBoard, MLflow and W&B as readers of a curve. Each is imported where it is asked for."""

import importlib
import os
import time
from pathlib import Path
from typing import Any

from ray_jobs.checkpoint.curve import Line
from ray_jobs.checkpoint.layout import NodePath
from tasks.curve import CurveWriter, numbers_of

PROJECT = "headrace"
"""The experiment of MLflow, the project of W&B, where nobody says."""
EVENTS = "events.out.tfevents.*"
BATCH = 1000
"""Metrics that an MLflow server takes in one request."""
PARAMETER_CHARACTERS = 6000
"""MLflow's limit of a value."""


class TensorBoard:
    """Event files in a folder of the node's own, to be shown by `tensorboard --logdir` of the folder above.

    The curve is written anew each time: it takes seconds, and what an earlier writer left there is replaced. What is
    taken back is marked as TensorBoard does it for a training that restarts (a START event, before which it forgets all
    of that step and later).
    """

    takes_back = True

    def __init__(self, folder: Path, path: NodePath):
        self.folder = folder / name_of(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob(EVENTS):
            old.unlink()
        self._files = 0
        self._open(0)  # a TensorBoard that has the old files open still holds their steps: these too begin anew

    def _open(self, step: int) -> None:
        # The part of tensorboardX that writes at once: its SummaryWriter's flush leaves events in a queue.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        # Files are read by the order of their names, which begin with the second.
        self._events: Any = EventsWriter(str(self.folder / "events"), f".{self._files:06d}")
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._events.write_event(Event(step=step, wall_time=time.time(), session_log=start))
        self._files += 1

    def last_step(self) -> int:
        return 0

    def add(self, line: Line) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers_of(line).items()]
        at = line.get("time", time.time())
        self._events.write_event(Event(step=line["step"], wall_time=at, summary=Summary(value=values)))

    def take_back(self, step: int) -> None:
        self._events.close()
        self._open(step)

    def flush(self) -> None:
        self._events.flush()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._events.close()


class MLflow:
    """A run of an experiment, found again by the node's key; what stands there is gone on with.

    MLflow keeps every value that a step was ever given, so it is told only what a checkpoint made sure, and each step
    once: steps that training takes again after a loss spike keep what they were first.
    """

    takes_back = False

    def __init__(self, address: str | None, path: NodePath, spec: dict[str, Any]):
        """`address`: a tracking server, or a folder, which gets a database; None is MLFLOW_TRACKING_URI, or MLflow's
        own default."""
        mlflow = _imported("mlflow", "mlflow")
        if address is not None and "://" not in address:
            Path(address).mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{Path(address).absolute() / 'mlflow.db'}"
        self._client: Any = mlflow.MlflowClient(tracking_uri=address)
        self._metric, self._param = mlflow.entities.Metric, mlflow.entities.Param
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        found = self._client.search_runs([number], f"tags.`headrace.node` = '{path.root}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            return
        created = self._client.create_run(number, tags={"headrace.node": path.root}, run_name=name_of(path))
        self.run = created.info.run_id
        params = [self._param(key, str(value)[:PARAMETER_CHARACTERS]) for key, value in spec.items()]
        for begin in range(0, len(params), 100):
            self._client.log_batch(self.run, params=params[begin : begin + 100])

    def last_step(self) -> int:
        # Every line has a loss. Of a history with gaps the rest would be missing: it is written in order.
        return max((point.step for point in self._client.get_metric_history(self.run, "loss")), default=0)

    def add(self, line: Line) -> None:
        at = int(1000 * line.get("time", time.time()))
        metrics = [self._metric(name, float(value), at, line["step"]) for name, value in numbers_of(line).items()]
        # The loss last: `last_step` takes it for the sign that the line is whole.
        metrics.sort(key=lambda metric: metric.key == "loss")
        for begin in range(0, len(metrics), BATCH):
            self._client.log_batch(self.run, metrics=metrics[begin : begin + BATCH])

    def take_back(self, step: int) -> None:
        raise AssertionError("only what is sure was written")

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        self._client.set_terminated(self.run, "FINISHED")

    def close(self) -> None:
        pass


class WeightsAndBiases:
    """A run of a project, whose id is the node's key; what stands there is gone on with.

    W&B takes steps in rising order only, so it is told only what a checkpoint made sure, and each step once. With
    WANDB_MODE=offline the whole curve is written into `folder`, for `wandb sync`.
    """

    takes_back = False

    def __init__(self, folder: Path | None, path: NodePath, spec: dict[str, Any]):
        wandb = _imported("wandb", "wandb")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=path.key[:16],
            name=name_of(path),
            config=spec,
            dir=folder,
            resume="allow",
        )

    def last_step(self) -> int:
        return max(0, int(self._run.step) - 1)  # W&B names the next step

    def add(self, line: Line) -> None:
        self._run.log(numbers_of(line), step=line["step"], commit=True)

    def take_back(self, step: int) -> None:
        raise AssertionError("only what is sure was written")

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


def writer_to(target: str, out: str | None, path: NodePath, spec: dict[str, Any], default_folder: Path) -> CurveWriter:
    """The writer to `target`: tensorboard, mlflow or wandb.

    Raises:
        ValueError: there is no such, or it is not installed.
    """
    match target:
        case "tensorboard":
            return TensorBoard(Path(out) if out else default_folder, path)
        case "mlflow":
            return MLflow(out, path, spec)
        case "wandb":
            return WeightsAndBiases(Path(out) if out else None, path, spec)
    raise ValueError(f"--to {target!r}: there are tensorboard, mlflow and wandb")


def name_of(path: NodePath) -> str:
    return f"{path.node}-{path.key[:16]}"


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--to {extra} needs {module}, which is not installed: pip install 'headrace[{extra}]'"
        ) from error
