"""Continuations of held-out documents' beginnings, as the model writes them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.evaluate import SamplingSpec
from ray_jobs.model.files import context_of
from ray_jobs.tokenizer.heldout import HeldOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """A prompt, what the model wrote, and what the document says there."""

    document: str
    prompt: str
    continuation: str
    reference: str
    ended: bool
    """Whether the model ended the text itself."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_samples(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    documents: Sequence[HeldOut],
    first: int,
    spec: SamplingSpec,
) -> list[Sample]:
    """Continues the first tokens of documents drawn by the spec's seed; fewer where few documents are long enough.

    `first` is the special token that stands before a document, and that ends one. Raises ValueError when prompt and
    continuation do not fit the model's context.
    """
    import torch

    if spec.num_samples == 0:
        return []
    length = 1 + spec.num_prompt_tokens + spec.num_new_tokens
    if length > context_of(model):
        raise ValueError(
            f"sampling.num_prompt_tokens + num_new_tokens + 1 is {length}, more than the model's "
            f"{context_of(model)} positions: lower one of them"
        )
    long_enough = [document for document in documents if len(document.tokens) > spec.num_prompt_tokens]
    generator = np.random.Generator(np.random.PCG64(spec.seed))
    chosen = generator.permutation(len(long_enough))[: spec.num_samples]
    if len(chosen) == 0:
        return []
    prompts_BL = np.stack([np.concatenate([[first], long_enough[i].tokens[: spec.num_prompt_tokens]]) for i in chosen])
    torch.manual_seed(spec.seed)
    choice: dict[str, Any] = {"do_sample": False}
    if spec.temperature > 0:
        choice = {"do_sample": True, "temperature": spec.temperature, "top_k": spec.top_k, "top_p": spec.top_p}
    inputs_BL = torch.from_numpy(prompts_BL.astype(np.int64)).to(model.device)
    generate: Any = model.generate
    written_BL = generate(
        inputs_BL,
        attention_mask=torch.ones_like(inputs_BL),
        max_new_tokens=spec.num_new_tokens,
        eos_token_id=first,
        pad_token_id=first,
        **choice,
    )
    samples = []
    for i, row in zip(chosen, written_BL[:, inputs_BL.shape[1] :].tolist(), strict=True):
        document = long_enough[i]
        ended = first in row
        new = row[: row.index(first)] if ended else row
        end = spec.num_prompt_tokens + spec.num_new_tokens
        prompt, reference = document.tokens[: spec.num_prompt_tokens], document.tokens[spec.num_prompt_tokens : end]
        samples.append(
            Sample(
                document.id,
                prompt=str(tokenizer.decode(prompt.tolist())),
                continuation=str(tokenizer.decode(new)),
                reference=str(tokenizer.decode(reference.tolist())),
                ended=ended,
            )
        )
    return samples
