"""Beam search finds what transformers' generate finds, and leaves no block behind."""

import pytest
import torch

from configs.inference import EngineSpec
from ray_jobs.inference.beams import beam_search
from ray_jobs.inference.engine import Engine
from tests.inference.test_engine import VOCABULARY, model_of, prompts


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("ends", [(), (11,), tuple(range(0, 97, 5))])
def test_beams_are_those_of_transformers(width: int, length_penalty: float, ends: tuple[int, ...]) -> None:
    for prompt in prompts(3, longest=20):
        engine = Engine(model_of(), VOCABULARY, ends, spec=EngineSpec(block_size=4))
        found = beam_search(engine, prompt, width, 12, length_penalty)
        assert engine.blocks.num_available == engine.blocks.num_blocks
        model = model_of()
        wanted = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=12,
            length_penalty=length_penalty,
            eos_token_id=list(ends) or None,
            pad_token_id=0,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = [row[len(prompt) :].tolist() for row in wanted.sequences]
        for rank, text in enumerate(texts):
            stop = next((place for place, token in enumerate(text) if token in ends), len(text))
            assert list(found[rank].tokens) == text[:stop]
            assert found[rank].ended == (stop < len(text))
        if width > 1:
            scores = [one.score for one in found]
            assert scores == pytest.approx(wanted.sequences_scores.tolist(), abs=1e-4)


def test_beams_that_do_not_fit_are_refused_and_nothing_is_kept() -> None:
    engine = Engine(model_of(), VOCABULARY, spec=EngineSpec(block_size=4, num_blocks=20))
    with pytest.raises(ValueError, match="lower the number of beams"):
        beam_search(engine, [1] * 10, 10, 30)
    with pytest.raises(ValueError, match="at least 1"):
        beam_search(engine, [1], 0, 3)
    assert engine.blocks.num_available == 20
