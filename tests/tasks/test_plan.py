"""The plan: HIT, RUN or RESUME for every node, and why."""

from pathlib import Path

import pytest

from configs.recipe import load_recipe
from ray_jobs.checkpoint.code import code_of
from ray_jobs.checkpoint.manifest import InputRef, Manifest
from ray_jobs.checkpoint.retraction import Retraction, retract
from ray_jobs.checkpoint.runs import Run, RunNode, new_run_id, write_run
from ray_jobs.checkpoint.store import Store, open_store
from tasks.estimate import estimate
from tasks.plan import HIT, RUN, Plan, make_plan, spec_changes
from tasks.selection import Selection, select


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def finish(plan: Plan, *names: str, digest: str | None = None) -> None:
    """Puts manifests without outputs for the named nodes, as if they had run."""
    for name in names:
        node = plan.nodes[name]
        code = code_of(node.recipe_node.kind.room, node.recipe_node.kind.version)
        manifest = Manifest(
            node=node.kind,
            key=node.key,
            payload=node.payload,
            inputs={
                slot: InputRef(node=plan.nodes[up].kind, key=plan.nodes[up].key, content_digest="0" * 64)
                for slot, up in node.recipe_node.inputs.items()
            },
            outputs=(),
            output_stages=(),
            counters={},
            metrics={},
            content_digest="0" * 64,
            code=code.model_copy(update={"digest": digest} if digest else {}),
            resources={},
            attempt="a",
            started=0.0,
            seconds=1.0,
            cpu_seconds=1.0,
        )
        assert plan.store.create(node.path.manifest, manifest.to_json())


def record(plan: Plan) -> None:
    nodes = {
        name: RunNode(node=node.kind, key=node.key, payload=node.payload, state="DONE")
        for name, node in plan.nodes.items()
    }
    run = Run(
        id=new_run_id(plan.recipe.name, 0.0),
        recipe=plan.recipe.name,
        started=0.0,
        seconds=1.0,
        state="COMPLETED",
        nodes=nodes,
    )
    write_run(plan.store, run)


def states(plan: Plan) -> dict[str, str]:
    return {name: node.state for name, node in plan.nodes.items()}


