"""A small untrained model with a byte-level tokenizer and a form for conversations, and a server of it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from configs.inference import EngineSpec
from configs.serve import LimitsSpec, ServeSpec
from ray_jobs.inference.loading import load
from ray_jobs.serve.api_keys import ApiKeys
from ray_jobs.serve.app import make_app
from ray_jobs.serve.building import service_of
from ray_jobs.serve.in_process import bound
from ray_jobs.serve.service import Service
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.special import BYTE_LEVEL, added

CONTEXT = 256
TEXTS = ["the mill wheel turns as the water falls", "größer als 10 €, 日本語 und 🙂", "a b c d e f g h i j k l m"] * 3


def write_model(folder: Path, chat: bool = True) -> Path:
    """Files that `from_pretrained` reads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=added(BYTE_LEVEL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():  # sharp, so that no two tokens are equally likely
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    model.save_pretrained(folder)
    for name, content in tokenizer_files(tokenizer).items():
        if chat or name != "chat_template.jinja":
            (folder / name).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Serving:
    url: str
    service: Service

    @property
    def blocks_in_use(self) -> int:
        blocks = self.service.loop.engine.blocks
        return blocks.num_blocks - blocks.num_available

    def wait_until_idle(self, seconds: float = 20) -> None:
        """Until no answer is under way; fails where one stays."""
        deadline = time.monotonic() + seconds
        while self.service.loop.num_open or self.blocks_in_use or self.service.loop.engine.waiting:
            assert time.monotonic() < deadline, (self.service.loop.num_open, self.blocks_in_use)
            time.sleep(0.01)


@contextlib.contextmanager
def serving(
    folder: Path,
    engine: EngineSpec | None = None,
    limits: LimitsSpec | None = None,
    keys: list[str] | None = None,
    endless: bool = False,
) -> Iterator[Serving]:
    """The application under uvicorn on a free port, in a thread. endless: no token ends an answer."""
    spec = ServeSpec(
        model=str(folder),
        name="tiny",
        device="cpu",
        dtype="fp32",
        engine=engine or EngineSpec(num_blocks=256),
        limits=limits or LimitsSpec(),
    )
    loaded = load(spec.model, device=spec.device, dtype=spec.dtype)
    service, metrics = service_of(replace(loaded, end_tokens=()) if endless else loaded, spec)
    app = make_app(service, ApiKeys(keys or []), metrics)
    with bound("127.0.0.1", 0) as listening:
        listening.listen(2048)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", backlog=2048, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        while httpx.get(f"{url}/health", timeout=30).status_code != 200:
            time.sleep(0.05)
        try:
            yield Serving(url, service)
        finally:
            server.should_exit = True
            thread.join(20)
