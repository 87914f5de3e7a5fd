"""`headrace`: the command line. Each file is a group of commands; heavy imports stay inside the commands."""

import sys

import typer

from flows.cli import (
    analyse,
    audit,
    chat,
    curve,
    inspect,
    maintain,
    plan,
    plan_compute,
    retract,
    run,
    scaling_study,
    serve,
    services,
)

app = typer.Typer(
    name="headrace",
    help="One graph from a web crawl to a released language model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: headrace run demo --set filter.min_words=100")(run.run)
app.command(epilog="Example: headrace plan demo --set dedup.jaccard=0.85")(plan.plan)
app.command(epilog="Example: headrace plan-compute --hours 72 --gpus 8 --gpu h100 --mfu 0.4")(plan_compute.plan_compute)
app.command(epilog="Example: headrace scaling-study scaling --set scaling.pretrain.global_batch=32")(
    scaling_study.scaling_study
)
app.command(epilog="Example: headrace status")(inspect.status)
app.command(epilog="Example: headrace why dedup --recipe demo --set dedup.jaccard=0.85")(inspect.why)
app.command(epilog="Example: headrace audit demo --sql 'SELECT rule, count(*) FROM audit GROUP BY rule'")(audit.audit)
app.command(epilog="Example: headrace compare last 20261122-101500-demo-3f2a")(inspect.compare)
app.command(epilog="Example: headrace curve last --to tensorboard --follow")(curve.curve)
app.command(epilog="Example: headrace retract --urls takedown.txt --reason 'ticket 4711'")(retract.retract)
app.command(epilog="Example: headrace verify --deep")(maintain.verify)
app.command(epilog="Example: headrace doctor --store s3://bucket/headrace")(maintain.doctor)
app.command(epilog="Example: headrace gc --keep-days 30 --apply")(maintain.gc)
app.command(epilog="Example: headrace serve last --port 8000 --api-keys-file keys.txt")(serve.serve)
app.command(epilog="Example: headrace chat last --temperature 0.7")(chat.chat)
app.add_typer(analyse.app, name="analyse")
app.command(epilog="Example: headrace up")(services.up)
app.command(epilog="Example: headrace down")(services.down)


def main() -> None:
    """The entry point: a user's mistake ends with one line that says what to do, not with a trace."""
    from tasks.failures import NodeError

    try:
        app()
    except (ValueError, FileNotFoundError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NodeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
