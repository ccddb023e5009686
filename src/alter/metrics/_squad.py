"""The words of an answer as SQuAD's evaluation script (Rajpurkar et al. 2016) compares them."""

from __future__ import annotations

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_words(text: str) -> list[str]:
    """Return the words in lower case, without ASCII punctuation and without the articles a, an and the."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()
