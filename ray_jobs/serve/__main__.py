"""`python -m ray_jobs.serve HOW SPEC`: serves one model; SPEC is JSON of a ServeSpec, for chat of a ChatSpec."""

import argparse
import logging
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.serve", description=__doc__)
    parser.add_argument("how", choices=["http", "ray", "vllm", "chat"])
    parser.add_argument("spec", help="JSON")
    arguments = parser.parse_args()
    level = logging.WARNING if arguments.how == "chat" else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for noisy in ("httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        _run(arguments.how, arguments.spec)
    except (ValueError, FileNotFoundError) as error:  # a user's mistake, by the convention of the whole code
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before anything was served
        return 130
    return 0


def _run(how: str, spec: str) -> None:
    from configs.serve import ChatSpec, ServeSpec

    if how == "chat":
        from ray_jobs.serve.chat import chat

        chat(ChatSpec.model_validate_json(spec))
    elif how == "http":
        from ray_jobs.serve.in_process import serve

        serve(ServeSpec.model_validate_json(spec))
    elif how == "vllm":
        from ray_jobs.serve.vllm import hand_over

        hand_over(ServeSpec.model_validate_json(spec))
    else:
        from ray_jobs.serve.on_ray import serve_on_ray

        serve_on_ray(ServeSpec.model_validate_json(spec))


if __name__ == "__main__":
    sys.exit(main())
