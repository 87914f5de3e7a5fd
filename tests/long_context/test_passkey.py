"""The passkey stands where it should, is fair by chance, and is scored as by plain forward passes."""

from typing import Any

import numpy as np
import pytest
import torch

from configs.long_context import PasskeySpec
from ray_jobs.long_context.passkey import NEEDLE, Passkeys, answers, draw_passkeys, outcome, share_interval
from ray_jobs.model.positions import set_text_length, stretch
from ray_jobs.tokenizer.encode import Encoder
from tests.long_context.models import TRAINING_LENGTH, model_of
from tests.pretrain.corpus import VOCABULARY, tokenizer_json

SPEC = PasskeySpec(num_trials=2, num_distractors=3, depths=(0.0, 1.0))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tokenizer_json().encode())


@pytest.fixture(scope="module")
def passkeys(encoder: Encoder) -> Passkeys:
    return draw_passkeys(SPEC, encoder)


def filler(encoder: Encoder, length: int) -> np.ndarray:
    return np.array((encoder.encode(" some words of a page") * length)[:length])


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("length", [160, 400])
def test_a_text_holds_the_key_at_its_depth(encoder: Encoder, passkeys: Passkeys, length: int, depth: float) -> None:
    trial = passkeys.trials[1]
    prompt = passkeys.prompt(1, filler(encoder, length), length, depth)
    assert len(prompt) + passkeys.num_key_tokens == length
    text = encoder.tokenizer.decode(prompt.tolist())
    needle = NEEDLE.format(trial.key)
    assert text.count(needle) == 1 and text.endswith("What is the pass key? The pass key is")
    room = length - passkeys.num_key_tokens - len(trial.needle) - len(passkeys.question)
    before = encoder.tokenizer.decode(prompt[: round(depth * room)].tolist())
    assert text.index(needle) == len(before)
    answer = encoder.tokenizer.decode([*prompt.tolist(), *trial.choices_KD[0].tolist()])
    assert answer == f"{text} {trial.key}"


def test_keys_are_those_of_the_seed_all_of_as_many_tokens_and_none_twice(encoder: Encoder, passkeys: Passkeys) -> None:
    again = draw_passkeys(SPEC, encoder)
    assert [trial.key for trial in again.trials] == [trial.key for trial in passkeys.trials]
    other = draw_passkeys(SPEC.model_copy(update={"seed": 1}), encoder)
    assert [trial.key for trial in other.trials] != [trial.key for trial in passkeys.trials]
    rows = np.concatenate([trial.choices_KD for trial in passkeys.trials])
    assert rows.shape[0] == 16 and len({tuple(row) for row in rows.tolist()}) == 16
    for trial in passkeys.trials:
        assert encoder.tokenizer.decode(trial.choices_KD[0].tolist()).strip() == trial.key


@torch.no_grad()
def plain_logprob(model: Any, prompt: np.ndarray, answer: np.ndarray) -> float:
    whole = torch.from_numpy(np.concatenate([prompt, answer]))[None]
    logp_LV = model(whole, use_cache=False).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return float(sum(logp_LV[place, token] for place, token in zip(places, answer.tolist(), strict=True)))


@torch.no_grad()
def plain_greedy(model: Any, prompt: np.ndarray, count: int) -> tuple[int, ...]:
    tokens = prompt.tolist()
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize(
    ("name", "method"), [("rope", "trained"), ("rope", "yarn"), ("qwen", "ntk"), ("alibi", "trained")]
)
def test_answers_are_those_of_plain_forward_passes(
    encoder: Encoder, passkeys: Passkeys, name: str, method: Any
) -> None:
    length = 3 * TRAINING_LENGTH
    model = model_of(name, init_std=0.4)
    if method != "trained":
        stretch(model, method, 3.0, TRAINING_LENGTH)
    prompts_PL = np.stack([passkeys.prompt(trial, filler(encoder, length), length, 0.5) for trial in range(3)])
    choices_PKD = np.stack([trial.choices_KD for trial in passkeys.trials[:3]])
    found = answers(model, prompts_PL, choices_PKD, batch=2, num_real=VOCABULARY)
    set_text_length(model, length)
    for answer, prompt, choices_KD in zip(found, prompts_PL, choices_PKD, strict=True):
        logprobs = [plain_logprob(model, prompt, choice) for choice in choices_KD]
        assert answer.logprob == pytest.approx(logprobs[0], abs=1e-3)
        assert answer.num_likelier == sum(other >= logprobs[0] for other in logprobs[1:])
        assert answer.written == plain_greedy(model, prompt, passkeys.num_key_tokens)


