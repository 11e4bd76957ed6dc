"""The pictures of docs/images show the words that qctl's screens have today."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMAGES = ("drain", "status", "impact", "doctor", "top")
# Names of the lab, and what Redis and PM2 themselves say.
OF_THE_LAB = {"plain", "welcome", "import", "digest", "poll", "redis", "emails", "europe", "berlin"}


def shown(name: str) -> str:
    svg = (ROOT / f"docs/images/{name}.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return html.unescape(" ".join(texts)).replace("\xa0", " ")


@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_has_no_word_that_qctl_has_lost(name: str) -> None:
    """Recorded by ``scripts/make-images``; run it again if this fails."""
    source = " ".join(path.read_text() for path in (ROOT / "src/qctl").rglob("*.py")).casefold()
    words = {word.casefold() for word in re.findall(r"[A-Za-z]{4,}", shown(name))}
    assert len(words) > 10
    known = {*re.findall(r"[a-z]{4,}", source)} | OF_THE_LAB
    assert not {word for word in words if word not in known and word.rstrip("s") not in known}


def test_the_drain_proves_what_became_of_its_jobs() -> None:
    text = " ".join(shown("drain").split())
    assert "lost" in text
    assert "pm2:worker" in text


@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_loads_nothing_from_elsewhere(name: str) -> None:
    svg = (ROOT / f"docs/images/{name}.svg").read_text()
    assert "url(http" not in svg
    assert 'url("http' not in svg
