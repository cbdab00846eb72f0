"""One question of a generator, with its answer: yes or no, or one of several options under letters."""

from __future__ import annotations

from dataclasses import dataclass

YES_NO = ("No", "Yes")  # the word of an answer is YES_NO[answer]
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """`context` may be shared by several questions, `text` asks, `answer` is True for yes, or the index of an option.

    reply: an answer of several lines, each with its own Yes or No behind the last colon; for training only.
    options: up to four, listed under letters; none where the answer is yes or no.
    """

    kind: str
    context: str
    text: str
    answer: int
    reply: str = ""
    options: tuple[str, ...] = ()

    @property
    def request(self) -> str:
        """What is asked, and in which form to answer: what stands behind the context."""
        if not self.options:
            return self.text + " Answer Yes or No."
        listed = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([self.text, *listed, "Answer with one letter."])

    @property
    def prompt(self) -> str:
        """The user's turn as the model sees it."""
        return (self.context + "\n\n" if self.context else "") + self.request

    @property
    def target(self) -> str:
        """The assistant's turn."""
        return self.reply or (LETTERS if self.options else YES_NO)[self.answer]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The words of the target that answer, in order: one, or one for each line of a reply."""
        return tuple(line.rpartition(": ")[2] for line in self.target.split("\n"))
