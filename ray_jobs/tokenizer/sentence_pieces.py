"""SentencePiece vocabularies as LLaMA's: BPE (Kudo and Richardson 2018) or unigram (Kudo 2018, EM with pruning).

Trained by the library `sentencepiece` with LLaMA's choices (Touvron et al. 2023): text stays as it is, blanks are
pieces like others, every digit is a piece of its own, characters without a piece become bytes, and a blank is put
before a text. A vocabulary never holds a line end; what is decoded has blanks for U+2581, which is SentencePiece's own
sign for them.

The library is given words with their counts and not texts, so that its memory grows with the distinct words. They are
cut as it would cut lines itself; its BPE is then the same, merge by merge. Unigram's first candidates are drawn from
distinct words and not from all text, which changed bytes a token by less than 0.1% on 20 MB.
"""

import io
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from tokenizers import Tokenizer, decoders, models, normalizers

from ray_jobs.cluster.fan_out import UserError
from ray_jobs.tokenizer.counting import LONGEST_WORD
from ray_jobs.tokenizer.merging import Words
from ray_jobs.tokenizer.special import CHAT_END, CHAT_START, SENTENCE_PIECE, added

Kind: TypeAlias = Literal["sentencepiece-bpe", "sentencepiece-unigram"]
MODEL_TYPES: dict[Kind, str] = {"sentencepiece-bpe": "bpe", "sentencepiece-unigram": "unigram"}

BLANK = "\u2581"
COVERAGE = 0.9995
"""Share of the sample's characters that get a piece; the library's default. The others become bytes."""
# EM adds up by thread, so its results depend on their number: it is not the machine's.
NUM_THREADS = 4
# A tab parts a word from its count, so it travels as the control character before it: where pairs are equally frequent,
# the order of their characters counts. That one, and NUL, which can be in no piece, end a word.
_TAB = "\x08"
_ENDS = re.compile("[\0\x08]")
_SPELLED = "".join(sorted({*"".join(SENTENCE_PIECE.names), *"<0x>", *"0123456789ABCDEF"}))
"""What the names of special and byte pieces are spelled with: always pieces, so that text which holds such a name is
read letter by letter."""


def train(words: Words, kind: Kind, vocab_size: int) -> bytes:
    """The content of a tokenizer.model of at most `vocab_size` pieces: fewer where the words have no more.

    Args:
        words: counted with `counting.BLANKS`.

    Raises:
        UserError: the vocabulary is too small for the characters of the words, or these have too little text.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    if next(_rows(words), None) is None:
        raise UserError("the sample holds no text: raise tokenizer.sample_bytes, or take more of the crawl")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_rows(words),
            model_writer=written,
            input_format="tsv",
            model_type=MODEL_TYPES[kind],
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=COVERAGE,
            required_chars=_SPELLED,
            max_sentence_length=4 * LONGEST_WORD,
            num_threads=NUM_THREADS,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            add_dummy_prefix=False,  # the words of a line's beginning have it
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            pad_piece=SENTENCE_PIECE.pad,
            control_symbols=[CHAT_START, CHAT_END],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"sentencepiece cannot train {vocab_size} pieces on this sample ({' '.join(str(error).split())}): raise "
            "tokenizer.vocab_size where it is too small for the sample's characters, or else tokenizer.sample_bytes"
        ) from error
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    model.normalizer_spec.add_dummy_prefix = True
    for piece in model.pieces:
        piece.piece = piece.piece.replace(_TAB, "\t")
    return bytes(model.SerializeToString(deterministic=True))


def _rows(words: Words) -> Iterator[str]:
    """word, tab, count."""
    data, start = words.data.tobytes(), 0
    for end, count in zip(words.ends.tolist(), words.counts.tolist(), strict=True):
        for part in _ENDS.split(data[start:end].decode()):
            if part:
                yield f"{part.replace(chr(9), _TAB)}\t{count}"
        start = end


def to_tokenizer(data: bytes) -> Tokenizer:
    """What gives the ids of `SentencePieceProcessor(model_proto=data)` in the form of tokenizer.json.

    In a text of many thousand characters unigram's may differ: there the library adds up scores in 32 bits, and takes
    the worse of two nearly equal ways to cut it.
    """
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    ordinary = {piece.piece for piece in model.pieces if piece.type == piece.NORMAL}
    is_bpe = model.trainer_spec.model_type == model.trainer_spec.BPE
    tokenizer = Tokenizer(_bpe(pieces, ordinary) if is_bpe else _unigram(pieces, ordinary))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    tokenizer.add_special_tokens(added(SENTENCE_PIECE))
    return tokenizer


def _bpe(pieces: list[tuple[str, float]], ordinary: set[str]) -> Any:
    """Scores fall from piece to piece: each stands for all pairs that join to it, earlier pieces before later ones."""
    number = {piece: place for place, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, _ in sorted(pieces, key=lambda entry: -entry[1]):
        if piece in ordinary:
            halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            known = [(left, right) for left, right in halves if left in ordinary and right in ordinary]
            merges += sorted(known, key=lambda pair: (number[pair[0]], number[pair[1]]))
    return models.BPE(number, merges, unk_token=SENTENCE_PIECE.unknown, fuse_unk=True, byte_fallback=True)


def _unigram(pieces: list[tuple[str, float]], ordinary: set[str]) -> Any:
    """`tokenizers` would find special and byte pieces in text that spells them: each costs more than its letters do."""
    lowest = min(score for piece, score in pieces if piece in ordinary)
    never = (lowest - 1) * (1 + max(len(piece) for piece, _ in pieces if piece not in ordinary))
    scored = [(piece, score if piece in ordinary else never) for piece, score in pieces]
    return models.Unigram(scored, unk_id=0, byte_fallback=True)
