"""Where the long lists of a JSON object are, found without parsing it, which takes many times its size."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.codecs.spooled import Spooled
from service.errors import Unprocessable

Path = tuple[str, ...]
Span = tuple[int, int]

_WINDOW_BYTES = 1 << 18
_TOKEN = re.compile(rb'["\[\]{}:]')
_STRING_PART = re.compile(rb'["\\]')
# A parsed number takes some 60 bytes, and a list or an object 300 or so before anything is in it.
_MOST_BYTES, _MOST_VALUES, _MOST_LISTS = 24 << 20, 1 << 20, 1 << 16
_LONGEST_STRING_BYTES = 1 << 20
_DEEPEST = 64


@dataclass(frozen=True)
class Outline:
    """A JSON text in two parts.

    Attributes:
        rest: The text, with something short in place of each long list.
        spans: Where the lists are, from the opening bracket to behind the closing one.
    """

    rest: bytes
    spans: Mapping[Path, Span]


def outline(body: Spooled, short: Mapping[Path, bytes]) -> Outline:
    """Returns the outline of a JSON object; whether the rest is valid is for a parser to say.

    Args:
        body: The text.
        short: What stands for the list at each of these places; a list elsewhere belongs to the rest.

    Raises:
        Unprocessable: The rest is too large, or nested too deep.
    """
    return _Walk(body, short).outline()


def refused(message: str) -> Unprocessable:
    """Returns the refusal of a body for how it is made."""
    return Unprocessable(f"The body cannot be accepted: {message}.", code="BODY_TOO_COMPLEX")


class _Walk:
    """One walk over a text, from token to token.

    `_place` has, for each object or list that is open, the key that was last seen in it.
    """

    def __init__(self, body: Spooled, short: Mapping[Path, bytes]) -> None:
        self._body = body
        self._short = short
        self._rest = bytearray()
        self._kept = 0  # up to here the text is in the rest
        self._place: list[str] = []
        self._spans: dict[Path, Span] = {}
        self._n_values = self._n_lists = 0

    def outline(self) -> Outline:
        text = self._body.buffer
        at, end, key = 0, len(text), ""
        while at < end:
            found = _TOKEN.search(text, at, min(end, at + _WINDOW_BYTES))
            stop = min(end, at + _WINDOW_BYTES) if found is None else found.start()
            self._n_values += text[at:stop].count(b",")
            at = stop
            if found is not None and found[0] == b'"':
                at = self._string_end(found.end())
                key = text[found.end() : min(at - 1, found.end() + 100)].decode(errors="replace")
            elif found is not None:
                at = self._structure(found[0], found.end(), key)
            if (
                self._n_values > _MOST_VALUES
                or self._n_lists > _MOST_LISTS
                or len(self._rest) + at - self._kept > _MOST_BYTES
            ):
                raise self._too_large()
        self._rest += self._body.buffer[self._kept : end]
        return Outline(bytes(self._rest), self._spans)

    def _structure(self, token: bytes, at: int, key: str) -> int:
        """Takes in a token that ends here; the place to go on from."""
        if token == b":" and self._place:
            self._place[-1] = key
        elif token == b"[" and tuple(self._place) in self._short:
            return self._skip_list(at - 1)
        elif token in b"[{":
            self._n_lists += 1
            self._place.append("")
            if len(self._place) > _DEEPEST:
                raise refused(f"it is nested more than {_DEEPEST} deep")
        elif token in b"]}":
            if not self._place:
                raise refused(f"at byte {at - 1} something is closed that was not open")
            self._place.pop()
        return at

    def _skip_list(self, start: int) -> int:
        path = tuple(self._place)
        if path in self._spans:
            raise refused(f"{'.'.join(path)} is there twice")
        end = _list_end(self._body, start)
        self._rest += self._body.buffer[self._kept : start]
        if self._body.buffer[end - 1 : end] == b"]":
            self._rest += self._short[path]
        self._spans[path] = start, end
        self._kept = end
        return end

    def _string_end(self, at: int) -> int:
        """The place behind the closing quote of a string that begins here."""
        stop = min(len(self._body.buffer), at + _LONGEST_STRING_BYTES)
        while (found := _STRING_PART.search(self._body.buffer, at, stop)) is not None:
            if found[0] == b'"':
                return found.end()
            at = found.end() + 1
        if stop < len(self._body.buffer):
            raise refused(f"a string in it takes more than {_LONGEST_STRING_BYTES} bytes")
        return stop

    def _too_large(self) -> Unprocessable:
        if self._n_values > _MOST_VALUES:
            most = f"{_MOST_VALUES} values"
        elif self._n_lists > _MOST_LISTS:
            most = f"{_MOST_LISTS} lists and objects"
        else:
            most = f"{_MOST_BYTES} bytes"
        beside = " and ".join(".".join(path) for path in self._short)
        return refused(f"it has more than {most}" + (f" beside {beside}" if beside else ""))


def _list_end(body: Spooled, start: int) -> int:
    """The place behind the bracket that closes the list that begins here, or the end where none does."""
    depth = 0
    for at in range(start, len(body.buffer), _WINDOW_BYTES):
        window = np.frombuffer(body.buffer[at : at + _WINDOW_BYTES], np.uint8)
        change = (window == ord("[")).view(np.int8) - (window == ord("]")).view(np.int8)
        depths = depth + np.cumsum(change, dtype=np.int32)
        closed = np.flatnonzero(depths <= 0)
        if len(closed):
            return at + int(closed[0]) + 1
        depth = int(depths[-1])
        body.seen(len(window))
    return len(body.buffer)
