"""What cannot go together in a configuration, each with its reason and what can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from patientdx.evaluation.config.search import CHOSEN_ON, FIXED, PRIVATE
from patientdx.evaluation.config.section import MERGED, group_name
from patientdx.evaluation.registry import kind_names, kind_traits
from patientdx.records.splits import EXTERNAL


def conflicts(plain: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """The conflicts of a composed config. overrides: the words of the command.

    They are found from plain values, so that they are reported beside values that are not valid.
    """
    words = {word.lstrip("+~").partition("=")[0].partition(".")[0] for word in overrides}
    yield from _of_pair(plain, words)
    if group_name(plain, "task") == "none" and not _writes(plain):
        yield "task=none leaves nothing to do: choose a task, or add save=<folder> or dry_run=true."
    if (model := group_name(plain, "model")) not in (MERGED, None):
        if _writes(plain):
            yield f"model={model} merges nothing: leave out save and dry_run, or use model=merged."
        if plain.get("prompt_variants") is True:
            yield f"prompt_variants=true: model={model} reads no question. Leave it out, or use model=merged."
    yield from _of_load(plain)
    yield from _of_finetune(plain)
    yield from _of_privacy(plain)
    yield from _of_search(plain, words)
    yield from _of_kind(plain)
    yield from _of_thresholds(plain)


def _writes(plain: Mapping[str, Any]) -> bool:
    return plain.get("save") is not None or plain.get("dry_run") is True


def _of_pair(plain: Mapping[str, Any], words: set[str]) -> Iterator[str]:
    """``pair=`` in the command names parents, and a study's overlay puts others in their place."""
    pair = plain.get("pair") or {}
    for group in ("base_model", "pivot_model"):
        chosen = group_name(plain, group)
        if "pair" in words and group not in words and pair.get(group) not in (None, chosen):
            yield (
                f"pair={pair.get('name')} sets {group}={pair[group]}, but this study has {group}={chosen} in its "
                f"overlay. Say which: {group}={pair[group]}, or leave pair out."
            )


def _of_thresholds(plain: Mapping[str, Any]) -> Iterator[str]:
    """One rule chooses the threshold, and a number of alerts a day is less than that of the stays that are scored."""
    thresholds = plain.get("thresholds") or {}
    alerts, stays = thresholds.get("alerts_per_day"), thresholds.get("stays_per_day")
    if alerts is None:
        return
    if thresholds.get("target_sensitivity") is not None:
        yield "thresholds.alerts_per_day: one rule chooses the threshold. Set target_sensitivity=null, or this to null."
    if stays is None or (isinstance(alerts, int | float) and isinstance(stays, int | float) and alerts >= stays):
        yield (
            f"thresholds.alerts_per_day={alerts}: set thresholds.stays_per_day to a larger number, of the stays that "
            "are scored a day."
        )


def _of_load(plain: Mapping[str, Any]) -> Iterator[str]:
    """Quantised weights answer questions; whatever trains, writes or spreads a model needs them as they are."""
    if (load := plain.get("load")) is None:
        return
    load = f"load={load}"
    if _writes(plain):
        yield f"{load}: save and dry_run are about the merge before it is quantised. Leave out load, or them."
    elif group_name(plain, "task") == "none":
        yield f"{load}: models are quantised to score them, and task=none scores nothing. Leave load out."
    if (method := group_name(plain, "finetune")) not in ("none", None):
        yield f"{load}: finetune={method} trains weights in floating point. Leave load out, or use finetune=none."
    if plain.get("generator") == "vllm":
        yield f"{load}: generator=vllm loads models itself. Leave load out, or use generator=transformers."
    if plain.get("device_map") is not None:
        yield f"{load}: a quantised model is on one device. Leave load or device_map out."
    if plain.get("device") == "mps":
        yield f"{load}: torchao computes on cpu and cuda, not on mps. Leave load out, or use device=cpu."


def _of_finetune(plain: Mapping[str, Any]) -> Iterator[str]:
    method, model = group_name(plain, "finetune"), group_name(plain, "model")
    if method in ("none", None):
        return
    batch, micro = (plain["finetune"].get(name) for name in ("batch", "micro_batch_size"))
    if type(batch) is type(micro) is int and batch > 0 and micro > 0 and batch % micro:
        yield f"finetune.micro_batch_size={micro}: a batch of {batch} cannot be split so. Give a divisor of it."
    if model != MERGED:
        yield (
            f"finetune={method}: model={model} is scored alone, and is no language model. Leave finetune out, or use "
            "model=merged."
        )
    if group_name(plain, "task") == "none":
        yield f"finetune={method}: without a task there is nothing to train on. Choose one: task=mortality."
    elif _writes(plain):
        yield (
            f"finetune={method}: save and dry_run are of the merged model; a fine-tuned one holds what it was trained "
            "on, and stays in the cache. Leave out one or the other."
        )


