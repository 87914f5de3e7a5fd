"""Recipes: a graph of nodes with their specs, from YAML and overrides, checked field by field.

A recipe's section for a node holds the fields of its spec, and beside them `resources`, `generation` (raised to compute
again), `inputs` (slot -> node, where it differs from the default; `dedup@3f2a9c0d1e4b5a67` is a checkpoint that stands
in the store; a slot that takes several nodes gives each a name) and `kind` (where the node has another name):

    dedup:
      threshold: 0.8
      resources: {workers: 4}
    tokens:
      inputs: {documents: {september: scrub, october: scrub-october}}
      weights: {october: 2}

A section of kind `scaling` without `inputs` is a study, and stands for all its trainings and evaluations as well
(configs/study.py).
"""

import difflib
import graphlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.base import Resources, Spec
from configs.nodes import ALL_OTHERS, NODES, NodeKind

M = TypeVar("M", bound=BaseModel)

RECIPES = Path(__file__).parent / "recipes"
STANDING = re.compile(r"(?P<kind>[a-z][a-z0-9-]*)@(?P<key>[0-9a-f]{16,64})")
SOURCE = re.compile(r"[a-z0-9][a-z0-9-]*")
RESERVED = ("kind", "resources", "generation", "inputs")


@dataclass(frozen=True)
class RecipeNode:
    """One node of a recipe."""

    name: str
    kind: NodeKind
    written: Spec
    """The spec, or what will be pinned to make it."""
    resources: Resources
    inputs: Mapping[str, str]
    """Slot -> name of a node of this recipe."""
    generation: int
    standing: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Slot -> (kind, the first digits of its key) of a checkpoint that some other run left."""


@dataclass(frozen=True)
class Recipe:
    name: str
    about: str
    nodes: Mapping[str, RecipeNode]
    """In an order in which every node comes after its inputs."""
    overrides: tuple[str, ...] = ()

    def ancestors(self, name: str) -> set[str]:
        """The nodes that `name` is computed from, and itself."""
        found = {name}
        for upstream in self.nodes[name].inputs.values():
            found |= self.ancestors(upstream)
        return found

    def descendants(self, name: str) -> set[str]:
        """The nodes that are computed from `name`, and itself."""
        return {other for other in self.nodes if name in self.ancestors(other)}


def recipe_names() -> list[str]:
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe called `name` (or a path ending in .yaml) with `path=value` overrides.

    Raises:
        ValueError: there is no such recipe, or a field is unknown or ill-typed; the message names it and
            what would be right.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"there is no recipe {name!r}: {_did_you_mean(name, recipe_names())}, or give a path to a .yaml"
        )
    try:
        written = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    for override in overrides:
        _set(written, override)
    return make_recipe(written, path.stem, overrides)


def make_recipe(written: Any, name: str, overrides: Sequence[str] = ()) -> Recipe:
    if not isinstance(written, dict) or not isinstance(written.get("nodes"), dict):
        raise ValueError(f"recipe {name}: write `about: …` and `nodes:` with one section a node")
    unknown = set(written) - {"about", "nodes"}
    if unknown:
        raise ValueError(f"recipe {name}: there is no field {sorted(unknown)[0]!r}, only about and nodes")
    sections = _with_studies(written["nodes"])
    nodes = {node: _make_node(node, section or {}, sections) for node, section in sections.items()}
    for node in nodes.values():
        for slot, upstream in node.inputs.items():
            if upstream not in nodes:
                raise ValueError(
                    f"{node.name}.inputs.{slot} is {upstream!r}, which is no node of recipe {name}: "
                    f"{_did_you_mean(upstream, nodes)}"
                )
    try:
        order = graphlib.TopologicalSorter({n: sorted(set(nodes[n].inputs.values())) for n in nodes}).static_order()
        return Recipe(name, written.get("about", ""), {n: nodes[n] for n in order}, tuple(overrides))
    except graphlib.CycleError as error:
        raise ValueError(f"recipe {name}: the inputs form a circle: {' <- '.join(error.args[1])}") from error


def _with_studies(written: Mapping[str, Any]) -> dict[str, Any]:
    """The sections, with those of all nodes that a study stands for in the place of its own."""
    sections: dict[str, Any] = {}
    for name, section in written.items():
        fields = section if isinstance(section, dict) else {}
        kind = NODES.get(str(fields.get("kind", name)))
        if kind is None or kind.study is None or "inputs" in fields:
            sections[name] = section
            continue
        study = checked(kind.study, {field: value for field, value in fields.items() if field not in RESERVED}, name)
        try:
            made = study.sections(name, written)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        reserved = {field: fields[field] for field in RESERVED if field in fields}
        sections |= {**made, name: {**made[name], **reserved}}
    return sections


def _make_node(name: str, section: Any, all_sections: Mapping[str, Any]) -> RecipeNode:
    if not isinstance(section, dict):
        raise ValueError(f"{name} must hold fields, not {section!r}")
    kind_name = section.get("kind", name)
    if kind_name not in NODES:
        raise ValueError(f"{name}: there is no kind of node {kind_name!r}: {_did_you_mean(kind_name, NODES)}")
    kind = NODES[kind_name]
    written = checked(kind.in_recipe, {field: value for field, value in section.items() if field not in RESERVED}, name)
    if ALL_OTHERS in kind.inputs:
        defaults = {other: other for other in all_sections if other != name}
    else:
        defaults = {slot: _first_of(nodes, all_sections) for slot, nodes in kind.inputs.items()}
        optional = {slot: node for slot, node in kind.optional.items() if written.takes(slot)}
        defaults |= {slot: node for slot, node in optional.items() if node in all_sections}
    given = section.get("inputs") or {}
    slots = {**defaults, **kind.optional}
    for slot in given:
        if slot not in slots:
            raise ValueError(f"{name}.inputs has no slot {slot!r}: {_did_you_mean(slot, slots)}")
        if given[slot] is None and slot not in kind.optional:
            raise ValueError(f"{name}.inputs.{slot} is null, and {name} cannot do without it: name a node")
    defaults = {slot: upstream for slot, upstream in defaults.items() if slot not in given}
    given = {
        one: upstream
        for slot, value in given.items()
        for one, upstream in _named_nodes(name, kind, slot, value).items()
    }
    generation = section.get("generation", 1)
    if type(generation) is not int or generation < 1:
        raise ValueError(f"{name}.generation is {generation!r}: write a whole number from 1")
    resources = {**kind.resources.model_dump(exclude_unset=True), **(section.get("resources") or {})}
    inputs = {slot: upstream for slot, upstream in {**defaults, **given}.items() if upstream is not None}
    standing = {slot: _standing(name, slot, upstream) for slot, upstream in inputs.items() if "@" in str(upstream)}
    try:
        written.check_inputs(inputs)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error
    return RecipeNode(
        name=name,
        kind=kind,
        written=written,
        resources=checked(Resources, resources, f"{name}.resources"),
        inputs={slot: upstream for slot, upstream in inputs.items() if slot not in standing},
        generation=generation,
        standing=standing,
    )


def _named_nodes(name: str, kind: NodeKind, slot: str, value: Any) -> dict[str, str | None]:
    """What a recipe writes for one slot, as slots of one node each: `documents: {a: x}` is `documents.a: x`."""
    if value is None or isinstance(value, str):
        return {slot: value}
    where = f"{name}.inputs.{slot}"
    if slot not in kind.several:
        raise ValueError(f"{where} is {value!r}: it takes one node, by its name")
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{where} is {value!r}: name a node, or several as {{september: scrub, october: scrub-2}}")
    for source, upstream in value.items():
        if not isinstance(source, str) or not SOURCE.fullmatch(source):
            raise ValueError(f"{where} calls a source {source!r}: use lower-case letters, digits and -")
        if not isinstance(upstream, str):
            raise ValueError(f"{where}.{source} is {upstream!r}: name a node")
    return {f"{slot}.{source}": upstream for source, upstream in value.items()}


def _first_of(nodes: str | tuple[str, ...], all_sections: Mapping[str, Any]) -> str:
    choice = (nodes,) if isinstance(nodes, str) else nodes
    return next((node for node in choice if node in all_sections), choice[0])


def _standing(name: str, slot: str, written: str) -> tuple[str, str]:
    match = STANDING.fullmatch(written)
    if match is None:
        raise ValueError(
            f"{name}.inputs.{slot} is {written!r}: name a node of the recipe, or a checkpoint as dedup@ and the 16 "
            "digits of its key that a plan shows"
        )
    if match["kind"] not in NODES:
        raise ValueError(
            f"{name}.inputs.{slot}: there is no kind of node {match['kind']!r}: {_did_you_mean(match['kind'], NODES)}"
        )
    return match["kind"], match["key"]


def checked(model: type[M], fields: Mapping[str, Any], where: str) -> M:
    """The model made from `fields`; a ValueError names each wrong field and what would be right."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        lines = [_explain(model, item, where) for item in error.errors(include_url=False)]
        raise ValueError("\n".join(lines)) from error


