"""Evaluations while training runs: bits per byte of held-out documents by domain, and answers to questions.

Every rank scores its share of the batches, all of them equally many: FSDP gathers weights in every forward pass. One
all-reduce then gives every rank all sums. Weights, moments, gradients and random numbers stay what they were.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from configs.pretrain import PretrainSpec
from ray_jobs.model.loss import LossModel
from ray_jobs.model.questions import accuracy_by_set
from ray_jobs.model.scoring import Row, continuation_row, document_rows, summed_nlls
from ray_jobs.pretrain.measured import Measured
from ray_jobs.tokenizer.heldout import HeldOut


class Evaluation:
    """Called by every rank with the model and the steps taken; returns what the curve's line says of them."""

    def __init__(self, spec: PretrainSpec, given: Measured, first: int, device: torch.device, batch: int):
        """
        Args:
            first: the special token that stands before a document.
            batch: rows that a rank computes at once: no more than training holds, which has gradients beside.
        """
        assert spec.evaluation is not None
        self._spec, self._evaluation, self._given = spec, spec.evaluation, given
        self._first, self._device, self._batch = first, device, batch
        self._rows = self._all_rows()

    def __call__(self, model: LossModel, step: int) -> dict[str, Any]:
        """Nothing where no evaluation is due. Collective."""
        if step % self._evaluation.every and step != self._spec.steps:
            return {}
        began = time.perf_counter()
        nlls = self._nlls(model)
        of_documents, of_choices = np.split(nlls, [len(self._given.documents)])
        accuracy = accuracy_by_set(self._given.questions, of_choices)
        whole = bits_per_byte(of_documents, self._given.documents, ["all"] * len(of_documents))
        return {
            "heldout_bits_per_byte": whole["all"],
            "heldout_bits_per_byte_by_domain": bits_per_byte(of_documents, self._given.documents, self._given.domains),
            **({"accuracy_by_set": accuracy} if accuracy else {}),
            "evaluation_s": time.perf_counter() - began,
        }

    def _all_rows(self) -> list[Row]:
        context = self._spec.sequence_length
        rows: list[Row] = []
        for place, document in enumerate(self._given.documents):
            rows += document_rows(document.tokens, self._first, context, max(1, context // 2), place)
        place = len(self._given.documents)
        for question in self._given.questions:
            for choice in question.choices:
                rows.append(continuation_row(question.text, choice.tokens, self._first, context, place))
                place += 1
        self._num_places = place
        return rows

    def _nlls(self, model: LossModel) -> np.ndarray:
        """−log p of every document, then of every choice, in nats."""
        model.eval()
        try:
            # Eager: a compiled layer would be compiled again for every length.
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                own = summed_nlls(
                    model.nlls,
                    self._rows,
                    self._num_places,
                    self._batch,
                    self._first,
                    self._device,
                    dist.get_rank(),
                    dist.get_world_size(),
                )
        finally:
            model.train()
            for module in model.modules():
                if isinstance(module, FSDPModule):  # no backward pass comes that would do it
                    module.reshard()
        sums = torch.from_numpy(own).to(self._device)
        dist.all_reduce(sums)
        return sums.cpu().numpy()


def bits_per_byte(nlls: np.ndarray, documents: Sequence[HeldOut], domains: Sequence[str]) -> dict[str, float]:
    """By domain, in the order of names."""
    bits: dict[str, float] = {}
    sizes: Counter[str] = Counter()
    for nll, document, domain in zip(nlls.tolist(), documents, domains, strict=True):
        bits[domain] = bits.get(domain, 0.0) + nll / math.log(2)
        sizes[domain] += document.num_bytes
    return {domain: bits[domain] / sizes[domain] for domain in sorted(bits)}
