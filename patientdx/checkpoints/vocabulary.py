"""Parents of different vocabularies brought to one vocabulary: the rows of their embeddings in one order of tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patientdx.checkpoints.identity import BEHAVIOUR_FILES, Source, derivation
from patientdx.checkpoints.reader import TensorHeader
from patientdx.checkpoints.tokenizer_files import Tokens, read_tokens, union
from patientdx.core.cache import build_folder
from patientdx.core.errors import UserError

ORDERS = ("base", "pivot", "union")
# Tensors with one row for each token: embedding, output head and its bias, in the names of the common architectures.
_BY_TOKEN = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "lm_head.weight",
    "lm_head.bias",
    "embed_out.weight",
)
# Replaced by the tokenizer.json of a union: these describe the base's tokens only.
_OUTDATED = ("tokenizer.json", "tokenizer.model", "added_tokens.json", "vocab.json", "merges.txt")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens that a merged model will have.

    folder: config.json (the base's, with the new vocab_size and the ids of the special tokens) and the tokenizer's
    files. tokens: the token of each id. size: rows of the embedding. owners: every parent, base first, with its tokens
    and the number of its row for each output row (size,) int64, −1 for none. token_ids: the configuration's ids of
    special tokens.
    """

    folder: Path
    tokens: Tokens
    size: int
    owners: tuple[tuple[Source, Tokens, Tensor], ...]
    token_ids: dict[str, Any]

    def view(self, checkpoint: Source, name: str) -> VocabularyView:
        """`checkpoint`, one of the parents or their ancestor, with its rows in this vocabulary.

        name: what messages call it. Raises UserError where it has no tokenizer and as many rows as no parent, or no
        embedding of a known name.
        """
        for owner, _, rows in self.owners:
            if owner is checkpoint:
                return VocabularyView(checkpoint, rows, self)
        _check_rows(checkpoint, name)
        mine = read_tokens(checkpoint.folder)
        if not mine.by_id:
            mine = _borrowed(checkpoint, name, [(owner, tokens) for owner, tokens, _ in self.owners])
        return VocabularyView(checkpoint, _own_rows(self.tokens, self.size, mine, _rows(checkpoint)), self)


class VocabularyView:
    """A checkpoint whose embedding (and separate output head) has one row for each token of a `Vocabulary`.

    Stands wherever a `Checkpoint` is read for merging; all other tensors are passed on unchanged. A row is
    - the checkpoint's, where it has the token;
    - else the base's, where the base has it; else the only owner's; else the mean of the owners' (float64, rounded
      once). So parents that lack a token agree with those that have it: the token's task vectors vanish, and a merge
      by shares that sum to 1 leaves it as its owners have it. (SLERP scales rows in which the parents agree as it
      scales all that they share; at its ends they are exact.)
    - An id without a token (padding, also beyond the tokenizer) keeps the checkpoint's row if that id is unused in
      it too, and is filled as above if not: so parents with one tokenizer stay unchanged, and so does the parent whose
      order is kept. A token that no parent has a row for takes the mean of the base's rows.

    A changed tensor is gathered at each read, in the checkpoint's dtype; its header points to the bytes of the
    unchanged tensor. ``folder`` is the vocabulary's, without weights, ``weights_folder`` the
    checkpoint's.
    """

    def __init__(self, source: Source, rows: Tensor, vocabulary: Vocabulary) -> None:
        self._source, self._source_rows, self._vocabulary = source, rows, vocabulary
        self.folder, self.weights_folder, self.tied = vocabulary.folder, source.folder, source.tied
        self.config = _config(source.config, vocabulary.token_ids, len(rows))
        self.tensors = dict(source.tensors)
        if not torch.equal(rows, torch.arange(_rows(source))):
            for name in _by_token(source):
                self.tensors[name] = _resized(source.tensors[name], len(rows))
        self._changed = {name for name, header in self.tensors.items() if header is not source.tensors[name]}
        self._fillers = list(_fillers(rows, vocabulary.owners))

    def read(self, name: str) -> Tensor:
        """The tensor with one row for each token of the vocabulary; others are the source's own.

        Raises:
            KeyError: there is no such tensor.
        """
        tensor = self._source.read(name)
        if name not in self._changed:
            return tensor
        rows = tensor.index_select(0, self._source_rows.clamp(min=0))
        for places, donors in self._fillers:
            donated = [_donor_rows(donor, name, index) for donor, index in donors]
            rows[places] = donated[0].to(rows.dtype) if len(donated) == 1 else _mean(donated).to(rows.dtype)
        return rows

    def read_bytes(self, name: str) -> Tensor:
        """The bytes [nbytes], uint8, of what `read` gives."""
        return self.read(name).reshape(-1).view(torch.uint8)

    @property
    def derivation(self) -> tuple[str, tuple[Path, ...]]:
        """See `identity.derivation`; other parents' files count because rows may come from them."""
        parts = [derivation(self._source), *(derivation(owner) for owner, _, _ in self._vocabulary.owners)]
        index = [self._source_rows, *(rows for _, _, rows in self._vocabulary.owners)]
        order = hashlib.sha256(b"".join(rows.numpy().tobytes() for rows in index)).hexdigest()
        files = dict.fromkeys(file for _, paths in parts for file in paths)
        return f"{' and '.join(rule for rule, _ in parts)} in rows {order}", tuple(files)


def common_vocabulary(parents: Sequence[Source], names: Sequence[str], tokenizer: str, cache: Path) -> Vocabulary:
    """One vocabulary for all parents; reads tokenizers and headers, no weights.

    Args:
        parents: two or more, base first, pivot second. One without a tokenizer is read through that of the first
            parent with as many rows.
        names: what messages call them, one each.
        tokenizer: ``base`` or ``pivot`` keep that parent's ids and copy its files; tokens of others are lost.
            ``union`` keeps the base's ids and adds the others' tokens (`tokenizer_files.union`), empty rows first.
        cache: the files are written to ``<cache>/vocabularies/<tokenizer>-<hash of them>``, once.

    Raises:
        UserError: `tokenizer` is none of these; a parent has no tokenizer and fits none, or no embedding of a known
            name; the tokenizers cannot be joined.
    """
    if tokenizer not in ORDERS:
        raise UserError(f"tokenizer={tokenizer} is not one of {', '.join(ORDERS)}.")
    for parent, name in zip(parents, names, strict=True):
        _check_rows(parent, name)
    known = [read_tokens(parent.folder) for parent in parents]
    lenders = [(parent, tokens) for parent, tokens in zip(parents, known, strict=True) if tokens.by_id]
    if not lenders:
        raise UserError(
            f"tokenizer={tokenizer}: none of {', '.join(names)} has a tokenizer.json, so that nothing says which rows "
            "mean the same token: put each model's tokenizer files into its folder."
        )
    for number, parent in enumerate(parents):
        if not known[number].by_id:
            known[number] = _borrowed(parent, names[number], lenders)
    donor = 1 if tokenizer == "pivot" else 0
    tokens = union(known, names) if tokenizer == "union" else known[donor]
    size = max(_rows(parents[donor]), max(tokens.by_id) + 1 if tokenizer == "union" else 0)
    owners = tuple(
        (parent, mine, _own_rows(tokens, size, mine, _rows(parent)))
        for parent, mine in zip(parents, known, strict=True)
    )
    token_ids = {key: value for key, value in parents[donor].config.items() if key.endswith("_token_id")}
    folder = _written(_config(parents[0].config, token_ids, size), tokens, tokenizer, cache)
    return Vocabulary(folder, tokens, size, owners, token_ids)


def _borrowed(checkpoint: Source, name: str, lenders: Sequence[tuple[Source, Tokens]]) -> Tokens:
    """The tokens of the first lender with as many rows."""
    rows = _rows(checkpoint)
    for lender, tokens in lenders:
        if _rows(lender) == rows:
            return tokens
    raise UserError(
        f"{name} has no tokenizer.json, and no other parent has its number of token rows, {rows}, so that nothing says "
        "what they mean: put its tokenizer files into its folder."
    )


def _own_rows(tokens: Tokens, size: int, mine: Tokens, rows: int) -> Tensor:
    """Number of the row that a checkpoint of `rows` rows with the tokens `mine` has for each output row; −1 for none.

    (size,) int64. Where one token has two ids, or an id has none, the row of the same id is preferred.
    """
    spelled = {index: token for index, token in mine.by_id.items() if index < rows and mine.means_in(tokens, token)}
    where = {token: index for index, token in sorted(spelled.items(), reverse=True)}
    shapes = []
    for index in range(size):
        token = tokens.by_id.get(index)
        if token is None:
            shapes.append(index if index < rows and index not in mine.by_id else -1)
        else:
            shapes.append(index if spelled.get(index) == token else where.get(token, -1))
    return torch.tensor(shapes, dtype=torch.int64)


def _fillers(
    tensor: Tensor, owners: Sequence[tuple[Source, Tokens, Tensor]]
) -> Iterator[tuple[Tensor, list[tuple[Source, Tensor | None]]]]:
    """For the rows that a checkpoint lacks: their indices, and the donors with their rows (None: the mean of all)."""
    missing = tensor < 0
    held = torch.stack([rows >= 0 for _, _, rows in owners])
    held[1:] &= ~held[0]  # where the base has a row, it is the only donor
    group = (held.long() << torch.arange(len(owners))[:, None]).sum(0)
    for code in torch.unique(group[missing]).tolist():
        places = torch.nonzero(missing & (group == code)).flatten()
        donors: list[tuple[Source, Tensor | None]] = [
            (owner, rows[places]) for i, (owner, _, rows) in enumerate(owners) if code >> i & 1
        ]
        yield places, donors or [(owners[0][0], None)]


def _donor_rows(donor: Source, name: str, index: Tensor | None) -> Tensor:
    """Rows of a donor's tensor; a tied head that it does not store is its embedding."""
    rows = donor.read(name if name in donor.tensors else next(iter(_by_token(donor))))
    return rows.mean(0, dtype=torch.float32) if index is None else rows.index_select(0, index)


def _mean(donated: Sequence[Tensor]) -> Tensor:
    return sum((rows.double() for rows in donated), torch.zeros((), dtype=torch.float64)) / len(donated)


def _by_token(checkpoint: Source) -> list[str]:
    return [name for name in checkpoint.tensors if name.endswith(_BY_TOKEN)]


def _rows(checkpoint: Source) -> int:
    return checkpoint.tensors[_by_token(checkpoint)[0]].shape[0]


def _check_rows(checkpoint: Source, name: str) -> None:
    shapes = {tensor: checkpoint.tensors[tensor].shape for tensor in _by_token(checkpoint)}
    if not shapes:
        raise UserError(
            f"{name} has no tensor that ends in {', '.join(_BY_TOKEN)}: its vocabulary cannot be changed. Choose "
            "parents with the same tokenizer and leave tokenizer out."
        )
    if len({shape[0] for shape in shapes.values()}) > 1:
        sizes = ", ".join(f"{tensor} {list(shape)}" for tensor, shape in shapes.items())
        raise UserError(f"{name} has not as many rows in its embedding as in its output head ({sizes}): it is damaged.")


def _resized(header: TensorHeader, rows: int) -> TensorHeader:
    nbytes = header.nbytes // header.shape[0] * rows
    return dataclasses.replace(header, shape=(rows, *header.shape[1:]), nbytes=nbytes)


def _config(config: dict[str, Any], token_ids: dict[str, Any], rows: int) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if not key.endswith("_token_id")}
    return kept | token_ids | {"vocab_size": rows}


def _written(config: dict[str, Any], tokens: Tokens, tokenizer: str, cache: Path) -> Path:
    """The folder with config.json and tokenizer, known by the hash of what is in it."""
    made = {"config.json": json.dumps(config, indent=2)}
    copied = [name for name in BEHAVIOUR_FILES if name != "config.json" and (tokens.folder / name).is_file()]
    if tokenizer == "union":
        made["tokenizer.json"] = json.dumps(tokens.content)
        copied = [name for name in copied if name not in _OUTDATED]
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode())
    for name in copied:
        digest.update(name.encode() + b"\0" + hashlib.sha256((tokens.folder / name).read_bytes()).digest())

    def build(into: Path) -> None:
        for name in copied:
            shutil.copyfile(tokens.folder / name, into / name)
        for name, text in made.items():
            (into / name).write_text(text)

    return build_folder(cache / "vocabularies" / f"{tokenizer}-{digest.hexdigest()[:16]}", build)
