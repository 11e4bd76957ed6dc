"""Numbers in the answers of process managers."""

from __future__ import annotations

# A larger number is no pid, time, count or size. Up to this one, floats are exact.
MAX_NUMBER = 2**53


def whole_number(value: object) -> int | None:
    """A number from 0 to ``MAX_NUMBER``, or the text of one, without its fraction.

    None for any other value.
    """
    if isinstance(value, str):
        # A longer text is above the maximum, and Python does not read one of 5,000 digits.
        is_number = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_NUMBER))
        value = int(value) if is_number else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MAX_NUMBER else None
