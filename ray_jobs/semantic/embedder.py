"""Sentence embeddings by a transformer encoder in a local folder, as sentence-transformers lays one out.

The mean of the last layer over a text's tokens, at length 1: what all-MiniLM-L6-v2 and its like are trained for
(Reimers, Gurevych, "Sentence-BERT", 2019, section 3). Only the first tokens that the model takes are read.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.semantic import EmbeddingModel
from ray_jobs.cluster.fan_out import UserError

BATCH_TEXTS = 32
DEFAULT_MAX_TOKENS = 256
HOW_TO_INSTALL = "`pip install headrace[semantic]` on every worker"
READ_FILES = ("*.json", "*.safetensors", "vocab.txt")
"""What transformers reads of a model's folder."""


def check_installed() -> None:
    """Raises UserError where a library of the node is missing."""
    if importlib.util.find_spec("faiss") is None:
        raise UserError(f"semantic searches with faiss, which is not installed: {HOW_TO_INSTALL}")


def model_folder(model: EmbeddingModel) -> Path:
    """The folder of the spec's model, whose files are those that it names by their sha256.

    Raises:
        UserError: it is not there, or another one is.
    """
    if model.folder is not None:
        folder = Path(model.folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is no folder of a model on this machine: it must hold config.json, a tokenizer "
                            "and model.safetensors, on every worker")  # fmt: skip
    else:
        assert model.package is not None, "a model has a package or a folder"
        spec = importlib.util.find_spec(model.package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"the embedding model's package {model.package} is not installed: {HOW_TO_INSTALL}, or name a model's "
                "folder, in sentence-transformers' layout, as semantic.model.folder"
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
    found = digest(folder)
    if found != model.sha256:
        raise UserError(
            f"the model in {folder} has the sha256 {found}, and the recipe says {model.sha256}: if this model is what "
            "you want, write its own as semantic.model.sha256"
        )
    return folder


@cache
def digest(folder: Path) -> str:
    """sha256 over the name and the sha256 of each file at the folder's top that is read of it, by name."""
    names = sorted({path.name for pattern in READ_FILES for path in folder.glob(pattern)})
    total = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


@cache
def loaded(folder: Path) -> "Embedder":
    """The model, read once a process."""
    return Embedder(folder)


class Embedder:
    def __init__(self, folder: Path, device: str = "cpu"):
        from transformers import AutoModel, AutoTokenizer

        # Never a hub, and never code or pickles of the folder's.
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = model.to(device).eval()
        self._device = device
        settings = folder / "sentence_bert_config.json"
        self._max_tokens = (
            json.loads(settings.read_text())["max_seq_length"] if settings.exists() else DEFAULT_MAX_TOKENS
        )

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [n, d], rows of length 1."""
        import torch

        # Texts of like length side by side: less padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_TEXTS):
                rows = order[start : start + BATCH_TEXTS]
                batch = self._tokenizer(
                    [texts[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                ).to(self._device)
                states = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                mean = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
                out[rows] = torch.nn.functional.normalize(mean, dim=1).float().cpu().numpy()
        return out
