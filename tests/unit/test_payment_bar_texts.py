"""The payment bar as a file: every language whole, small enough, and no more in it than there must be."""

from __future__ import annotations

import gzip
import json
import re
from importlib import resources
from typing import Any

import pytest

from mediaproxy.agent import pages
from mediaproxy.vault.card import BRANDS

FOLDER = resources.files("mediaproxy.agent.web").joinpath("i18n")
SOURCE = resources.files("mediaproxy.agent.web").joinpath("flattone-payment.js").read_text("utf-8")


def texts(language: str) -> dict[str, Any]:
    return dict(json.loads(FOLDER.joinpath(f"{language}.json").read_text("utf-8")))


def places(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("language", ["es", "fr", "de"])
def test_every_language_says_everything(language: str) -> None:
    english, other = texts("en"), texts(language)
    assert list(other) == list(english)
    assert list(other["reasons"]) == list(english["reasons"])
    for key, text in english.items():
        if isinstance(text, str):
            assert places(other[key]) == places(text), key
            assert other[key].strip(), key


def test_every_word_that_the_server_can_say_has_a_text_or_the_general_one() -> None:
    """The closed lists of openapi.yaml; what means nothing to an agent is `fault`."""
    api = resources.files("mediaproxy.agent").joinpath("openapi.yaml").read_text("utf-8")
    listed = [
        set(re.split(r", *", found))
        for found in re.findall(r"(?:FieldReason|\n    Reason):.*?enum: \[(.*?)\]", api, re.DOTALL)
    ]
    assert len(listed) == 2
    general = {"not-armed", "vault-restarted", "agent"}
    assert set().union(*listed) <= set(texts("en")["reasons"]) | general


def test_it_is_small_and_whole() -> None:
    made = pages.component()
    assert len(gzip.compress(made, 9)) <= 12_000
    assert b"/* web/i18n */" not in made
    assert "import " not in SOURCE  # no dependencies
    for forbidden in ("innerHTML = `", "eval(", "localStorage", "document.cookie", "clipboard"):
        assert forbidden not in SOURCE, forbidden


def test_every_brand_has_a_mark() -> None:
    for brand in BRANDS:
        assert re.search(rf"\b{brand.name}: \[", SOURCE), brand.name