def test_in_an_empty_store_everything_runs(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    assert set(states(plan).values()) == {"RUN"}
    assert plan.nodes["filter"].why == ("never computed in this store",)


def test_after_a_run_everything_is_a_hit(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    assert make_plan(load_recipe("tiny"), store).all_hit()


def test_a_changed_value_reruns_its_node_and_what_follows_and_says_why(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    record(plan)
    changed = make_plan(load_recipe("tiny", ["dedup.jaccard=0.85"]), store)
    assert states(changed)["filter"] == "HIT"
    assert changed.nodes["dedup"].why == ("spec.jaccard 0.8 -> 0.85",)
    assert changed.nodes["classifier"].why == ("upstream dedup",)
    assert set(changed.nodes["quality"].why) == {"upstream classifier", "upstream repeats"}
    assert changed.nodes["scrub"].why == ("upstream quality",)
    assert set(changed.nodes["tokens"].why) == {"upstream scrub", "upstream tokenizer"}


def test_a_change_of_resources_reruns_nothing(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    assert make_plan(load_recipe("tiny", ["filter.resources.workers=7"]), store).all_hit()


def test_generation_forces_a_node(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    record(plan)
    forced = make_plan(load_recipe("tiny", ["scrub.generation=2"]), store)
    assert forced.nodes["scrub"].why == ("generation 1 -> 2",)
    assert forced.nodes["dedup"].state == "HIT"


def test_changed_code_under_the_same_version_is_drift(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *[name for name in plan.nodes if name != "scrub"])
    finish(plan, "scrub", digest="0" * 64)
    drifted = make_plan(load_recipe("tiny"), store)
    assert drifted.all_hit()
    assert [name for name, node in drifted.nodes.items() if node.drift] == ["scrub"]
    with pytest.raises(ValueError, match=r"--strict: scrub: DRIFT.*scrub.generation=2"):
        select(drifted, Selection(strict=True))


def test_receipts_without_a_manifest_are_resumed(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    path = plan.nodes["filter"].path
    assert store.create(path.shards("documents"), b"[{},{},{}]")
    assert store.create(path.receipt("documents", 0), b"{}")
    again = make_plan(load_recipe("tiny"), store)
    assert again.nodes["filter"].state == "RESUME"
    assert again.nodes["filter"].why[0] == "1 of 3 shards or steps stand"


def test_an_all_hit_plan_takes_few_requests_a_node(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    record(plan)
    calls: list[str] = []
    for name in ("get", "list", "size", "folders"):
        original = getattr(type(store), name)

        def counted(self: Store, *args: object, _original=original, _name=name) -> object:  # type: ignore[no-untyped-def]
            calls.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(type(store), name, counted)
    assert make_plan(load_recipe("tiny"), store).all_hit()
    assert len(calls) <= 5 * len(plan.nodes)


def test_selection_by_from_to_and_only(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    assert select(plan, Selection(to_node="dedup")).nodes == ["snapshot", "filter", "dedup"]
    with pytest.raises(ValueError, match="scrub needs quality, which is not selected and has no checkpoint"):
        select(plan, Selection(from_node="scrub"))
    before = ("snapshot", "reference", "ngram-lm", "eval-sets", "filter", "dedup", "repeats", "classifier", "quality")
    finish(plan, *before)
    plan = make_plan(load_recipe("tiny"), store)
    assert select(plan, Selection(from_node="scrub")).to_run[0] == "scrub"
    assert select(plan, Selection(only=["scrub"])).nodes == ["scrub"]
    with pytest.raises(ValueError, match="has no node 'scurb'"):
        select(plan, Selection(only=["scurb"]))


def test_an_estimate_is_bounded_where_the_node_reads_a_bounded_part(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full crawl's archives are not read by snapshot, and a sample, some documents and a few files by others."""

    def unreachable(source: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr("ray_jobs.crawl.pins.pin", unreachable)
    plan = make_plan(load_recipe("7b"), store, offline=True)
    estimates = estimate(plan)
    assert {node.state for node in plan.nodes.values()} == {"UNPINNED"}
    assert all(estimates[name].seconds < 3600 for name in ("snapshot", "tokenizer", "report"))
    assert estimates["filter"].core_hours > 1000
    assert 2000 < estimates["pretrain"].gpu_hours < 6000


def test_spec_changes_name_the_field_and_both_values() -> None:
    assert spec_changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["spec.a.c 2 -> 3"]
    assert spec_changes({"a": 1}, {"a": 1}) == []


def test_every_node_to_run_has_an_estimate_with_its_basis(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    estimates = estimate(plan)
    assert list(estimates) == list(plan.nodes)
    assert all(guess.seconds > 0 and guess.dollars >= 0 for guess in estimates.values())
    assert estimates["pretrain"].basis == "benchmark table"


def test_a_standing_checkpoint_enters_by_its_key(store: Store) -> None:
    first = make_plan(load_recipe("tiny"), store)
    digits = first.nodes["dedup"].key[:16]
    later = load_recipe("tiny", [f"dedup.inputs.earlier=dedup@{digits}", "snapshot.documentation.num_operations=60"])
    with pytest.raises(ValueError, match=f"dedup.inputs.earlier is dedup@{digits}, and .* holds no such finished"):
        make_plan(later, store)
    finish(first, "snapshot", "filter", "dedup")
    record(first)
    planned = make_plan(later, store).nodes["dedup"]
    assert planned.payload["inputs"]["earlier"] == first.nodes["dedup"].key
    assert f"upstream dedup@{digits}" in planned.why


def test_a_standing_source_made_before_a_retraction_is_refused(store: Store) -> None:
    first = make_plan(load_recipe("tiny"), store)
    finish(first, *first.nodes)
    digits = first.nodes["scrub"].key[:16]
    sources = f"tokens.inputs.documents={{old: scrub@{digits}, new: scrub}}"
    both = load_recipe("tiny", [sources, "snapshot.documentation.num_operations=60"])
    planned = make_plan(both, store).nodes["tokens"]
    assert planned.payload["inputs"]["documents.old"] == first.nodes["scrub"].key
    assert planned.payload["inputs"]["documents.new"] != first.nodes["scrub"].key
    retract(store, Retraction(domains=("example.org",)), "a test")
    with pytest.raises(
        ValueError, match=rf"tokens\.inputs\.documents\.old is scrub@{digits}, which was made before the"
    ):
        make_plan(both, store)
    again = make_plan(load_recipe("tiny"), store)
    finish(again, "dedup", "repeats", "quality", "scrub")
    anew = load_recipe("tiny", [sources.replace(digits, again.nodes["scrub"].key[:16])])
    assert make_plan(anew, store).nodes["tokens"].payload["inputs"]["documents.old"] == again.nodes["scrub"].key


def test_a_retraction_changes_the_key_of_dedup_and_says_so(store: Store) -> None:
    plan = make_plan(load_recipe("tiny"), store)
    finish(plan, *plan.nodes)
    record(plan)
    digest = retract(store, Retraction(domains=("example.org",)), "a test")
    after = make_plan(load_recipe("tiny"), store)
    assert after.nodes["filter"].state == HIT
    assert after.nodes["dedup"].state == RUN
    assert after.nodes["dedup"].why == (f'spec.retracted [] -> ["{digest}"]',)
    assert retract(store, Retraction(domains=("example.org",)), "again") == digest
    assert make_plan(load_recipe("tiny"), store).nodes["dedup"].key == after.nodes["dedup"].key
