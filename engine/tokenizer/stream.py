"""Text out of bytes that come in pieces, as a model generates them."""

from __future__ import annotations

import codecs


class Utf8Stream:
    """Turns the bytes of tokens into whole UTF-8 characters: a character cut by a token waits for its rest.

    However the bytes are cut, what `feed` and a last `flush` return adds up to
    `data.decode("utf-8", errors="replace")` of all of them.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The characters that `data` completes; may be empty."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
