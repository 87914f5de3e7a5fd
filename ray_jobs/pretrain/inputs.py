"""What pretraining reads of the nodes before it, and what must fit. Needs no torch."""

import logging
from typing import TYPE_CHECKING

from configs.base import Resources
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ray_jobs.tokenizer.loader import TokenDataset
    from ray_jobs.tokenizer.packing import PackedDataset

log = logging.getLogger("headrace")


def check_same_tokenizer(tokens: Checkpoint, tokenizer: Checkpoint) -> None:
    """Raises ValueError where the tokens were made by another tokenizer than the model's."""
    made_by = tokens.manifest.inputs["tokenizer"].key
    if made_by != tokenizer.key:
        raise ValueError(
            f"the tokens {tokens.key[:16]} were made by tokenizer {made_by[:16]}, but this node's tokenizer is "
            f"{tokenizer.key[:16]}: their ids mean other words; give both slots the same tokenizer"
        )


def training_samples(tokens: Checkpoint, spec: PretrainSpec, resources: Resources) -> "TokenDataset | PackedDataset":
    """The fixed order of training sequences that the spec's seed gives. Raises ValueError where there is none."""
    from ray_jobs.tokenizer.loader import TokenDataset
    from ray_jobs.tokenizer.packing import PackedDataset
    from ray_jobs.tokenizer.streams import StoreStream, document_lengths, stream_of

    stream = stream_of(tokens, "train", resources.tokens_from_store)
    if isinstance(stream, StoreStream) and spec.shuffle_run == 1:
        log.warning(
            "every sequence is a request to the store, of which one client makes some 400 a second: set "
            "pretrain.shuffle_run to 16 or more, or resources.tokens_from_store to false"
        )
    if spec.packing == "concatenate":
        return TokenDataset(stream, spec.sequence_length, spec.seed, spec.shuffle_run)
    end_of_text = int(tokens.manifest.metrics["end_of_text"])
    packed = PackedDataset(stream, document_lengths(tokens, "train"), spec.sequence_length, spec.seed, end_of_text)
    log.info("%d sequences are packed, of which %.3f%% is padding", len(packed), 100 * packed.padding_share)
    return packed


def check_batch(spec: PretrainSpec, num_samples: int, world: int) -> None:
    """Raises ValueError where the global batch fits neither the ranks nor the corpus."""
    if spec.global_batch < world:
        raise ValueError(
            f"global_batch ({spec.global_batch}) is less than {world} ranks, some of which would train on nothing: "
            "take fewer workers or a larger batch"
        )
    if num_samples < spec.global_batch:
        raise ValueError(
            f"the training tokens give {num_samples} sequences of {spec.sequence_length}, less than one global batch "
            f"of {spec.global_batch}: take more documents, a shorter sequence_length or a smaller global_batch"
        )
