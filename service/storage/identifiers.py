"""Identifiers: opaque to clients, ordered by time, not to be guessed."""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
_TIME_UNIT_NS = 1_000
PATTERN = rf"^[a-z]{{3}}_[{_ALPHABET}]{{{_LENGTH}}}$"


def new_id(prefix: str) -> str:
    """Returns a fresh identifier, such as `fit_06d5...`.

    56 bits of time in microseconds come first, so that identifiers of one process sort by age, then 74
    random bits, in Crockford's base 32.
    """
    number = (time.time_ns() // _TIME_UNIT_NS) << 74 | secrets.randbits(74)
    digits = "".join(_ALPHABET[(number >> 5 * place) & 31] for place in reversed(range(_LENGTH)))
    return f"{prefix}_{digits}"


def is_id(text: str) -> bool:
    """Returns whether a text could be one of our identifiers."""
    return re.fullmatch(PATTERN, text) is not None
