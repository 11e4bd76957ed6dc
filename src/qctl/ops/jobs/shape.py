"""The shape of a failure reason: the parts that differ from job to job are replaced.

``User 42 not found`` and ``User 43 not found`` both have the shape ``User <number> not found``. So
failures with the same cause can be counted together, and chosen with ``--where``.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Limits in characters: how much of a reason is examined, and how long a shape is.
_MAX_EXAMINED = 2000
MAX_SHAPE = 200
# At each place of the text, the first matching pattern wins. The name of its group is the
# placeholder.
_VARIABLE = re.compile(
    r"""
      (?P<url>\b[a-zA-Z][a-zA-Z0-9+.-]*+://[^\s"'`<>)\]},]+)
    # Quoted text. The apostrophe in "can't" is no quotation mark.
    | (?P<text>"(?:[^"\\]|\\.)*" | `[^`]*` | (?<!\w)'(?:[^'\\]|\\.)*'(?!\w))
    | (?P<address>
          (?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++                  # e-mail
        | (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.]*\w)      # IPv4
        | (?<![\w:])\[?(?=[0-9a-fA-F:]*(?:::|(?::[0-9a-fA-F]*){5}))(?=[:a-fA-F]*\d)
          [0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}\]?(?::\d{1,5})?(?![\w:])   # IPv6
        | (?<![\w.-])[a-zA-Z][\w-]*+(?:\.[\w-]++)++:\d{1,5}(?![\w:])       # host:port
      )
    | (?P<uuid>(?<![0-9a-zA-Z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-zA-Z]))
    | (?P<time>
          (?<!\d)\d{4}-\d\d-\d\d
          (?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|\ ?[+-]\d\d:?\d\d)?)?(?!\d)
        | (?<![\d:])\d\d:\d\d:\d\d(?:[.,]\d+)?(?![\d:])
      )
    | (?P<path>
          (?<![\w.~/])(?:~|\.\.?)?/[^\s"'`:,;()\[\]{}<>]*\w[^\s"'`:,;()\[\]{}<>]*
        | (?<!\w)[a-zA-Z]:\\[^\s"'`:,;()\[\]{}<>]+
      )
    | (?P<hex>
          \b0[xX][0-9a-fA-F]+\b
        | (?<![0-9a-zA-Z])(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}(?![0-9a-zA-Z])
      )
    # Letters and digits mixed, as in the id V1StGXR8_Z5jdHi6B-myT, but not as in "sha256".
    | (?P<id>
          (?<![0-9a-zA-Z])
          (?: (?=[0-9]*[a-zA-Z])(?=[a-zA-Z]*[0-9])[0-9a-zA-Z]{12,}
            | (?=[0-9a-zA-Z]{8})[a-zA-Z]*[0-9]+[a-zA-Z]+[0-9][0-9a-zA-Z]*
          ) [\w-]*
      )
    | (?P<number>
          (?:(?<=[\s(=:])-)?(?<![0-9a-zA-Z])\d+(?:[.,]\d+)*(?:[eE][+-]?\d+(?![0-9a-zA-Z]))?
      )
    # A word is kept. No other pattern can begin inside a word, so the word is skipped as a whole.
    | [a-zA-Z]++\s*+
    """,
    re.VERBOSE,
)


def shape_of(reason: str | None) -> str | None:
    """The shape of a failure reason on one line, at most ``MAX_SHAPE`` characters.

    Quoted text is replaced. Outside of quoted text, URLs, paths, addresses, times, uuids,
    hexadecimal numbers, ids and numbers are replaced. None if there is no reason.
    """
    return None if reason is None else _shape(reason[:_MAX_EXAMINED])


# Most failures of a queue have one of a few reasons.
@lru_cache(maxsize=256)
def _shape(reason: str) -> str:
    shape = _VARIABLE.sub(_replacement, reason)
    # Spaces at the end are removed again, because the cut may have left one.
    return " ".join(shape.split())[:MAX_SHAPE].rstrip()


def _replacement(match: re.Match[str]) -> str:
    return f"<{match.lastgroup}>" if match.lastgroup else match[0]
