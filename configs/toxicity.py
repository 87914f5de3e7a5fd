"""Lists of words that mark a text as abusive."""

from typing import Annotated

from pydantic import Field

from configs.base import Spec
from configs.classifier import PinnedUrl

# Written for Headrace: mild insults, to have something to look for where no list is given. A list for use is longer.
MILD_INSULTS: dict[str, tuple[str, ...]] = {
    "ar": ("غبي", "أحمق", "حقير"),
    "cs": ("blbec", "hlupák", "kretén", "pitomec"),
    "de": (
        "Blödmann",
        "Depp",
        "Dummkopf",
        "Idiot",
        "Mistkerl",
        "Schwachkopf",
        "Trottel",
        "Vollidiot",
        "halt die Klappe",
    ),
    "en": (
        "bastard",
        "crap",
        "dimwit",
        "dumbass",
        "idiot",
        "idiots",
        "imbecile",
        "jackass",
        "loser",
        "losers",
        "moron",
        "morons",
        "piss off",
        "scum",
        "scumbag",
        "shut up",
        "stupid",
        "sucks",
    ),
    "es": ("estúpido", "gilipollas", "idiota", "imbécil", "cállate la boca", "tonto"),
    "fr": ("abruti", "connard", "crétin", "débile", "ta gueule", "imbécile", "salaud"),
    "hi": ("कमीना", "बेवकूफ़", "मूर्ख"),
    "it": ("cretino", "deficiente", "idiota", "scemo", "stronzo", "stupido"),
    "ja": ("アホ", "クズ", "バカ", "間抜け", "馬鹿"),
    "ko": ("멍청이", "바보", "얼간이"),
    "nl": ("eikel", "idioot", "klootzak", "sukkel"),
    "pl": ("debil", "dureń", "głupek", "idiota", "kretyn"),
    "pt": ("cala a boca", "estúpido", "idiota", "imbecil", "otário"),
    "ru": ("дебил", "дурак", "идиот", "кретин", "сволочь", "тупица"),
    "sv": ("dumskalle", "idiot", "håll käften", "skitstövel"),
    "th": ("งี่เง่า", "ไอ้บ้า", "โง่"),
    "tr": ("ahmak", "aptal", "gerizekâlı", "salak"),
    "zh": ("傻瓜", "傻子", "混蛋", "白痴", "笨蛋", "蠢货"),
}

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class ToxicWords(Spec):
    """Terms that are looked for as whole words, in documents of their language; see `ray_jobs.quality.words`."""

    terms: dict[Language, tuple[str, ...]] = Field(default=MILD_INSULTS)
    """lid.176's code of a language -> its terms, of one word or several. The default is mild, and short."""
    lists: dict[Language, PinnedUrl] = Field(default_factory=dict)
    """Language -> a file of more terms, one a line, in UTF-8: the layout of LDNOOBW's list of dirty words
    (https://github.com/LDNOOBW/List-of-Dirty-Naughty-Obscene-and-Otherwise-Bad-Words)."""
    everywhere: tuple[Language, ...] = ("en",)
    """Languages whose terms are looked for in every document, beside those of its own."""
    max_share: float | None = Field(default=None, ge=0, le=1)
    """Most characters of words that may stand in terms, of all; null only measures."""
    max_terms: int | None = Field(default=None, ge=0)
    """Most distinct terms that a document may hold; null only measures."""
