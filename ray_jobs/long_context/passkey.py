"""A number is told somewhere in a long text and asked for at its end.

The task and its words are those of Mohtashami and Jaggi 2023 (arXiv:2305.16300, section 4.2), but the text around is
held-out text instead of one sentence repeated. A small model can hardly write the number; whether it knows it is seen
by rank as well: of the right number and of others, drawn alike and not told, the right one should be the likeliest.

Shapes: P prompts (of one length), B of them in a batch, L tokens of a prompt, K numbers to choose from (the right one
first), D tokens of a number, V vocabulary, H hidden.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from configs.long_context import PasskeySpec
from ray_jobs.long_context.texts import Ids
from ray_jobs.model.positions import set_text_length
from ray_jobs.tokenizer.encode import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEEDLE = "\nThe pass key is {0}. Remember it. {0} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"
NUM_POOL = 8
"""So many times the numbers wanted are drawn, of which those with the commonest count of tokens are taken."""


@dataclass(frozen=True)
class Trial:
    """One number that is told, and those that it is told apart from."""

    key: str
    needle: tuple[int, ...]
    choices_KD: Ids


@dataclass(frozen=True)
class Passkeys:
    """The same for all models, methods, lengths and depths."""

    trials: tuple[Trial, ...]
    question: tuple[int, ...]

    @property
    def num_key_tokens(self) -> int:
        return self.trials[0].choices_KD.shape[1]

    @property
    def shortest(self) -> int:
        """Tokens of a text that has room for every needle, the question and the answer."""
        return max(len(trial.needle) for trial in self.trials) + len(self.question) + self.num_key_tokens

    def prompt(self, trial: int, text_L: Ids, length: int, depth: float) -> Ids:
        """`length` tokens less those of the answer: the needle at a depth of 0 to 1 of the text, then the question."""
        needle = self.trials[trial].needle
        room = length - self.num_key_tokens - len(needle) - len(self.question)
        assert 0 <= room <= len(text_L)
        before = round(depth * room)
        return np.concatenate([text_L[:before], needle, text_L[before:room], self.question]).astype(np.int64)


def draw_passkeys(spec: PasskeySpec, encoder: Encoder) -> Passkeys:
    """The trials, by the spec's seed. All numbers are of as many tokens, so that none is likelier for being short.

    Raises:
        ValueError: there are too few numbers of so many digits.
    """
    question = encoder.encode(QUESTION)
    number = spec.num_trials * len(spec.depths) * (spec.num_distractors + 1)
    generator = np.random.Generator(np.random.PCG64(spec.seed))
    low, high = 10 ** (spec.num_digits - 1), 10**spec.num_digits
    drawn = list(dict.fromkeys(generator.integers(low, high, size=NUM_POOL * number).tolist()))
    encoded = {key: encoder.encode(f"{QUESTION} {key}")[len(question) :] for key in drawn}
    commonest, _ = Counter(map(len, encoded.values())).most_common(1)[0]
    keys = [key for key in drawn if len(encoded[key]) == commonest]
    if len(keys) < number:
        raise ValueError(
            f"passkey: {spec.num_trials} trials at {len(spec.depths)} depths with {spec.num_distractors} distractors "
            f"take {number} numbers, and of {spec.num_digits} digits there are {len(keys)} of one length in tokens: "
            "raise passkey.num_digits"
        )
    trials = []
    for first in range(0, number, spec.num_distractors + 1):
        chosen = keys[first : first + spec.num_distractors + 1]
        choices_KD = np.array([encoded[key] for key in chosen], dtype=np.int64)
        trials.append(Trial(str(chosen[0]), tuple(encoder.encode(NEEDLE.format(chosen[0]))), choices_KD))
    return Passkeys(tuple(trials), tuple(question))


@dataclass(frozen=True)
class Answer:
    """To one prompt."""

    num_likelier: int
    """Wrong numbers that the model finds as likely as the right one or likelier."""
    written: tuple[int, ...]
    """By the model itself, always its likeliest token."""
    logprob: float
    """Of the right number, in nats."""


@torch.inference_mode()
def answers(model: "PreTrainedModel", prompts_PL: Ids, choices_PKD: Ids, batch: int, num_real: int) -> list[Answer]:
    """What the model makes of each prompt.

    Keys and values of a prompt are computed once, and serve all numbers; frequencies that depend on the length are
    those of the text with its answer.

    Args:
        prompts_PL: all of one length.
        choices_PKD: the numbers that may follow each, the right one first.
        batch: prompts computed at once.
        num_real: tokens of the vocabulary, without the embedding's padding.
    """
    length = prompts_PL.shape[1] + choices_PKD.shape[2]
    set_text_length(model, length)
    found: list[Answer] = []
    for first in range(0, len(prompts_PL), batch):
        prompts_BL = torch.from_numpy(prompts_PL[first : first + batch]).to(model.device)
        choices_BKD = torch.from_numpy(choices_PKD[first : first + batch]).to(model.device)
        told = model.base_model(prompts_BL, use_cache=True)
        logits_BV = _logits(model, told.last_hidden_state[:, -1], num_real)
        logp_BK = _logprobs(model, choices_BKD, logits_BV, copy.deepcopy(told.past_key_values), num_real)
        written_BD = _written(model, logits_BV, told.past_key_values, choices_BKD.shape[2], num_real)
        likelier_B = (logp_BK[:, 1:] >= logp_BK[:, :1]).sum(dim=1)
        rows = zip(likelier_B.tolist(), written_BD.tolist(), logp_BK[:, 0].tolist(), strict=True)
        found += [Answer(likelier, tuple(written), logprob) for likelier, written, logprob in rows]
    return found


def _logits(model: "PreTrainedModel", hidden_NH: Tensor, num_real: int) -> Tensor:
    head: Any = model.get_output_embeddings()
    logits_NV: Tensor = head(hidden_NH).float()
    logits_NV[..., num_real:] = -torch.inf
    return logits_NV


def _logprobs(model: "PreTrainedModel", choices_BKD: Tensor, logits_BV: Tensor, cache: Any, num_real: int) -> Tensor:
    """log p of each number behind its prompt: [B, K]."""
    num_choices, num_tokens = choices_BKD.shape[1:]
    logp_BK = logits_BV.log_softmax(dim=1).gather(1, choices_BKD[:, :, 0])
    if num_tokens == 1:
        return logp_BK
    cache.batch_repeat_interleave(num_choices)
    rows_ND = choices_BKD.flatten(0, 1)
    hidden_NDH = model.base_model(rows_ND[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state
    logp_NDV = _logits(model, hidden_NDH, num_real).log_softmax(dim=2)
    rest_N = logp_NDV.gather(2, rows_ND[:, 1:, None]).sum(dim=(1, 2))
    return logp_BK + rest_N.view_as(logp_BK)


def _written(model: "PreTrainedModel", logits_BV: Tensor, cache: Any, num_tokens: int, num_real: int) -> Tensor:
    """The likeliest tokens, one after another: [B, num_tokens]."""
    tokens = [logits_BV.argmax(dim=1, keepdim=True)]
    while len(tokens) < num_tokens:
        hidden_B1H = model.base_model(tokens[-1], past_key_values=cache, use_cache=True).last_hidden_state
        tokens.append(_logits(model, hidden_B1H[:, 0], num_real).argmax(dim=1, keepdim=True))
    return torch.cat(tokens, dim=1)


def share_interval(right: int, number: int) -> tuple[float, float]:
    """95% of a share by Wilson 1927: within 0 and 1, and sound for few trials."""
    z = 1.959964  # the normal distribution's 97.5th percentile
    middle, spread = right + z * z / 2, z * (right * (number - right) / number + z * z / 4) ** 0.5
    return max(0.0, (middle - spread) / (number + z * z)), min(1.0, (middle + spread) / (number + z * z))


def outcome(rows: Sequence[dict[str, Any]], num_choices: int) -> dict[str, Any]:
    """How often the right number was found, over some answers with their `num_likelier` and `written`."""
    number = len(rows)
    first = sum(row["num_likelier"] == 0 for row in rows)
    return {
        "trials": number,
        "first": first / number,
        "first_95": list(share_interval(first, number)),
        "beaten": 1 - sum(row["num_likelier"] for row in rows) / (number * (num_choices - 1)),
        "written": sum(row["written"] for row in rows) / number,
    }
