"""Recipes: what is written becomes specs, and what is wrong is named with what would be right."""

from dataclasses import replace

import pytest

from configs.nodes import NODES
from configs.recipe import load_recipe, make_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_says_what_it_is_for(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.about
    order = list(recipe.nodes)
    for node in recipe.nodes.values():
        assert all(order.index(upstream) < order.index(node.name) for upstream in node.inputs.values())


def test_tiny_is_the_same_graph_as_demo() -> None:
    demo, tiny = load_recipe("demo"), load_recipe("tiny")
    assert {n.name: dict(n.inputs) for n in demo.nodes.values()} == {
        n.name: dict(n.inputs) for n in tiny.nodes.values()
    }


def test_overrides_reach_nested_fields_and_resources() -> None:
    recipe = load_recipe("tiny", ["pretrain.model.layers=3", "pretrain.resources.workers=1", "filter.generation=2"])
    assert recipe.nodes["pretrain"].written.model.layers == 3
    assert recipe.nodes["pretrain"].resources.workers == 1
    assert recipe.nodes["filter"].generation == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.min_wrods=3", "no field filter.min_wrods: did you mean 'min_words'?"),
        ("pretrain.model.layer=3", "no field pretrain.model.layer: did you mean 'layers'?"),
        ("filter.min_words=many", "filter.min_words is 'many': input should be a valid integer"),
        ("filter.resources.worker=3", "no field filter.resources.worker: did you mean 'workers'?"),
        ("fliter.min_words=3", "no node 'fliter': did you mean 'filter'?"),
        ("filter.inputs.crawl=snapshto", "which is no node of recipe tiny: did you mean 'snapshot'?"),
        ("filter.inputs.crwal=snapshot", "filter.inputs has no slot 'crwal': did you mean 'crawl'?"),
        ("filter.inputs.crawl=null", "filter.inputs.crawl is null, and filter cannot do without it"),
        ("dedup.inputs.earlier=dedup@3f2", "is 'dedup@3f2': name a node of the recipe, or a checkpoint as dedup@"),
        ("dedup.inputs.earlier=dedpu@0123456789abcdef", "no kind of node 'dedpu': did you mean 'dedup'?"),
        ("filter.kind=fitler", "no kind of node 'fitler': did you mean 'filter'?"),
        ("filter.generation=0", "filter.generation is 0: write a whole number from 1"),
        ("min_words=3", "no node 'min_words'"),
        ("filter.=3", "write node.field=value"),
        ("filter.languages=[en", "the value is not YAML"),
        ("scrub=3", "write node.field=value"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(override: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_recipe("tiny", [override])
    assert message in str(caught.value)


def test_an_optional_slot_is_filled_where_the_recipe_has_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NODES, "dedup", replace(NODES["dedup"], optional={"words": "tokenizer"}))
    written = {"snapshot": {"documentation": {}}, "filter": {}, "dedup": {}}

    def inputs(**sections: object) -> dict[str, str]:
        return dict(make_recipe({"nodes": {**written, **sections}}, "made").nodes["dedup"].inputs)

    tokenizer = {"tokenizer": {"inputs": {"documents": "filter"}}}
    assert inputs() == {"documents": "filter"}
    assert inputs(**tokenizer) == {"documents": "filter", "words": "tokenizer"}
    assert inputs(**tokenizer, dedup={"inputs": {"words": None}}) == {"documents": "filter"}


def test_of_several_defaults_the_first_that_the_recipe_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NODES, "scrub", replace(NODES["scrub"], inputs={"documents": ("dedup", "filter")}))
    whole = {"snapshot": {"documentation": {}}, "filter": {}, "dedup": {}, "scrub": {}}
    assert make_recipe({"nodes": whole}, "made").nodes["scrub"].inputs == {"documents": "dedup"}
    del whole["dedup"]
    assert make_recipe({"nodes": whole}, "made").nodes["scrub"].inputs == {"documents": "filter"}
    del whole["filter"]
    with pytest.raises(ValueError, match=r"scrub.inputs.documents is 'dedup', which is no node"):
        make_recipe({"nodes": whole}, "made")


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="did you mean 'demo'"):
        load_recipe("dmeo")


