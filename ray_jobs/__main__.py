"""`python -m ray_jobs NODE SPEC_URL`: computes one node, as a Ray job or by hand.

SPEC_URL is a request as the tasks write it (nodes/<node>/<key16>/requests/<submission>.json in a store). The result is
the node's manifest; the exit status is 0 when it stands, 2 for a user's mistake, 3 when the node failed.
"""

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path

from ray_jobs.checkpoint.store import StoreError, open_store
from ray_jobs.cluster.runner import NodeFailed, NodeRequest, UserError, run_node


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs", description=__doc__.splitlines()[0])
    parser.add_argument("node", help="the node's kind, such as filter")
    parser.add_argument("spec_url", help="s3://… or file:///… of the request that `headrace run` or `submit` wrote")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if "HEADRACE_KEEPALIVE" in os.environ:
        threading.Thread(target=_keep_head_alive, args=(Path(os.environ["HEADRACE_KEEPALIVE"]),), daemon=True).start()
    try:
        root, slash, rest = arguments.spec_url.partition("/nodes/")
        if not slash:
            raise UserError(f"{arguments.spec_url} is not a request in a store: it lies under <store>/nodes/")
        store = open_store(root)
        data = store.get(f"nodes/{rest}")
        if data is None:
            raise UserError(f"there is no request at {arguments.spec_url}: check the URL and the store's credentials")
        request = NodeRequest.model_validate_json(data)
        if request.node != arguments.node:
            raise UserError(f"{arguments.spec_url} asks for {request.node}, not {arguments.node}")
        manifest = run_node(store, request)
    except ValueError as error:  # a user's mistake, by the convention of the whole code
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (NodeFailed, StoreError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(f"{manifest.path.root} stands: {manifest.content_digest[:16]}, {manifest.seconds:.1f} s")
    return 0


def _keep_head_alive(used: Path) -> None:
    """A local head stops when it is idle; a job whose submitter is gone is not idle."""
    while used.parent.is_dir():
        used.touch()
        time.sleep(30)


if __name__ == "__main__":
    sys.exit(main())
