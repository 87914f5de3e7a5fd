"""What the backward pass computes again."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs.model import ModelSpec
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.recompute import ATTENTION, Recompute

LAYERS = 2


class Counted(TorchDispatchMode):
    """Counts products of matrices by their width, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if operation in ATTENTION:
            self.calls["attention"] += 1
        if operation is torch.ops.aten.mm.default:
            self.calls["product"] += 1
        return operation(*arguments, **(options or {}))


def steps_of(recompute: Recompute) -> tuple[Counter[str], list[torch.Tensor]]:
    """What is called in the backward pass of a model, and its gradients."""
    spec = ModelSpec(hidden=32, layers=LAYERS, heads=4, kv_heads=2, intermediate=64, max_positions=16)
    model = empty_model(transformers_config(spec, 64), recompute)
    materialise(model, torch.device("cpu"))
    initialise(model, seed=0)
    model.train()
    hidden_BLH = model.base_model(torch.arange(32).reshape(2, 16), use_cache=False).last_hidden_state
    with Counted() as counted:
        hidden_BLH.square().sum().backward()
    return counted.calls, [p.grad for p in model.base_model.parameters() if p.grad is not None]


def test_selective_computes_again_only_the_wide_products_and_no_attention() -> None:
    none, gradients = steps_of("none")
    selective, same = steps_of("selective")
    full, same_too = steps_of("full")
    assert none["attention"] == selective["attention"] == 0
    assert full["attention"] == LAYERS
    # Of the seven products of a layer: the gate's and the up projection's; in full all but the last, whose result
    # nothing in the backward pass reads.
    assert selective["product"] - none["product"] == 2 * LAYERS
    assert full["product"] - none["product"] == 6 * LAYERS
    for wanted, found, found_too in zip(gradients, same, same_too, strict=True):
        assert torch.equal(wanted, found) and torch.equal(wanted, found_too)


@pytest.mark.slow
def test_it_can_be_compiled() -> None:
    spec = ModelSpec(hidden=32, layers=1, heads=4, kv_heads=2, intermediate=64, max_positions=16)
    gradients = []
    for compiled in (False, True):
        model = empty_model(transformers_config(spec, 64), "selective")
        materialise(model, torch.device("cpu"))
        initialise(model, seed=0)
        model.train()
        if compiled:
            model.base_model.layers[0].compile(fullgraph=True)
        model.base_model(torch.arange(32).reshape(2, 16), use_cache=False).last_hidden_state.square().sum().backward()
        gradients.append([p.grad for p in model.base_model.parameters() if p.grad is not None])
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
