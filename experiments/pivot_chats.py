"""The chats that a pivot is trained on, as token ids and the positions of their answers, in batches."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from experiments.pivot_plans import Curriculum
from patientdx.lm.batching import padded
from patientdx.tasks.generated_question import LETTERS, YES_NO, Question

POOL = 64  # chats among which those of like length share a batch
Encoded = tuple[list[int], list[int]]  # token ids of a chat, positions before its answers


def encode(tokenizer, turns: list[Question]) -> Encoded:
    """Token ids of a chat, and the positions whose next token is an answer: a word that ends a line of an assistant."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.target})
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    positions, present, words = [], -1, set()
    for i in range(len(opening), len(ids)):
        if ids[i - len(opening) : i] == opening:
            present += 1
            words = _tokens(tokenizer, tuple(LETTERS) if turns[present].options else YES_NO)
        elif ids[i] == tokenizer.eos_token_id:
            words = set()
        if ids[i] in words and _ends(tokenizer, ids[i + 1]):
            positions.append(i - 1)
    assert len(positions) == sum(len(turn.verdicts) for turn in turns), "the chat lacks an answer"
    return ids, positions


def _tokens(tokenizer, words: tuple[str, ...]) -> set[int]:
    """First tokens of the words, as they begin a text and as they stand behind a blank."""
    return {tokenizer.encode(before + word, add_special_tokens=False)[0] for word in words for before in ("", " ")}


def _ends(tokenizer, token: int) -> bool:
    """Whether a token ends a line: names may begin as an answer does ("Noise")."""
    return token == tokenizer.eos_token_id or tokenizer.decode([token]).startswith("\n")


class Batches:
    """Batches of about `tokens` padded tokens; `rng` and `pool` are all that the next ones depend on."""

    def __init__(self, tokenizer, rng: random.Random, curriculum: Curriculum) -> None:
        self.tokenizer, self.rng, self.curriculum = tokenizer, rng, curriculum
        self.pool: list[Encoded] = []

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """ids (B, L) int64, answer positions (N, 2) int64 as row and column, and answer tokens (N,) int64."""
        rows: list[Encoded] = []
        while True:
            while len(self.pool) < POOL:
                self.pool.append(encode(self.tokenizer, self.curriculum.conversation(self.rng)))
            if not rows:
                self.rng.shuffle(self.pool)
                like = len(self.pool[0][0])
                self.pool.sort(key=lambda row: abs(len(row[0]) - like))
            longest = max(len(row[0]) for row in (*rows, self.pool[0]))
            if rows and longest * (len(rows) + 1) > self.curriculum.plan["tokens"]:
                break
            rows.append(self.pool.pop(0))
        ids_BL = padded([ids for ids, _ in rows], self.tokenizer.pad_token_id)
        positions = torch.tensor([(b, i) for b, (_, columns) in enumerate(rows) for i in columns])
        return ids_BL, positions, ids_BL[positions[:, 0], positions[:, 1] + 1]
