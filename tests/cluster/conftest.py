"""A small Ray cluster inside the test process, beside any other that runs on this machine."""

import logging
import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server) -> Iterator[None]:
    """Workers inherit the environment at the cluster's start, so the S3 server is started before."""
    # Read by Ray as it is imported; tokens are on by default, and nothing here listens beyond this machine.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    # A socket's path must be short, so not below pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
            _node_ip_address="127.0.0.2",
        )
        try:
            yield
        finally:
            ray.shutdown()  # ends what this process started, and no other cluster
