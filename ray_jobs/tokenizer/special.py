"""Special tokens: what is no text. None ever arises from raw text through `encode.Encoder`; transformers' own default
is to read them where text spells them, which is what a rendered chat template needs."""

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

CHAT_START, CHAT_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class SpecialTokens:
    """Of one kind of tokenizer. Their numbers are the first ones, in the order of `names`."""

    names: tuple[str, ...]
    begin: str
    end: str
    """Follows each document. Padding is another token: a model that is taught not to look at padding would else not
    learn to end."""
    pad: str
    unknown: str | None = None
    """For characters without a token, where there could be such."""


BYTE_LEVEL = SpecialTokens(
    ("<|endoftext|>", "<|pad|>", CHAT_START, CHAT_END), begin="<|endoftext|>", end="<|endoftext|>", pad="<|pad|>"
)
SENTENCE_PIECE = SpecialTokens(
    ("<unk>", "<s>", "</s>", "<pad>", CHAT_START, CHAT_END), begin="<s>", end="</s>", pad="<pad>", unknown="<unk>"
)
"""LLaMA's numbers and names (Touvron et al., 2023), with padding and chat turns behind them."""


def special_tokens_of(tokenizer: Tokenizer) -> SpecialTokens:
    """Those of the kind of tokenizer that this is.

    Raises:
        ValueError: it has neither kind's, so that documents could not be told apart.
    """
    for special in (BYTE_LEVEL, SENTENCE_PIECE):
        if None not in {tokenizer.token_to_id(special.end), tokenizer.token_to_id(special.pad)}:
            return special
    raise ValueError(
        f"the tokenizer has no {BYTE_LEVEL.end} and {BYTE_LEVEL.pad}, nor {SENTENCE_PIECE.end} and "
        f"{SENTENCE_PIECE.pad}: take one that the tokenizer node made, or add the tokens to it"
    )


def number_of(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None, token
    return number


def added(special: SpecialTokens) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in special.names]
