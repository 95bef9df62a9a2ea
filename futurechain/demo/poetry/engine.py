"""The Byronification engine: makes any poem sound a little more like Lord Byron.

It runs in worker processes, so everything here is importable, and so is what it raises.
"""

from __future__ import annotations

import random
import re

__all__ = ["EngineTroubleError", "GibberishError", "byronify"]

WORDS = {
    "you": "thee",
    "your": "thy",
    "are": "art",
    "have": "hast",
    "has": "hath",
    "does": "doth",
    "over": "o'er",
    "ever": "e'er",
    "never": "ne'er",
    "before": "ere",
    "often": "oft",
    "sea": "main",
    "sad": "melancholy",
    "dark": "gloomy",
}


class GibberishError(ValueError):
    """Raised for a text that is no poem."""


class EngineTroubleError(RuntimeError):
    """Raised now and then, as engines do."""


def byronify(poem: str, trouble: float = 0.0, seed: int = 0) -> str:
    """Return `poem` in the manner of Lord Byron.

    Args:
        poem: the text; two lines of words at least.
        trouble: how often the engine fails, from 0 (never) to 1 (always).
        seed: the same seed fails on the same poems.

    Raises:
        GibberishError: if the text is no poem.
        EngineTroubleError: now and then.
    """
    lines = [line for line in poem.splitlines() if re.search(r"[^\W\d_]{2}", line)]
    letters = sum(character.isalpha() or character.isspace() for character in poem)
    if len(lines) < 2 or letters < 0.6 * len(poem):
        raise GibberishError("this is no poem")
    if random.Random(f"{seed} {poem}").random() < trouble:  # noqa: S311  # a mood, not a secret
        raise EngineTroubleError("the engine is not in the mood")
    return re.sub(r"[A-Za-z]+", _byronify_word, poem)


def _byronify_word(match: re.Match[str]) -> str:
    word = match.group()
    better = WORDS.get(word.lower(), word)
    return better.capitalize() if word[0].isupper() and better != word else better
