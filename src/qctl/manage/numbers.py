"""Numbers in the answers of process managers."""

from __future__ import annotations

# A larger number is no pid, time, count or size. Floats hold whole numbers up to this one exactly.
MAX_NUMBER = 2**53


def whole_number(value: object) -> int | None:
    """Convert a value to a whole number from 0 to ``MAX_NUMBER``; None if that is not possible.

    The value may be a number, whose fraction is cut off, or a text of digits.
    """
    if isinstance(value, str):
        # A longer text is above the maximum, and ``int`` raises an error for 5,000 digits.
        is_number = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_NUMBER))
        value = int(value) if is_number else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MAX_NUMBER else None
