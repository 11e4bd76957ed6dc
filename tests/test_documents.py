"""Every reference in code, tests and documents leads somewhere in this repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIRE_FORMAT = ROOT / "docs/wire-format.md"
SUFFIXES = {".py", ".lua", ".md", ".js", ".mjs", ".cjs"}
NOT_OURS = {"node_modules", "__pycache__"}

# A section ("5", "5.13"), primitive ("P8"), requirement ("M3") or trap ("T6").
POINT = r"(?:[PMT]\d{1,2}|\d{1,2}(?:\.\d{1,2})?)(?![\w.]\w)\b"
CITATION = re.compile(rf"wire format\s({POINT}(?:(?:, and |, | and |-){POINT})*)", re.IGNORECASE)
# In src/, primitives and traps are also cited by their letter alone.
LETTERED = re.compile(r"\b[PMT]\d{1,2}\b")


def texts(*folders: str) -> Iterator[tuple[Path, str]]:
    """(path, text) of each file below these folders, without line breaks and comment marks."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and not NOT_OURS & set(path.parts) and path.is_file():
                text = re.sub(r"\n\s*(?:#|--|//|\*)?\s*", " ", path.read_text())
                yield path.relative_to(ROOT), text


def points_of_the_wire_format() -> set[str]:
    text = WIRE_FORMAT.read_text()
    return {
        *re.findall(r"^#{2,3} (\d+(?:\.\d+)?)", text, re.MULTILINE),
        *re.findall(r"^(?:\*\*|\| |\* )([PMT]\d{1,2})\b", text, re.MULTILINE),
    }


def test_the_wire_format_has_what_is_cited() -> None:
    known = points_of_the_wire_format()
    assert {"5", "5.13", "10.2", "P8", "M3", "T6"} <= known
    cited = {
        (str(path), point)
        for path, text in texts("src", "tests", "docs")
        for match in CITATION.finditer(text)
        for point in re.findall(POINT, match[1])
    } | {(str(path), point) for path, text in texts("src") for point in LETTERED.findall(text)}
    assert len(cited) > 100
    assert not {(path, point) for path, point in cited if point not in known}


def test_documents_that_are_named_exist() -> None:
    named = {
        (str(path), name)
        for path, text in texts("src", "tests", "docs", "bench")
        for name in re.findall(r"\bdocs/[\w-]+\.(?:md|1)\b", text)
    }
    assert len(named) > 10
    assert not {(path, name) for path, name in named if not (ROOT / name).exists()}


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = {
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not link.startswith("mailto:")
    }
    assert links
    assert not {(page.name, link) for page, link in links if not (page.parent / link).exists()}
