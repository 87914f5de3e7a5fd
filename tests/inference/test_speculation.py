"""What a draft proposes changes the speed alone: not the greedy answer, and not the distribution of a drawn one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.decoding import DRAW_DRAFT, drawn, uniform
from ray_jobs.inference.drafts import ModelDraft, NgramDraft
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request
from ray_jobs.inference.speculation import Acceptance, Proposal, verified
from tests.inference.test_engine import SPECS, VOCABULARY, model_of, prompts

P, Q = (0.5, 0.3, 0.2), (0.2, 0.5, 0.3)


def verified_wrongly(probs_kV: torch.Tensor, proposal: Proposal, seed: int, first: int) -> list[int]:
    """The rule in circulation: where a token is not accepted, one is drawn from p itself."""
    token = proposal.tokens[0]
    assert proposal.probs_KV is not None
    if uniform(seed, first, 2) * float(proposal.probs_KV[0, token]) < float(probs_kV[0, token]):
        return [token, 0]
    return [int(drawn(probs_kV[:1], [uniform(seed, first)]))]


def counts_of_first_tokens(rule: Any, num_draws: int = 20_000) -> np.ndarray:
    probs_kV, draft_KV = torch.tensor([P, P]), torch.tensor([Q])
    counts = np.zeros(3)
    for seed in range(num_draws):
        token = int(drawn(draft_KV, [uniform(seed, 0, DRAW_DRAFT)]))
        counts[rule(probs_kV, Proposal((token,), draft_KV), seed, 0)[0]] += 1
    return counts


def test_what_stands_is_distributed_as_the_model_writes() -> None:
    counts = counts_of_first_tokens(verified)
    assert chisquare(counts, np.array(P) * counts.sum()).pvalue > 0.01


def test_the_wrong_rule_is_caught() -> None:
    """Drawing from p where a proposal is refused converges on (.35, .39, .26)."""
    counts = counts_of_first_tokens(verified_wrongly)
    assert chisquare(counts, np.array(P) * counts.sum()).pvalue < 1e-6
    assert chisquare(counts, np.array([0.35, 0.39, 0.26]) * counts.sum()).pvalue > 0.01


def test_acceptance_is_the_overlap_of_both_distributions() -> None:
    """Σ min(p, q) = .7; what is refused is drawn from (1, 0, 0)."""
    probs_kV, draft_KV = torch.tensor([P, P]), torch.tensor([Q])
    accepted, drawn_anew = 0, set()
    for seed in range(10_000):
        token = int(drawn(draft_KV, [uniform(seed, 0, DRAW_DRAFT)]))
        stands = verified(probs_kV, Proposal((token,), draft_KV), seed, 0)
        accepted += len(stands) == 2
        if len(stands) == 1:
            drawn_anew.add(stands[0])
    assert abs(accepted / 10_000 - 0.7) < 0.015 and drawn_anew == {0}


@pytest.mark.parametrize("certain", [True, False])
def test_several_proposed_tokens_stand_as_if_drawn_one_by_one(certain: bool) -> None:
    """Pairs of tokens, of a chain whose second distribution depends on the first token."""
    chain = torch.tensor([P, (0.1, 0.1, 0.8), (0.6, 0.2, 0.2)])
    draft = torch.tensor([Q, (0.3, 0.3, 0.4), (0.2, 0.2, 0.6)])
    counts = np.zeros((3, 3))
    for seed in range(20_000):
        first = int(drawn(draft[:1], [uniform(seed, 0, DRAW_DRAFT)]))
        second = int(drawn(draft[first : first + 1], [uniform(seed, 1, DRAW_DRAFT)]))
        if certain:  # the same proposal always, as a lookup makes it
            first, second = 1, 2
        probs_kV = torch.stack([chain[0], chain[first], chain[second]])
        proposal = Proposal((first, second), None if certain else torch.stack([draft[0], draft[first]]))
        stands = verified(probs_kV, proposal, seed, 0)
        if len(stands) == 1:  # the model goes on alone
            stands.append(int(drawn(chain[stands[0]].unsqueeze(0), [uniform(seed, 1)])))
        counts[stands[0], stands[1]] += 1
    wanted = (chain[0].unsqueeze(1) * chain).numpy().astype(float)
    assert chisquare(counts.ravel(), (wanted / wanted.sum() * counts.sum()).ravel()).pvalue > 0.01


class ScriptedDraft:
    """Knows the answers, and errs at random."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]], agreement: float, count: int):
        self.answers, self.agreement, self.count = answers, agreement, count
        self.chance = np.random.default_rng(0)

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        proposals = []
        for request, limit in zip(requests, most, strict=True):
            begun = len(request.answer)
            tokens = self.answers[request.prompt][begun : begun + min(self.count, limit)]
            wrong = self.chance.random(len(tokens)) >= self.agreement
            tokens = [(token + bad) % VOCABULARY for token, bad in zip(tokens, wrong.tolist(), strict=True)]
            proposals.append(Proposal(tuple(tokens)))
        return proposals

    def forget(self, request: Request) -> None:
        pass


