"""A GGUF header gives llama.cpp the vocabulary: its ids are ours, and where they cannot be, there is no header."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ray_jobs.tokenizer import bpe, gguf, sentence_pieces
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.gguf import TokenType, gguf_metadata
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.special import BYTE_LEVEL, added
from tests.tokenizer.test_sentence_pieces import MODELS, ODD, words_of

KINDS = (*bpe.PRE_TOKENIZERS, "sentencepiece-bpe")


def files_of(kind: str, texts: list[str], vocab_size: int) -> dict[str, bytes]:
    if kind in bpe.PRE_TOKENIZERS:
        return bpe.files(bpe.train(texts, vocab_size, kind, 2))
    model = sentence_pieces.train(words_of(texts), "sentencepiece-bpe", vocab_size)
    return tokenizer_files(sentence_pieces.to_tokenizer(model), "chatml", model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_says_all_that_llama_cpp_asks_for(kind: str) -> None:
    files = files_of(kind, ["the water of the mill 1234 " * 20], 320)
    told = gguf_metadata(files)
    encoder = Encoder(files["tokenizer.json"])
    tokens, types = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == encoder.vocab_size
    assert [encoder.tokenizer.token_to_id(token) for token in tokens] == list(range(len(tokens)))
    assert told["tokenizer.ggml.eos_token_id"] == encoder.end_of_text
    assert told["tokenizer.ggml.padding_token_id"] == encoder.pad != encoder.end_of_text
    pre = {"gpt2": "gpt-2", "llama3": "llama-bpe", "sentencepiece-bpe": "default"}[kind]
    assert told["tokenizer.ggml.pre"] == pre
    assert told["tokenizer.chat_template"].startswith("{%- for message in messages")
    assert types[encoder.end_of_text] == TokenType.CONTROL
    if kind == "sentencepiece-bpe":
        assert types[0] == TokenType.UNKNOWN and types[6:262] == [TokenType.BYTE] * 256
        assert len(told["tokenizer.ggml.scores"]) == len(tokens) and "tokenizer.ggml.merges" not in told
    else:
        assert len(told["tokenizer.ggml.merges"]) == len(tokens) - 260 and "tokenizer.ggml.scores" not in told


def test_unigram_is_refused_with_the_reason() -> None:
    model = MODELS["sentencepiece-unigram"]
    files = tokenizer_files(sentence_pieces.to_tokenizer(model), "chatml", model)
    with pytest.raises(
        ValueError, match=r"no bytes for characters without a piece.*tokenizer\.model sentencepiece-bpe"
    ):
        gguf_metadata(files)


def test_a_pre_tokenizer_without_a_name_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(added(BYTE_LEVEL))
    with pytest.raises(ValueError, match=r"llama\.cpp has no name for.*tokenizer\.pre_tokenizer gpt2 or llama3"):
        gguf_metadata(tokenizer_files(tokenizer))
    files = files_of("llama3", ["the water of the mill " * 20], 300)
    monkeypatch.setattr(gguf, "PRE", {"gpt2": "gpt-2"})
    with pytest.raises(ValueError, match=r"train one with tokenizer\.pre_tokenizer gpt2"):
        gguf_metadata(files)


class ModelParameters(ctypes.Structure):
    """llama_model_params as bytes, with room for more than it has; `vocab_only` is the first of its truth values."""

    _fields_ = (("content", ctypes.c_uint8 * 256),)


XLLAMACPP, VOCAB_ONLY = "2026.10", 72
"""Where it stands in that version."""


def llama_cpp(path: Path) -> Callable[[str], list[int]]:
    """llama.cpp's own tokenizing by the vocabulary of a GGUF file."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs xllamacpp: pip install xllamacpp")
    if not xllamacpp.__version__.startswith(XLLAMACPP):
        pytest.skip(f"knows the parameters of xllamacpp {XLLAMACPP}, not of {xllamacpp.__version__}")
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.llama_model_default_params.restype = ModelParameters
    library.llama_model_load_from_file.restype = ctypes.c_void_p
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParameters]
    library.llama_model_get_vocab.restype = ctypes.c_void_p
    library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    library.llama_tokenize.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32),
        *(ctypes.POINTER(ctypes.c_int32), ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
    ]
    parameters = library.llama_model_default_params()
    parameters.content[VOCAB_ONLY] = 1
    model = library.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    vocab = library.llama_model_get_vocab(model)

    def tokenize(text: str) -> list[int]:
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        size = library.llama_tokenize(vocab, data, len(data), room, len(room), True, False)
        assert size >= 0
        return list(room[:size])

    return tokenize


def write_vocabulary(path: Path, files: dict[str, bytes]) -> None:
    """A GGUF file without weights."""
    writing = pytest.importorskip("gguf", reason="needs gguf: pip install gguf")
    writer = writing.GGUFWriter(path, "llama")
    # Architecture values that llama.cpp reads before the vocabulary.
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, value in gguf_metadata(files).items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_gives_equal_ids(kind: str, tmp_path: Path, data_dir: Path) -> None:
    texts = [path.read_text()[:6000] for path in sorted((data_dir / "lid" / "sentences").glob("*.txt"))]
    texts += [(data_dir / "corpora" / "wikitext2-valid.txt").read_text()[:100_000]]
    files = files_of(kind, texts, 4000)
    write_vocabulary(tmp_path / "vocabulary.gguf", files)
    tokenize = llama_cpp(tmp_path / "vocabulary.gguf")
    encoder = Encoder(files["tokenizer.json"])
    differing = [text for text in [*texts, *ODD] if tokenize(text) != encoder.encode(text)]
    assert differing == []