def _explain(model: type[BaseModel], item: Any, where: str) -> str:
    path = [str(part) for part in item["loc"]]
    name = ".".join([where, *path])
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        return f"there is no field {name}: {_did_you_mean(path[-1], fields)}"
    if item["type"] == "missing":
        return f"{name} is missing: set it in the recipe or with --set {name}=…"
    message = item["msg"].removeprefix("Value error, ")
    return f"{name} is {item['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the fields of the model that `path` leads to."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue  # the tag of a union
        nested = [t for t in [field.annotation, *get_args(field.annotation)] if isinstance(t, type)]
        models = [t for t in nested if issubclass(t, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    listed = ", ".join(known)
    return f"did you mean {close[0]!r}? There are: {listed}" if close else f"there are: {listed}"


def _set(written: Any, override: str) -> None:
    """Applies `node.field.field=value`, the value being YAML; `node={…}` replaces all fields but the reserved ones."""
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"--set {override!r}: write node.field=value, such as pretrain.model.layers=4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override!r}: the value is not YAML ({error})") from error
    nodes = written.get("nodes") or {}
    if parts[0] not in nodes:
        raise ValueError(f"--set {override!r}: there is no node {parts[0]!r}: {_did_you_mean(parts[0], nodes)}")
    if nodes[parts[0]] is None:
        nodes[parts[0]] = {}
    place = nodes[parts[0]]
    if len(parts) == 1:
        if not isinstance(value, dict):
            raise ValueError(f"--set {override!r}: write node.field=value, such as pretrain.model.layers=4")
        nodes[parts[0]] = {**{name: place[name] for name in RESERVED if name in place}, **value}
        return
    for part in parts[1:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[parts[-1]] = value
