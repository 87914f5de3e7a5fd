"""Beam search: the texts of several likeliest beginnings, extended together.

Each beam is a sequence of the engine's blocks. Beams that come of one share its blocks, and copy the last when they
write to it; what no beam needs is free at once.

Shapes: W beams, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.inference import DecodingSpec
from ray_jobs.inference.blocks import Table
from ray_jobs.inference.engine import Engine


@dataclass(frozen=True)
class Hypothesis:
    """A text that beam search found."""

    tokens: tuple[int, ...]
    """Without the prompt, and without the token that ended it."""
    score: float
    """Sum of log-probabilities over length^length_penalty."""
    ended: bool
    """At an end-of-text token, else at max_new_tokens."""


@dataclass
class _Beam:
    tokens: list[int]
    total: float
    table: Table


@torch.inference_mode()
def beam_search(
    engine: Engine, prompt: Sequence[int], width: int, max_new_tokens: int, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """The `width` best texts, the best first, as transformers' `generate` with `num_beams` finds them (its
    `early_stopping=False`): a text that ended competes by its score, and the search is over when no beam can still
    become better than the worst of them.

    Args:
        engine: its other requests wait meanwhile.
        prompt: token ids.
        width: beams.
        max_new_tokens: the most that is written.
        length_penalty: above 1 prefers longer texts.

    Raises:
        ValueError: as `Engine.add`; or the beams do not fit into the memory that is free.
    """
    if width < 1:
        raise ValueError(f"beam search with {width} beams finds nothing: give at least 1")
    engine.check(prompt, DecodingSpec(max_new_tokens=max_new_tokens))
    sequences, blocks = engine.sequences, engine.blocks
    shared, whole = len(prompt) // blocks.block_size, blocks.blocks_for(len(prompt) + max_new_tokens)
    if shared + width * (whole - shared) + 1 > blocks.num_available:
        raise ValueError(
            f"{width} beams of {len(prompt) + max_new_tokens} tokens do not fit {blocks.num_available} free blocks: "
            "raise num_blocks, or lower the number of beams or max_new_tokens"
        )
    table = blocks.begin(prompt)
    logits_1V = sequences.prefill(table, prompt[table.length :])
    beams = [_Beam([], 0.0, table)]
    done: list[Hypothesis] = []
    for step in range(max_new_tokens):
        logits_WV = logits_1V if step == 0 else sequences.decode([(beam.table, beam.tokens[-1]) for beam in beams])
        totals_WV = logits_WV.log_softmax(dim=1) + torch.tensor(
            [[beam.total] for beam in beams], device=logits_WV.device
        )
        # Enough for `width` that go on even where each has an end among them.
        count = min((1 + len(engine.end_tokens)) * width, totals_WV.numel())
        best = totals_WV.view(-1).topk(count)
        new: list[_Beam] = []
        last = step + 1 == max_new_tokens
        for rank, (total, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parent, token = beams[place // engine.num_tokens], place % engine.num_tokens
            ended = token in engine.end_tokens
            if ended or last:
                if rank < width:  # an end that is not among the best is no candidate
                    tokens = parent.tokens if ended else [*parent.tokens, token]
                    done.append(Hypothesis(tuple(tokens), total / (step + 1) ** length_penalty, ended))
            elif len(new) < width:
                new.append(_Beam([*parent.tokens, token], total, blocks.fork(parent.table)))
        for beam in beams:
            blocks.release(beam.table)
        beams = new
        done = sorted(done, key=lambda one: -one.score)[:width]
        if last or (len(done) == width and beams[0].total / (step + 1) ** length_penalty <= done[-1].score):
            break
    for beam in beams:
        blocks.release(beam.table)
    return done
