"""`python -m ray_jobs.analyse WHAT SPEC`: measures one model and prints tables; SPEC is JSON of an AnalyseSpec."""

import argparse
import logging
import sys

from configs.analyse import AnalyseSpec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.analyse", description=__doc__)
    parser.add_argument("what", choices=["kv", "decoding", "prompts"])
    parser.add_argument("spec", help="JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    from ray_jobs.analyse import decoding, kv, prompts
    from ray_jobs.analyse.tables import show
    from ray_jobs.checkpoint.store import open_store
    from ray_jobs.inference.loading import load

    ways = {"kv": kv.analyse, "decoding": decoding.analyse, "prompts": prompts.analyse}
    try:
        spec = AnalyseSpec.model_validate_json(arguments.spec)
        loaded = load(spec.model, open_store(spec.store), spec.device, spec.dtype)
        print(f"{loaded.name}, {loaded.model.dtype} on {loaded.model.device}", file=sys.stderr)
        show(ways[arguments.what](loaded, spec), as_json=spec.json_output)
    except (ValueError, FileNotFoundError) as error:  # a user's mistake, by the convention of the whole code
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