def test_a_circle_is_refused() -> None:
    written = {"nodes": {"dedup": {"inputs": {"documents": "scrub"}}, "scrub": {"inputs": {"documents": "dedup"}}}}
    with pytest.raises(ValueError, match="form a circle"):
        make_recipe(written, "circle")


def test_two_nodes_of_one_kind_have_names_of_their_own() -> None:
    source = {"documentation": {"num_operations": 10, "num_docstring_pages": 0, "num_files": 1}}
    written = {
        "nodes": {
            "snapshot": source,
            "strict": {"kind": "filter", "min_words": 100},
            "lax": {"kind": "filter", "min_words": 10},
        }
    }
    recipe = make_recipe(written, "two")
    assert {node.kind.name for name, node in recipe.nodes.items() if name != "snapshot"} == {"filter"}


def test_a_whole_section_can_be_replaced_and_keeps_its_resources() -> None:
    recipe = load_recipe("tiny", ["snapshot={archives: {urls: [/data/*.warc.gz]}}"])
    assert recipe.nodes["snapshot"].written.archives.urls == ("/data/*.warc.gz",)
    assert recipe.nodes["snapshot"].resources == load_recipe("tiny").nodes["snapshot"].resources


def sources_of(documents: object, **tokens: object) -> dict[str, str]:
    written = {"snapshot": {"documentation": {}}, "filter": {}, "scrub": {}, "tokenizer": {}}
    later = {"scrub-october": {"kind": "scrub", "generation": 2}}
    section = {"inputs": {"documents": documents}, **tokens}
    node = make_recipe({"nodes": {**written, **later, "tokens": section}}, "made").nodes["tokens"]
    return {**node.inputs, **{slot: f"{kind}@{key}" for slot, (kind, key) in node.standing.items()}}


def test_a_slot_of_sources_takes_one_node_or_several_by_name() -> None:
    assert sources_of("scrub-october") == {"documents": "scrub-october", "tokenizer": "tokenizer"}
    several = {"september": "scrub", "october": "scrub-october", "august": "scrub@0123456789abcdef"}
    assert sources_of(several, weights={"october": 2, "august": 0.5}) == {
        "documents.september": "scrub",
        "documents.october": "scrub-october",
        "documents.august": "scrub@0123456789abcdef",
        "tokenizer": "tokenizer",
    }


@pytest.mark.parametrize(
    ("documents", "weights", "message"),
    [
        ({"october": "scrub-octobre"}, {}, "no node of recipe made: did you mean 'scrub-october'?"),
        ({}, {}, "tokens.inputs.documents is {}: name a node, or several as {september: scrub, october: scrub-2}"),
        (["scrub", "scrub-october"], {}, "name a node, or several as {september: scrub"),
        ({"October": "scrub"}, {}, "calls a source 'October': use lower-case letters, digits and -"),
        ({"october": None}, {}, "tokens.inputs.documents.october is None: name a node"),
        ({"a": "scrub", "b": "scrub"}, {"c": 2}, "tokens.weights names 'c', which is no source: there are: a, b"),
        ({"may": "scrub"}, {"mya": 2}, "no source: did you mean 'may'? There are: may"),
        ("scrub", {"scrub": 2}, "tokens.weights names 'scrub', which is no source: there are: documents"),
        ({"a": "scrub"}, {"a": -1}, "tokens.weights.a is -1: input should be greater than or equal to 0"),
        ({"a": "scrub"}, {"a": "much"}, "tokens.weights.a is 'much': input should be a valid number"),
    ],
)
def test_wrong_sources_and_weights_are_named(documents: object, weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        sources_of(documents, weights=weights)
    assert message in str(caught.value)


def test_other_slots_take_one_node_only() -> None:
    with pytest.raises(ValueError, match=r"tokens\.inputs\.tokenizer is .*: it takes one node, by its name"):
        load_recipe("tiny", ["tokens.inputs.tokenizer={a: tokenizer}"])


def test_one_source_keeps_the_slot_and_so_the_key_that_it_always_had() -> None:
    assert set(load_recipe("tiny").nodes["tokens"].inputs) == {"documents", "tokenizer"}
