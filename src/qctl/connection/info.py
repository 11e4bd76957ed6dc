"""Parses the reply to INFO."""

from __future__ import annotations


def parse_info(text: str) -> dict[str, str]:
    """The fields of a reply to INFO, by name."""
    lines = (line.partition(":") for line in text.splitlines() if line[:1] != "#")
    return {name: value for name, colon, value in lines if colon}