def answers_of(draft: Any, specs: list[DecodingSpec], **changes: Any) -> tuple[list[list[int]], Engine]:
    engine = Engine(model_of(), VOCABULARY, spec=EngineSpec(**{"block_size": 4, **changes}), draft=draft)
    asked = zip(prompts(8), specs * 8, strict=False)
    requests = [engine.add(*one)[0] for one in asked]
    engine.run()
    assert engine.blocks.num_available == engine.blocks.num_blocks
    return [request.answer for request in requests], engine


GREEDY = DecodingSpec(temperature=0, max_new_tokens=40)


@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("num_blocks", [1024, 60])
def test_greedy_answers_are_those_without_a_draft(agreement: float, num_blocks: int) -> None:
    wanted, _ = answers_of(None, [GREEDY])
    script = dict(zip(map(tuple, prompts(8)), wanted, strict=True))
    answers, engine = answers_of(ScriptedDraft(script, agreement, 5), [GREEDY], num_blocks=num_blocks)
    assert answers == wanted
    assert (engine.num_preempted > 0) == (num_blocks == 60)
    rates = engine.acceptance.rates
    assert rates[0] == pytest.approx(agreement, abs=0.2)


def test_the_texts_own_past_is_found() -> None:
    draft = NgramDraft(count=3, longest=3, shortest=2)
    request = Request(0, (1, 2, 3, 4, 5, 1, 2, 3), GREEDY, answer=[9, 2, 3])
    assert draft.propose([request, request], [10, 1]) == [Proposal((9, 2, 3)), Proposal((9,))]
    unseen = Request(0, (1, 2, 3, 4), GREEDY)
    assert draft.propose([unseen], [10]) == [Proposal()]


@pytest.mark.parametrize("specs", [[GREEDY], [GREEDY.model_copy(update={"repetition_penalty": 1.3})], list(SPECS)])
def test_drafts_do_not_change_answers(specs: list[DecodingSpec]) -> None:
    """Drawn answers too, where the draft is certain and the draws of the model alone are those of its own steps."""
    wanted, _ = answers_of(None, specs)
    answers, engine = answers_of(NgramDraft(count=4, shortest=1), specs)
    greedy = [place for place in range(8) if specs[place % len(specs)].greedy]
    assert [answers[place] for place in greedy] == [wanted[place] for place in greedy]
    assert sum(engine.acceptance.proposed) > 10


def test_the_model_as_its_own_draft_is_always_right() -> None:
    draft = ModelDraft(model_of(), VOCABULARY, count=4, spec=EngineSpec(block_size=4))
    wanted, _ = answers_of(None, [GREEDY])
    answers, engine = answers_of(draft, [GREEDY])
    assert answers == wanted
    assert set(engine.acceptance.rates) == {1.0}
    assert engine.acceptance.tokens_per_round > 4
    assert draft.sequences.blocks.num_available == draft.sequences.blocks.num_blocks
    sampled = DecodingSpec(temperature=0.9, top_p=0.8, max_new_tokens=30)
    _, engine = answers_of(ModelDraft(model_of(), VOCABULARY), [sampled])
    assert min(engine.acceptance.rates) > 0.98  # p and q are rounded differently where a draft's pass has other shapes


def test_a_weak_draft_model_with_few_blocks_does_not_change_greedy_answers() -> None:
    wanted, _ = answers_of(None, [GREEDY])
    draft = ModelDraft(model_of("yarn"), VOCABULARY, spec=EngineSpec(block_size=4, num_blocks=40))
    answers, engine = answers_of(draft, [GREEDY], num_blocks=80)
    assert answers == wanted and engine.num_preempted > 0
    assert draft.sequences.blocks.num_available == 40


def test_sampled_with_a_draft_model_is_distributed_as_without() -> None:
    """The first two tokens behind one prompt, over many seeds, of a small vocabulary left by top-k."""
    spec = DecodingSpec(temperature=1.5, top_k=3, max_new_tokens=3)
    counts: list[dict[tuple[int, ...], int]] = []
    for draft in (None, ModelDraft(model_of("yarn"), VOCABULARY, count=2)):
        engine = Engine(model_of(), VOCABULARY, spec=EngineSpec(), draft=draft)
        requests = engine.add([5, 6, 7], spec.model_copy(update={"seed": 10_000 * (draft is not None)}), 3000)
        engine.run()
        found: dict[tuple[int, ...], int] = {}
        for request in requests:
            pair = tuple(request.answer[1:])
            found[pair] = found.get(pair, 0) + 1
        counts.append(found)
    common = [pair for pair in counts[0] if counts[0][pair] > 50]
    without, with_draft = (np.array([one.get(pair, 0) for pair in common]) for one in counts)
    from scipy.stats import chi2_contingency

    assert len(common) > 3
    assert chi2_contingency(np.stack([without, with_draft])).pvalue > 0.01


def test_acceptance_is_counted_by_place() -> None:
    acceptance = Acceptance()
    acceptance.count(3, 1)
    acceptance.count(2, 2)
    assert acceptance.rates == [1.0, 0.5, 0.0] and acceptance.tokens_per_round == 2.5