def _of_privacy(plain: Mapping[str, Any]) -> Iterator[str]:
    name, node = group_name(plain, "privacy"), plain.get("privacy") or {}
    if name in ("none", None):
        return
    if group_name(plain, "task") == "none":
        yield f"privacy={name}: losses are measured on a task's records. Choose a task, or privacy=none."
    if group_name(plain, "model") != MERGED:
        yield f"privacy={name}: a tabular model gives no loss to a text. Use model=merged, or privacy=none."
    if plain.get("parents") is not True:
        yield f"privacy={name}: every model is compared with the one that it came from. Leave parents=true."
    if (tokenizer := plain.get("tokenizer")) in ("pivot", "union"):
        yield (
            f"privacy={name}: with tokenizer={tokenizer} the base reads another tokenizer's tokens than its own, and "
            "its losses are no reference. Use tokenizer=base, or parents with one vocabulary."
        )
    for key in (key for key in ("canaries", "shadows", "parent_file") if node.get(key)):
        if key != "parent_file" and group_name(plain, "finetune") == "none":
            yield f"privacy.{key}: without fine-tuning there is nothing to put into. Add finetune=lora or full."
        if name == "dlt":
            yield f"privacy.{key}: it is part of membership inference. Use privacy=mia or all."


def _of_search(plain: Mapping[str, Any], words: set[str]) -> Iterator[str]:
    name = group_name(plain, "search")
    if name == FIXED:
        keys = [key for key in plain["search"] if key != "name"]
        yield from (f"search.{key}: search=fixed takes λ as given, and no numbers." for key in keys)
    if name in (FIXED, None):
        return
    search, splits, model = f"search={name}", plain.get("splits"), group_name(plain, "model")
    splits = [splits] if isinstance(splits, str) else splits or []
    if "lambda" in words:
        yield f"{search} finds λ, and the command gives lambda as well. Leave lambda out, or use search=fixed."
    if plain.get("mergekit_config") is not None:
        yield f"{search} finds λ, and a mergekit recipe gives it. Leave mergekit_config out, or use search=fixed."
    if isinstance(splits, list) and CHOSEN_ON in [split for split in splits if split != EXTERNAL][-1:]:
        yield (
            f"splits={splits}: {search} chooses λ on pilot, and the best of several noisy numbers is too good to "
            "be reported. Put another split last, as in splits=[pilot,test]."
        )
    if name == PRIVATE and CHOSEN_ON in splits:
        yield (
            f"splits={splits}: search=private does not publish the pilot patients' scores, and numbers of the "
            "pilot split would. Leave splits out, or give it without pilot."
        )
    if name == PRIVATE:
        yield from _of_private(plain)
    if group_name(plain, "task") == "none":
        yield f"{search} chooses λ by scores, and task=none has none. Choose a task, or use search=fixed."
    elif not (plain.get("task") or {}).get("metrics"):
        yield f"{search} chooses λ by the task's first metric, and task.metrics names none. Name one there."
    if model != MERGED:
        yield f"{search}: model={model} has no λ. Use model=merged, or search=fixed."
    if _writes(plain):
        yield (
            f"{search}: save and dry_run are about one λ, which is not known yet. Search first, then give the λ that "
            "it chose: search=fixed lambda=<it> save=<folder>."
        )


def _of_private(plain: Mapping[str, Any]) -> Iterator[str]:
    """What else of a run would depend on the pilot patients, beside λ."""
    method, finetune = group_name(plain, "finetune"), plain.get("finetune") or {}
    if method in ("none", None):
        return
    if finetune.get("patience") is not None:
        yield (
            f"search=private with finetune.patience={finetune['patience']}: training would end by the pilot patients' "
            "losses, which ε does not cover. Use finetune.patience=null, or search=grid."
        )


def _of_kind(plain: Mapping[str, Any]) -> Iterator[str]:
    """What only some kinds of task have. Prompt variants and tabular models depend on the data: the analyses say so."""
    task, kind = group_name(plain, "task"), (plain.get("task") or {}).get("kind")
    if kind is None:  # without a task; then no kind is imported, with all that reads records
        return
    if kind not in kind_names() or kind_traits(kind).gives_probability:
        return
    trainable, of_kind = kind_traits(kind).trainable, f"but task={task} is of kind {kind}"
    binary = "a task of kind binary (task=mortality)"
    names = {group: group_name(plain, group) for group in ("finetune", "privacy")}
    for group in (group for group, name in names.items() if name not in ("none", None)):
        if group == "privacy" or not trainable:
            yield (f"{group}={names[group]}: it needs yes/no questions, {of_kind}. Leave {group} out, or use {binary}.")
    if trainable and names["finetune"] != "none" and plain["finetune"].get("monitor") == "auroc":
        yield f"finetune.monitor=auroc: it needs yes/no questions, {of_kind}. Use finetune.monitor=loss, or {binary}."
    if group_name(plain, "search") == PRIVATE:
        yield f"search=private is for the AUROC of binary tasks, {of_kind}. Use search=grid, or {binary}."
