"""The troubleshooting page quotes sentences that the sources still say, and every refusal of the command line is on it."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sentences import ELLIPSIS, all_texts, refusals, says_something, tidy  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"


def quotes() -> list[str]:
    """The terms of the page's definition lists: what stands on the line before a definition."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    pairs = zip(lines, lines[1:], strict=False)
    terms = [line for line, following in pairs if line.startswith("`") and following.startswith(":   ")]
    found = [quote.strip("`").strip() for line in terms for quote in re.split(r"(?<=`), (?=`)", line)]
    assert all(found)
    return found


def as_pattern(quote: str) -> re.Pattern[str]:
    """What a text of the sources must match: fixed parts as they are, anything for an ellipsis."""
    return re.compile(".*".join(re.escape(part) for part in tidy(quote).split(ELLIPSIS)), re.DOTALL)


QUOTES = quotes()


@pytest.fixture(scope="module")
def texts():
    return all_texts()


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_sentence_is_still_said(quote, texts):
    pattern = as_pattern(quote)
    assert any(pattern.fullmatch(text) for text in texts), f"no source says {quote!r} any more"


def test_every_refusal_is_explained():
    patterns = [as_pattern(quote) for quote in QUOTES if says_something(quote)]
    said = {sentence: file for sentence, file in refusals().items() if says_something(sentence)}
    missing = [f"{file}: {sentence}" for sentence, file in said.items() if not any(p.fullmatch(sentence) for p in patterns)]
    assert not missing, "docs/troubleshooting.md does not explain:\n" + "\n".join(missing)


def test_no_sentence_is_quoted_twice():
    assert len(QUOTES) == len(set(QUOTES))
