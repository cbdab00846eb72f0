"""The rules of IFEval (Zhou et al., 2023, arXiv:2311.07911), by its names: does an answer follow an instruction?

Each rule is `rule(answer, **arguments) -> bool` with the arguments of the official prompts file. They decide as the
checkers of lm-evaluation-harness 0.4.13 do, odd corners included (keywords are regular expressions, a placeholder is
anything in square brackets), so that numbers compare; experiments/benchmarks/ifeval.py puts both side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from patientdx.tasks.sentences import sentences, words

RELATIONS = ("less than", "at least")
REPLIES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
# The regular expression that a text becomes, by the argument that it is: a file of prompts is checked by these too.
PATTERNS: dict[str, Callable[[str], str]] = {
    "keywords": str,
    "keyword": str.strip,
    "forbidden_words": lambda word: rf"\b{word}\b",
    "postscript_marker": lambda marker: _POSTSCRIPTS.get(marker.strip(), marker.strip().lower()),
    "section_spliter": lambda word: rf"\s?{word.strip()}\s?\d+\s?",
}


def _related(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def existence(answer: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword is there."""
    return all(re.search(PATTERNS["keywords"](keyword), answer, re.IGNORECASE) for keyword in keywords)


def frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword is there so many times."""
    return _related(len(re.findall(PATTERNS["keyword"](keyword), answer, re.IGNORECASE)), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words is there as a whole word."""
    return not any(re.search(PATTERNS["forbidden_words"](word), answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter, large or small, is there so many times.

    The published checkers draw another at random where the one asked for is none ("!"); this counts what is asked.
    """
    return _related(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(answer: str, *, language: str) -> bool:
    """All of it is in that language (ISO 639-1), as langdetect has it; what has no language passes."""
    detected = _language(answer)
    return detected is None or detected == language


def number_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    """So many sentences."""
    return _related(len(sentences(answer)), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs between dividers `***`; an empty one may stand first or last and does not count."""
    first, *rest = re.split(r"\s?\*\*\*\s?", answer)
    inner, last = rest[:-1], rest[-1:]
    if not all(part.strip() for part in inner):
        return False
    return sum(bool(part.strip()) for part in (first, *inner, *last)) == num_paragraphs


def number_words(answer: str, *, num_words: int, relation: str) -> bool:
    """So many words, runs of letters, digits and underscores."""
    return _related(len(re.findall(r"\w+", answer)), relation, num_words)


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, parted by empty lines, of which the nth begins with the word, punctuation aside."""
    parts = answer.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if not nth_paragraph <= count or not parts[nth_paragraph - 1].strip():
        return False
    first_text = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", first_text)[0].lower() == first_word.lower()


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """The marker of a postscript is there."""
    return re.search(PATTERNS["postscript_marker"](postscript_marker), answer.lower()) is not None


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with a bullet, `*` or `-`."""
    stars = re.findall(r"^\s*\*[^*].*$", answer, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", answer, re.MULTILINE)) == num_bullets


def constrained_response(answer: str) -> bool:
    """One of the three replies that the prompt offers is in it."""
    return any(reply in answer for reply in REPLIES)


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """At least so many *highlighted* or **highlighted** pieces of a line that are not empty."""
    once = (piece.strip("*") for piece in re.findall(r"\*[^\n*]*\*", answer))
    twice = (piece[2:-2] for piece in re.findall(r"\*\*[^\n*]*\*\*", answer))
    return sum(bool(piece.strip()) for piece in (*once, *twice)) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each opened by the word and a number."""
    return len(re.findall(PATTERNS["section_spliter"](section_spliter), answer)) >= num_sections


def json_format(answer: str) -> bool:
    """All of it is JSON, in a fenced block or not."""
    text = answer.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):  # an answer that says [ for ever
        return False
    return True


def title(answer: str) -> bool:
    """A title in double angular brackets, on one line and not empty."""
    return any(match.lstrip("<").rstrip(">").strip() for match in re.findall(r"<<[^\n]+>>", answer))


def two_responses(answer: str) -> bool:
    """Two answers that differ, parted by six asterisks; an empty part may stand first or last and does not count."""
    parts = [part.strip() for part in answer.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """It begins with the request, word for word."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """It ends with the phrase, with or without quotation marks behind it."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """So many words in capital letters; a hyphenated word is one."""
    return _related(sum(word.isupper() for word in words(answer)), capital_relation, capital_frequency)


def english_capital(answer: str) -> bool:
    """All in English and in capital letters."""
    return answer.isupper() and _language(answer) in ("en", None)


def english_lowercase(answer: str) -> bool:
    """All in English and in small letters."""
    return answer.islower() and _language(answer) in ("en", None)


def no_comma(answer: str) -> bool:
    """No comma anywhere."""
    return "," not in answer


def quotation(answer: str) -> bool:
    """All of it in double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


RULES: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}


def strict(answer: str, kind: str, arguments: Mapping) -> bool:
    """Whether the answer as it stands follows the instruction; an empty one follows none."""
    return bool(answer.strip()) and RULES[kind](answer, **arguments)


def loose(answer: str, kind: str, arguments: Mapping) -> bool:
    """Whether the answer does, or would without its first line, its last, or both, and without asterisks."""
    lines = answer.split("\n")
    forms = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(strict(form, kind, arguments) for form in (*forms, *(form.replace("*", "") for form in forms)))


def _language(answer: str) -> str | None:
    """ISO 639-1 code of the text's language, None where it has none (digits alone, say)."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0  # it draws, and would otherwise decide a close case another way each time
    try:
        return detect(answer)
    except LangDetectException:
        return None
