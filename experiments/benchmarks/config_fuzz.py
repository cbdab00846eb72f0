"""Random overrides of the composed configuration: each is a run that could begin, or is refused in words.

    python -m experiments.benchmarks.config_fuzz --examples 1000

Each example is one to three overrides of keys and groups of conf/config.yaml: numbers, truth values, null, empty and
odd texts, paths, interpolations, lists, mappings, deletions. It is composed and validated as run.py does it, and a run
that is valid is checked up to the work itself: parents, task, prompts, fingerprints. An error that run.py shows with
lines of code is a fault; Hypothesis reduces it to the least overrides and the command ends with code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Verbosity, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.benchmarks import harness
from patientdx.checkpoints.source import REPOSITORY
from patientdx.cli.compose import with_recipe
from patientdx.cli.sweep import study_of
from patientdx.cli.user_errors import user_error
from patientdx.evaluation import runner
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.session import Session

CONF = REPOSITORY / "conf"
VALUES = (
    "null", "true", "false", "yes", "0", "1", "-1", "2", "0.5", "-0.5", "1e30", "nan", "inf", "''", "' '", "x", "../x",
    "/", "~", "~/x", "~nobody/x", "a/b", "'${nope}'", "'${seed}'", "[]", "[1]", "[x,y]", "['']", "[null]", "{}",
    "{a:1}", "{a:{b:x}}", "'1'", "ü", "'a b'", "'a\\nb'", "n" * 300, "???", "[[1,2],[3]]", "1_000", "0x10", "none",
    "mortality", "slerp", "test", "[test,test]", "wheel:x", "hub:x", "x.gguf", "patientdx.core.errors.UserError",
)  # fmt: skip


@cache
def keys() -> list[str]:
    """Every key of the configuration, with the groups, as an override names it; Hydra's own keys are left out."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config"))
    return sorted(_paths(plain))


def _paths(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, Mapping):
        return [prefix]
    below = [path for key, value in node.items() for path in _paths(value, f"{prefix}.{key}".lstrip("."))]
    return below + ([prefix] if prefix else [])


def choices() -> list[str]:
    """Every choice of a group, as an override."""
    groups = ("task", "merge", "model", "finetune", "search", "privacy", "tracking", "pair", "experiment", "size")
    return [f"{group}={file.stem}" for group in groups for file in sorted((CONF / group).glob("*.yaml"))]


def overrides() -> st.SearchStrategy[list[str]]:
    """One to three overrides, as a command line has them."""
    key, value = st.sampled_from(keys()), st.sampled_from(VALUES)
    word = st.one_of(
        st.builds("{}={}".format, key, value),
        st.builds("+{}={}".format, st.sampled_from(("x", "task.x", "merge.x", "lambda.x", "tracking.x.y")), value),
        st.builds("~{}".format, key),
        st.sampled_from(choices()),
    )
    return st.lists(word, min_size=1, max_size=3)


def begins(words: Sequence[str], session: Session) -> str | None:
    """Why a run with these overrides is refused, None where it could begin. Raises what is a fault."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", list(words))
        study_of(cfg)
        config = parse(with_recipe(cfg), overrides=words)
        # Nothing is written elsewhere than in the cache.
        if config.task is not None and not any(word.lstrip("+~").startswith("cache") for word in words):
            runner.check(session, config.model_copy(update={"output": config.cache / "fuzz"}))
    except Exception as error:
        mended = user_error(error, words)
        if mended is None:
            raise
        return str(mended)
    return None


def search(
    examples: int, fixed: Sequence[str], *, number: int = 0, seen: Callable[[str | None], object] = lambda _: None
) -> None:
    """Raise the first fault among so many random configurations, reduced.

    fixed: overrides that come before the random ones, such as small parents. number: the seed. seen: called with each
    refusal, or None.
    """
    session = Session()

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, verbosity=Verbosity.quiet,
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(overrides())
    def attempt(words: list[str]) -> None:
        seen(begins([*fixed, *words], session))

    attempt()


def main() -> None:
    """The command."""
    options = harness.parser(__doc__)
    options.add_argument("--examples", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--base", type=Path, help="folder of a small base model; otherwise the default one")
    options.add_argument("--pivot", type=Path, help="folder of a small pivot")
    args = options.parse_args()
    fixed = ["task.synthetic.stays=60"]
    if args.base is not None and args.pivot is not None:
        fixed += [f"base_model.source={args.base}", f"pivot_model.source={args.pivot}", "pivot_model.adapter=null"]
    refusals: list[str | None] = []
    search(args.examples, fixed, number=args.seed, seen=refusals.append)
    begun = sum(refusal is None for refusal in refusals)
    print(f"{len(refusals)} configurations: {begun} could begin, {len(refusals) - begun} are refused, none is a fault")


if __name__ == "__main__":
    sys.exit(harness.run(main))
