"""What a tokenizer's files say: the token of each id, and one tokenizer with the tokens of several."""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object

# How text is cut, written and put together again: all of it must agree before two vocabularies can share one file.
_RULES = ("normalizer", "pre_tokenizer", "decoder")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one tokenizer.

    by_id: token of each id, added tokens included; empty when there is no tokenizer. added: tokens looked for in the
    text as it stands, before it is cut. content: the tokenizer.json; None where the files are of another kind.
    """

    folder: Path
    by_id: dict[int, str]
    added: frozenset[str] = frozenset()
    content: dict[str, Any] | None = None

    @cached_property
    def byte_level(self) -> bool:
        """Whether letters stand for bytes (Ġ for a blank), as against text with ▁ for blanks."""
        return any('"ByteLevel"' in json.dumps((self.content or {}).get(rule)) for rule in _RULES)

    def means_in(self, other: "Tokens", token: str) -> bool:
        """Whether a token of this one means the same in the other: é may be a byte in one and a letter in the other."""
        return self.byte_level == other.byte_level or token.isascii() or (token in self.added and token in other.added)


def read_tokens(folder: Path) -> Tokens:
    """The tokens of the tokenizer in a folder; UserError where its tokenizer.json is damaged."""
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return _tokens(folder, read_object(file))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{file} is not a tokenizer of the tokenizers library: download it again.") from error
    if (folder / "tokenizer.model").is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokens = {index: token for token, index in tokenizer.get_vocab().items()}
        return Tokens(folder, tokens, frozenset(tokenizer.get_added_vocab()))
    return Tokens(folder, {})


def _tokens(folder: Path, content: dict[str, Any]) -> Tokens:
    model = content["model"]["vocab"]
    # byte-pair vocabularies map token to id; unigram ones list (token, score) in the order of the ids
    pairs = model.items() if isinstance(model, dict) else ((entry[0], i) for i, entry in enumerate(model))
    tokens = {index: token for token, index in pairs}
    extra = {added["id"]: added["content"] for added in content.get("added_tokens", ())}
    return Tokens(folder, tokens | extra, frozenset(extra.values()), content)


def union(parents: Sequence[Tokens], names: Sequence[str]) -> Tokens:
    """One tokenizer with the tokens of all parents; its files are the first's but for the tokenizer.json in `content`.

    Every id of the first parent stays what it is. From its highest id on follow the second parent's new tokens in the
    order of their ids there, then the third's, and after these the new added tokens in the same order. The first
    parent's byte-pair merges come first, then the others' new ones: text that the first parent cuts in one way may be
    cut into longer tokens of the others, as neither would alone. Everything else (normaliser, template of the special
    tokens) is the first parent's.

    Raises:
        UserError: a parent has no tokenizer.json; they cut text by different rules; or their vocabularies differ and
            are not both byte-pair ones: scores of unigram pieces are not comparable between models.
    """
    contents = [tokens.content for tokens in parents if tokens.content is not None]
    for name, tokens in zip(names, parents, strict=True):
        if tokens.content is None:
            raise UserError(
                f"tokenizer=union writes one tokenizer.json, and {name} has none: write it with "
                "AutoTokenizer.from_pretrained(...).save_pretrained(...), or set tokenizer=base or tokenizer=pivot."
            )
    first, alike = contents[0], True
    for name, content in zip(names[1:], contents[1:], strict=True):
        same = _model(content) == _model(first)
        errors = list(_obstacles(first, content, same))
        if errors:
            raise UserError(
                f"tokenizer=union cannot put the tokens of {names[0]} and {name} into one tokenizer: "
                f"{'; '.join(errors)}. Set tokenizer=base or tokenizer=pivot."
            )
        alike &= same
    return _tokens(parents[0].folder, _joined(parents, contents, alike))


def _obstacles(first: dict, other: dict, same: bool) -> Iterator[str]:
    rules = [rule for rule in _RULES if first.get(rule) != other.get(rule)]
    if rules:
        yield f"they cut text by different rules ({', '.join(rules)})"
    if same:
        return
    kinds = [content["model"].get("type", "of an unnamed kind") for content in (first, other)]
    if kinds != ["BPE", "BPE"]:
        yield f"they are {kinds[0]} and {kinds[1]} with different vocabularies, and only BPE ones can be joined"
        return
    mine, theirs = (_flags(content) for content in (first, other))
    differing = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if differing:
        yield f"their BPE differs in {', '.join(differing)}"


def _model(content: dict) -> tuple:
    return _flags(content), content["model"]["vocab"], list(_merges(content))


def _flags(content: dict) -> dict[str, Any]:
    """The settings of the model; an absent one, null, false and an empty prefix are the same."""
    flags = {key: value for key, value in content["model"].items() if key not in ("vocab", "merges", "dropout")}
    return {key: value for key, value in flags.items() if value not in (None, False, "")}


def _merges(content: dict) -> Iterator[tuple[str, str]]:
    """Pairs to merge, most urgent first; older files write a pair as one string."""
    for merge in content["model"].get("merges", ()):
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def _joined(parents: Sequence[Tokens], contents: Sequence[dict[str, Any]], alike: bool) -> dict[str, Any]:
    content = copy.deepcopy(contents[0])
    ids = {token: index for index, token in sorted(parents[0].by_id.items(), reverse=True)}
    count = len(ids)
    unused = max(parents[0].by_id) + 1
    for added in (False, True):
        for tokens in parents[1:]:
            for _, token in sorted(tokens.by_id.items()):
                if (token in tokens.added) == added and token not in ids:
                    ids[token] = unused
                    unused += 1
    entries = {entry["content"]: entry for parent in reversed(contents) for entry in parent.get("added_tokens", ())}
    content["added_tokens"] = [
        entries[token] | {"id": index}
        for token, index in sorted(ids.items(), key=lambda item: item[1])
        if token in entries
    ]
    if len(ids) > count and content["model"]["type"] == "BPE":
        # Added tokens outside the vocabulary are numbered by its length, whatever their ids say: so all go into it.
        content["model"]["vocab"] = dict(sorted(ids.items(), key=lambda item: item[1]))
    if not alike:
        merges = dict.fromkeys(pair for parent in contents for pair in _merges(parent))
        content["model"]["merges"] = [list(pair) for pair in merges]
    _check_ids(content, ids)
    return content


def _check_ids(content: dict, ids: dict[str, int]) -> None:
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_str(json.dumps(content)).get_vocab(with_added_tokens=True)
    changed = [
        f"{token!r} from {index} to {vocabulary.get(token)}"
        for token, index in ids.items()
        if vocabulary.get(token) != index
    ]
    if changed:
        raise UserError(
            f"tokenizer=union cannot keep the ids of this kind of tokenizer: {some(changed)}. "
            "Set tokenizer=base or tokenizer=pivot."
        )


def some(items: Iterable[str]) -> str:
    """The first three, and how many more."""
    listed = list(items)
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest
