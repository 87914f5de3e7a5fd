"""A model's forward pass over a step: layer by layer, or, where only decoded tokens are computed on a GPU, compiled and
replayed as one CUDA graph.

A decoded token costs one reading of all weights, and a layer of ten small kernels is launched more slowly than it runs;
a graph is launched once. There is one for each number of rows, rounded up; it reads its step from tensors that stay
where they are (gpt-fast: PyTorch 2023, "Accelerating generative AI II").

Shapes: N new tokens, R rows of a graph, B blocks of a table, C model width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ray_jobs.inference.attention import Step, computing
from ray_jobs.inference.fused import FusedDecoder, FusedLayer, can_fuse, through
from ray_jobs.inference.memory import Memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What inductor is asked for where several rows are computed.
SEVERAL_ROWS: dict[str, Any] = {}
# A layer is compiled once for each number of rows; torch gives up at eight.
MOST_COMPILED = 64

Choose: TypeAlias = Callable[[Tensor, int], Tensor]
"""Logits [R, V] of a step, counted from 0 -> the tokens that are written, [R]."""


@dataclass(frozen=True)
class Decoded:
    """The tokens that are decoded in a step, as numpy arrays, which go to the device in one copy."""

    tokens_R: np.ndarray
    positions_R: np.ndarray
    slots_R: np.ndarray
    lengths_R: np.ndarray
    tables_RB: np.ndarray


class Forward:
    """Computes logits; keeps nothing but the memory that it is given."""

    def __init__(
        self,
        model: "PreTrainedModel",
        memory: Memory,
        num_tokens: int,
        *,
        compiled: bool | None = None,
        widest: int = 0,
    ):
        """
        Args:
            model: of transformers, which attends over blocks.
            memory: for keys and values.
            num_tokens: of the vocabulary, without the embedding's padding.
            compiled: whether decoding is compiled and replayed; None: on a GPU.
            widest: blocks of the longest table, for graphs.

        Raises:
            ValueError: compiling was asked for without a GPU.
        """
        on_gpu = model.device.type == "cuda"
        if compiled and not on_gpu:
            raise ValueError("decoding is compiled into CUDA graphs, and there is no GPU here: leave `compiled` out")
        self.model, self.memory, self.num_tokens, self.device = model.eval(), memory, num_tokens, model.device
        self._base: Any = model.base_model
        self.replays = on_gpu if compiled is None else compiled
        self._widest = widest
        self._graphs: dict[int, _Graph] = {}
        self._layers: list[FusedLayer] | None = None
        self._decoder: FusedDecoder | None = None
        base: Any = self._base
        if can_fuse(model):
            with torch.inference_mode(False), torch.no_grad():
                self._layers = [FusedLayer(layer) for layer in base.layers]
                if self.replays:
                    self._decoder = FusedDecoder(model, self._layers, num_tokens, SEVERAL_ROWS)

    @torch.inference_mode()
    def decode(self, decoded: Decoded) -> Tensor:
        """Logits of every row, fp32 [R, V]; the next call may overwrite them."""
        if self.replays:
            return self._graph(decoded).logits(decoded)
        step = Step(
            self.memory,
            self.on_device(decoded.slots_R),
            self.on_device(decoded.tables_RB),
            self.on_device(decoded.lengths_R),
        )
        return self.logits(decoded.tokens_R, decoded.positions_R, step, slice(None))

    @torch.inference_mode()
    def decode_ahead(self, decoded: Decoded, count: int, choose: Choose | None = None) -> Tensor:
        """Decodes `count` tokens of every row one after another, none of which the host waits for: int64 [count, R].
        Tables hold places for all of them. The likeliest ones without `choose`. For a model that is replayed."""
        graph = self._graph(decoded)
        rows = len(decoded.tokens_R)
        written = torch.empty(count, rows, dtype=torch.int64, device=self.device)
        for number in range(count):
            logits_RV = graph.logits(decoded) if number == 0 else graph.replayed(rows)
            if choose is not None:
                written[number] = choose(logits_RV, number)
            graph.advance(written[number], likeliest=choose is None)
        return written

    def _graph(self, decoded: Decoded) -> "_Graph":
        """Made at its first use."""
        rows = 1 << (len(decoded.tokens_R) - 1).bit_length()
        if rows not in self._graphs:
            self._graphs[rows] = _Graph(self, rows, self._widest)
        return self._graphs[rows]

    @torch.inference_mode()
    def logits(self, tokens_N: np.ndarray, positions_N: np.ndarray, step: Step, places: Any) -> Tensor:
        """Logits behind the new tokens at `places` among the step's, fp32 [places, V]."""
        tokens_1N, positions_1N = self.on_device(tokens_N).unsqueeze(0), self.on_device(positions_N).unsqueeze(0)
        hidden_1NC, turns = self._embedded(tokens_1N, positions_1N)
        if self._layers is not None:
            hidden_NC, (cos_1ND, sin_1ND) = hidden_1NC[0], turns
            for number, fused in enumerate(self._layers):
                hidden_NC = through(fused, number, hidden_NC, cos_1ND[0], sin_1ND[0], step)
            hidden_1NC = hidden_NC.unsqueeze(0)
        else:
            with computing(step):
                for layer in self._base.layers:
                    hidden_1NC = _through(layer, hidden_1NC, turns)
        return self._read_out(hidden_1NC[:, places])

    def on_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _embedded(self, tokens_1N: Tensor, positions_1N: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden_1NC = self._base.embed_tokens(tokens_1N)
        return hidden_1NC, self._base.rotary_emb(hidden_1NC, positions_1N)

    def _read_out(self, hidden_1NC: Tensor) -> Tensor:
        head: Any = self.model.get_output_embeddings()
        return head(self._base.norm(hidden_1NC))[0, :, : self.num_tokens].float()


def _through(layer: Any, hidden_1NC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    return layer(hidden_1NC, attention_mask=None, position_embeddings=turns, use_cache=False)


class _Graph:
    """The decoding of some rows, captured."""

    def __init__(self, forward: Forward, rows: int, widest: int):
        from ray_jobs.inference.advance import Likeliest

        # Tokens, positions, slots and lengths, then the tables; rows that are not used decode into the idle block.
        self._host = torch.zeros(rows * (4 + widest), dtype=torch.int32, pin_memory=True)
        self._input = torch.zeros_like(self._host, device=forward.device)
        numbers = self._host.numpy()
        self._numbers_4R, self._tables_RB = numbers[: 4 * rows].reshape(4, rows), numbers[4 * rows :].reshape(rows, -1)
        self._idle_slot, self._block_size = forward.memory.idle_slot, forward.memory.block_size
        self._fill_idle(0)
        self._input.copy_(self._host)
        self._state_4R, self._on_device_RB = (
            self._input[: 4 * rows].view(4, rows),
            self._input[4 * rows :].view(rows, -1),
        )
        tokens_R, positions_R, slots_R, lengths_R = self._state_4R
        self._best = Likeliest(rows, forward.device)
        step = Step(forward.memory, slots_R, self._on_device_RB, lengths_R)
        layers = forward._decoder.logits if forward._decoder else _compiled_layers(forward)

        def run() -> Tensor:
            logits_RV = layers(tokens_R, positions_R, step)
            self._best.find(logits_RV)
            return logits_RV

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
            for _ in range(2):  # compiles, then settles what is set up at the first call
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._logits_RV = run()

    def logits(self, decoded: Decoded) -> Tensor:
        """[R, V]."""
        count = len(decoded.tokens_R)
        arrays = decoded.tokens_R, decoded.positions_R, decoded.slots_R, decoded.lengths_R
        for row, array in enumerate(arrays):
            self._numbers_4R[row, :count] = array
        self._tables_RB[:count, : decoded.tables_RB.shape[1]] = decoded.tables_RB
        self._fill_idle(count)
        self._input.copy_(self._host, non_blocking=True)
        return self.replayed(count)

    def replayed(self, count: int) -> Tensor:
        """Logits of the first `count` rows, as the step's state is."""
        self._graph.replay()
        return self._logits_RV[:count]

    def advance(self, written_R: Tensor, *, likeliest: bool) -> None:
        """Goes on to the tokens of `written_R`, or to the likeliest, which are put there."""
        from ray_jobs.inference.advance import advance

        advance(self._state_4R, self._on_device_RB, self._block_size, written_R, self._best if likeliest else None)

    def _fill_idle(self, first: int) -> None:
        self._numbers_4R[:2, first:] = 0
        self._numbers_4R[2, first:], self._numbers_4R[3, first:] = self._idle_slot, 1
        self._tables_RB[first:] = self._idle_slot // self._block_size


def _compiled_layers(forward: Forward) -> Callable[[Tensor, Tensor, Step], Tensor]:
    """Decoding by transformers' own layers, each compiled; one compilation serves all."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=False, options=SEVERAL_ROWS)

    embedded, through, read_out = compiled(forward._embedded), compiled(_through), compiled(forward._read_out)

    def run(tokens_R: Tensor, positions_R: Tensor, step: Step) -> Tensor:
        with computing(step):
            hidden_1RC, turns = embedded(tokens_R.unsqueeze(0), positions_R.unsqueeze(0))
            for layer in forward._base.layers:
                hidden_1RC = through(layer, hidden_1RC, turns)
            return read_out(hidden_1RC)

    return run
