"""The chunked loss is the plain one, to rounding, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.model import loss
from ray_jobs.model.loss import IGNORED, token_loss, token_nlls


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, z_weight: float, num_real: int) -> Tensor:
    logits = (hidden @ weight.T)[:, :num_real]
    scored = targets != IGNORED
    squares = logits.logsumexp(dim=1).square()[scored].sum()
    return F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED) + z_weight * squares


@pytest.mark.parametrize("chunk", [50, 150, 1 << 20])
@pytest.mark.parametrize("z_weight", [0.0, 1e-2])
@pytest.mark.parametrize("num_real", [50, 43])
def test_value_and_gradients_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, chunk: int, z_weight: float, num_real: int
) -> None:
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(17, 8, generator=generator, requires_grad=True)
    weight = torch.randn(50, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 43, (17,), generator=generator)
    targets[3] = targets[11] = IGNORED
    ours = token_loss(hidden, weight, targets, z_weight, num_real)
    theirs = plain(hidden, weight, targets, z_weight, num_real)
    assert ours.total.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert ours.num_tokens.item() == 15
    assert (ours.cross_entropy + ours.z_loss).item() == pytest.approx(ours.total.item())
    # Scaled, as accumulation and clipping scale it.
    for our, their in zip(
        torch.autograd.grad(3 * ours.total, (hidden, weight)),
        torch.autograd.grad(3 * theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("num_real", [50, 43])
def test_what_a_gpu_compiles_is_what_a_cpu_computes(with_gradient: bool, num_real: int) -> None:
    logits = torch.randn(17, 50, generator=torch.Generator().manual_seed(0)) * 5
    targets = torch.randint(0, 43, (17,))
    targets[5] = IGNORED
    given = (targets, 1e-2, num_real, with_gradient)
    fused = loss._terms_to_fuse(logits.clone(), *given)
    plain_terms = loss._terms(logits.clone(), *given)
    for our, their in zip(fused[: 3 if with_gradient else 2], plain_terms, strict=False):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)


def test_z_loss_has_the_golden_value_and_gradient() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    result = token_loss(logits, torch.eye(3), torch.tensor([0, 1]), z_weight=1e-4)
    assert result.z_loss.item() / 2 == pytest.approx(0.0021494819, rel=1e-6)
    without = token_loss(logits, torch.eye(3), torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(result.total / 2, logits)
    (of_entropy,) = torch.autograd.grad(without.total / 2, logits)
    expected = torch.tensor([1.601638e-4, 5.892097e-5, 2.167581e-5])
    torch.testing.assert_close((gradient - of_entropy)[0], expected, rtol=1e-3, atol=1e-8)


def test_nlls_of_single_tokens_sum_to_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", 200)
    hidden, weight = torch.randn(30, 8), torch.randn(50, 8)
    targets = torch.randint(0, 50, (30,))
    targets[7] = IGNORED
    nlls = token_nlls(hidden, weight, targets)
    assert nlls.shape == (30,) and nlls[7] == 0
    assert nlls.sum().item() == pytest.approx(token_loss(hidden, weight, targets).total.item(), rel=1e-5)


def test_without_gradient_nothing_is_kept_for_one() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(5, 8)
    with torch.no_grad():
        assert not token_loss(hidden, weight, torch.tensor([0, 1, 2, 3])).total.requires_grad