def test_dynamic_answers_are_by_the_length_of_the_text_with_its_answer(encoder: Encoder, passkeys: Passkeys) -> None:
    length = 3 * TRAINING_LENGTH
    model = model_of("rope", init_std=0.4)
    stretch(model, "dynamic", 3.0, TRAINING_LENGTH)
    prompts_PL = np.stack([passkeys.prompt(0, filler(encoder, length), length, 0.5)])
    choices_PKD = passkeys.trials[0].choices_KD[None]
    (answer,) = answers(model, prompts_PL, choices_PKD, batch=1, num_real=VOCABULARY)
    fresh = model_of("rope", init_std=0.4)
    stretch(fresh, "dynamic", 3.0, TRAINING_LENGTH)
    set_text_length(fresh, length)
    assert answer.logprob == pytest.approx(plain_logprob(fresh, prompts_PL[0], choices_PKD[0, 0]), abs=1e-3)


def test_a_model_that_knows_nothing_finds_no_number_likelier(encoder: Encoder, passkeys: Passkeys) -> None:
    prompts_PL = np.stack([passkeys.prompt(0, filler(encoder, 200), 200, 0.5)])
    (answer,) = answers(
        model_of("rope", init_std=0.0), prompts_PL, passkeys.trials[0].choices_KD[None], 1, num_real=VOCABULARY
    )
    # As likely as the right one counts against it: an indifferent model is not called right.
    assert answer.num_likelier == SPEC.num_distractors
    assert answer.logprob == pytest.approx(-passkeys.num_key_tokens * np.log(VOCABULARY), rel=1e-5)


@pytest.mark.parametrize("name", ["rope", "alibi"])
def test_a_model_that_was_taught_the_answer_finds_and_writes_it(
    encoder: Encoder, passkeys: Passkeys, name: str
) -> None:
    length, answer_length = 2 * TRAINING_LENGTH, passkeys.num_key_tokens
    model = model_of(name, init_std=0.1, max_positions=length)
    prompts_PL = passkeys.prompt(1, filler(encoder, length), length, 0.5)[None]
    choices_PKD = passkeys.trials[1].choices_KD[None]
    whole_PL = torch.from_numpy(np.concatenate([prompts_PL, choices_PKD[:, 0]], axis=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits_DV = model(whole_PL[:, :-1]).logits[0, -answer_length:]
        loss = torch.nn.functional.cross_entropy(logits_DV, whole_PL[0, -answer_length:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (found,) = answers(model, prompts_PL, choices_PKD, batch=1, num_real=VOCABULARY)
    assert found.num_likelier == 0
    assert found.written == tuple(choices_PKD[0, 0].tolist())
    assert found.logprob > -1


def test_shares_count_what_is_first_and_what_is_written() -> None:
    rows = [
        {"num_likelier": 0, "written": True},
        {"num_likelier": 0, "written": False},
        {"num_likelier": 3, "written": False},
        {"num_likelier": 1, "written": False},
    ]
    found = outcome(rows, num_choices=5)
    assert (found["trials"], found["first"], found["written"], found["beaten"]) == (4, 0.5, 0.25, 0.75)
    low, high = share_interval(0, 10)
    assert low == 0 and high == pytest.approx(0.2775, abs=1e-4)  # Wilson's 0 of 10
    assert share_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_too_few_numbers_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"take 1000 numbers, and of 2 digits there are .*: raise passkey.num_digits"):
        draw_passkeys(PasskeySpec(num_digits=2), encoder)
