"""An answer's text as its tokens come: whole characters only, and nothing of a text at which it stops.

A token may be a part of a character, and what it looks like may depend on those before it (a space that is left out at
the beginning). So the last few tokens are decoded together, and what the new one changed is its text (as vLLM and TGI
do it). Decoders write U+FFFD for a character that is not complete; it is held back until it is, or the answer is over.
"""

from collections.abc import Callable, Sequence

UNKNOWN = "\ufffd"
NUM_BEFORE = 5
"""Tokens of the prompt that the first ones are decoded with."""
NUM_AGAIN = 16
"""Tokens are decoded again with every new one, until they are this many."""
NUM_HELD = 64
"""More tokens than this are never held back: they will not become a character."""


class Detokenizer:
    """The text of one answer."""

    def __init__(self, decode: Callable[[list[int]], str], prompt: Sequence[int], stop: Sequence[str] = ()):
        self._decode, self._stop = decode, tuple(stop)
        self._window = list(prompt[-NUM_BEFORE:])
        self._told = len(decode(self._window).rstrip(UNKNOWN)) if self._window else 0
        self._whole = [0]
        """Numbers of the window's tokens after which no character is open."""
        self._held = ""
        """Whole characters that could be the beginning of a stop text."""
        self.length = 0
        """Characters that are complete, those that are held included."""
        self.stopped = False
        """Whether a stop text was found; the text before it is all."""

    def add(self, token: int) -> str:
        """Takes the next token in. Returns the text that is certain now."""
        assert not self.stopped
        self._window.append(token)
        text = self._decode(self._window)
        whole = len(text.rstrip(UNKNOWN))
        if whole < len(text) and len(self._window) - self._whole[-1] > NUM_HELD:
            whole = len(text)
        new = text[self._told : whole]
        self._told = max(self._told, whole)
        if whole == len(text):
            self._whole.append(len(self._window))
            if len(self._window) >= NUM_AGAIN:
                self._shorten()
        return self._certain(new)

    def finish(self) -> str:
        """Everything that was held back; no token comes any more."""
        if self.stopped:
            return ""
        rest = self._decode(self._window)[self._told :] if self._window else ""
        text = self._certain(rest)
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _shorten(self) -> None:
        """Leaves out old tokens, up to one behind which a character begins."""
        first = max(place for place in self._whole if place <= len(self._window) - NUM_BEFORE)
        if first == 0:
            return
        del self._window[:first]
        self._whole = [place - first for place in self._whole if place >= first]
        self._told = len(self._decode(self._window))

    def _certain(self, new: str) -> str:
        self.length += len(new)
        text = self._held + new
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            self.length -= len(text) - min(places)
            return text[: min(places)]
        held = _overlap(text, self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Characters at the text's end that could be the beginning of a stop text."""
    longest = max((len(one) for one in stop), default=0)
    for count in range(min(longest - 1, len(text)), 0, -1):
        if any(one.startswith(text[len(text) - count :]) for one in stop):
            return count
    return 0
