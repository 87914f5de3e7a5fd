"""`headrace plan-compute`: what a compute is best spent on, by published constants or one's own."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.show import compact, dollars, duration
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import open_store
from tests.report.synthetic import finish


def planned(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan-compute", "--json", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_chinchillas_compute_gives_nearly_chinchilla() -> None:
    plan = planned("--flops", "5.76e23")
    best = plan["best"]
    assert plan["source"] == "besiroglu-2024"
    assert best["parameters"] == pytest.approx(72e9, rel=0.01)
    assert best["tokens"] == pytest.approx(1.33e12, rel=0.01)
    assert best["steps"] == round(best["tokens"] / 4_194_304)


def test_hours_of_gpus_and_their_price_come_out_as_they_went_in() -> None:
    plan = planned("--hours", "10", "--gpus", "8", "--gpu", "H100", "--mfu", "0.5", "--price", "2")
    assert plan["best"]["flops"] == pytest.approx(10 * 3600 * 8 * 989e12 * 0.5)
    assert plan["best"]["hours"] == pytest.approx(10)
    assert plan["best"]["dollars"] == pytest.approx(160)


def test_a_smaller_model_is_worse_at_the_same_compute_and_dearer_at_the_same_loss() -> None:
    plan = planned("--flops", "1e22")
    losses = [each["same_compute"]["loss"] for each in plan["alternatives"]]
    assert [plan["best"]["loss"], *losses] == sorted([plan["best"]["loss"], *losses])
    for each in plan["alternatives"]:
        assert each["same_compute"]["flops"] == pytest.approx(1e22)
        if each["same_loss"]:
            assert each["same_loss"]["loss"] == pytest.approx(plan["best"]["loss"])
            assert each["same_loss"]["flops"] > 1e22
    assert plan["alternatives"][0]["same_loss"] and not plan["alternatives"][-1]["same_loss"]


def test_a_law_of_ones_own_is_used(tmp_path: Path) -> None:
    own = {"E": 1.0, "A": 100.0, "B": 100.0, "alpha": 0.3, "beta": 0.3}
    (tmp_path / "fit.json").write_text(json.dumps({"law": own}))
    best = planned("--flops", "6e18", "--fit", str(tmp_path / "fit.json"))["best"]
    assert best["parameters"] == pytest.approx(1e9) and best["tokens"] == pytest.approx(1e9)


def test_the_law_of_a_scaling_node_is_found_by_its_checkpoint(tmp_path: Path) -> None:
    own = {"E": 1.0, "A": 100.0, "B": 100.0, "alpha": 0.3, "beta": 0.3}
    shard = ShardOutput({"law.json": File(json.dumps({"law": own}).encode())}, {})
    key = finish(open_store(tmp_path), "scaling", {"results": [shard]}).key
    for place in (f"{tmp_path}/nodes/scaling/{key[:16]}", f"{tmp_path.as_uri()}/nodes/scaling/{key[:16]}/"):
        plan = planned("--flops", "6e18", "--fit", place)
        assert plan["best"]["parameters"] == pytest.approx(1e9) and plan["source"] == place
    with pytest.raises(FileNotFoundError, match="holds no finished scaling 0000000000000000"):
        planned("--flops", "6e18", "--fit", f"{tmp_path}/nodes/scaling/{'0' * 16}")


def test_the_table_and_the_help_read_well() -> None:
    shown = CliRunner().invoke(app, ["plan-compute", "--flops", "5.76e23", "--gpus", "1024"], catch_exceptions=False)
    assert "best: 7" in shown.output and "1.33T tokens" in shown.output and "out of reach" in shown.output
    headings = shown.output.split("trained longer:")[1].splitlines()[1:3]
    assert headings[0].split() == ["same", "compute:", "same", "loss:"]
    assert headings[1].split() == ["parameters", "tokens", "loss", "tokens", "compute", "time", "cost"]
    told = CliRunner().invoke(app, ["plan-compute", "--help"]).output
    assert "Example: headrace plan-compute" in told and "Besiroglu" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the compute once"),
        (["--flops", "1e20", "--hours", "2"], "give the compute once"),
        (["--flops", "-1"], "give more than none"),
        (["--flops", "1e9"], "less than one batch"),
        (["--hours", "1", "--gpu", "abacus"], "--gpu abacus is not known"),
        (["--hours", "1", "--gpus", "0"], "--gpus is 0"),
        (["--hours", "1", "--mfu", "40"], "--mfu is 40"),
        (["--hours", "1", "--price", "-1"], "--price is -1"),
        (["--deadline", "2020-01-01"], "is past"),
        (["--flops", "1e20", "--law", "mine"], "--law mine is not known"),
        (["--flops", "1e20", "--batch-tokens", "0"], "--batch-tokens is 0"),
        (["--flops", "1e20", "--fit", "none.json"], "none.json is no file"),
    ],
)
def test_a_wrong_budget_is_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CliRunner().invoke(app, ["plan-compute", *arguments], catch_exceptions=False)


def test_a_deadline_to_come_is_a_number_of_hours() -> None:
    assert planned("--deadline", "2999-01-01", "--gpus", "2")["best"]["hours"] > 24 * 365


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (compact(950), "950"),
        (compact(999.6), "1.00K"),
        (compact(1300), "1.30K"),
        (compact(72.04e9), "72.0B"),
        (compact(999_600), "1.00M"),
        (compact(1.333e12), "1.33T"),
        (dollars(3.456), "$3.46"),
        (dollars(12_345.6), "$12,346"),
        (dollars(999_999.6), "$1.00M"),
        (dollars(1_213_346), "$1.21M"),
        (duration(9.97), "10 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(119.7), "2 min 0 s"),
        (duration(7199), "2 h 0 min"),
    ],
)
def test_figures_round_without_a_sixtieth_second_or_a_thousandth_thousand(shown: str, expected: str) -> None:
    assert shown == expected
