"""The pages of the site that follow from code, yamls and docstrings. conf.py calls `write`.

They go to docs/generated, which git ignores: the reference (a page for each group of conf/, the methods, the tasks, the
commands, the keys of a row of results), and copies of pages that lie elsewhere (notebooks, CHANGELOG.md, …).
"""

from __future__ import annotations

import math
import re
import shutil
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONF, DOCS = ROOT / "conf", ROOT / "docs"
GENERATED = DOCS / "generated"
COPIED = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing", "experiments/README.md": "studies"}
# Groups by what a reader looks for; base_model and pivot_model are links to models, size_of is a part of size.
GROUPS = {
    "models": "Models", "pair": "Pairs of parents", "model": "Systems beside the merge", "search": "Searches for λ",
    "finetune": "Fine-tuning", "privacy": "Leakage tests", "tracking": "Trackers", "experiment": "Studies",
    "size": "Sizes of studies", "hydra/launcher": "Launchers",
}  # fmt: skip
PAGES = {ROOT / source: f"/generated/{name}.md" for source, name in COPIED.items()}
PAGES |= {CONF / group: f"/generated/reference/{group}.md" for group in ("merge", "models", "task")}


def write() -> None:
    """Make all pages anew. Raises ImportError or KeyError where a yaml names a function that is not there."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    pages = {"configuration": _configuration(), "merge": _methods(), "task": _tasks(), "commands": _commands()}
    pages |= {group.replace("/", "_"): _group(group, title) for group, title in GROUPS.items()}
    pages["rows"] = f"# Rows of results\n\n{import_module('patientdx.reporting').__doc__}"
    texts = {f"reference/{name}.md": text for name, text in pages.items()}
    texts |= {f"{name}.md": links(ROOT / source) for source, name in COPIED.items()}
    for name, text in texts.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "notebooks", GENERATED / "notebooks", ignore=shutil.ignore_patterns(".*"))


def links(page: Path, text: str | None = None) -> str:
    """A page's text, with its links to pages of the site as the site has them; of other files the path alone."""

    def rewritten(match: re.Match) -> str:
        words, target, anchor = match[1], (page.parent / match[2]).resolve(), match[3] or ""
        if target in PAGES or target.is_relative_to(DOCS):
            return f"[{words}]({PAGES.get(target) or f'/{target.relative_to(DOCS)}'}{anchor})"
        path = str(target.relative_to(ROOT))
        return words if words.strip("`") == path else f"{words} (`{path}`)"

    text = page.read_text(encoding="utf-8") if text is None else text
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|/)([^)\s#]+)(#[^)\s]*)?\)", rewritten, text)


def _yaml(path: Path) -> str:
    return f"```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n"


def _choices(folder: Path) -> list[Path]:
    """The yamls of a group, its subfolders last; a leading underscore is no choice."""
    files = [path for path in folder.rglob("*.yaml") if not path.name.startswith("_")]
    return sorted(files, key=lambda path: (len(path.parts), path))


def _section(path: Path, group: str, text: str = "") -> str:
    name = path.relative_to(CONF / group).with_suffix("").as_posix()
    return f"## `{name}`\n\n{text}{_yaml(path)}"


def _configuration() -> str:
    return (
        "# Keys of a run\n\n`conf/config.yaml`: every key that no group has, with its default. The groups that it "
        f"begins with are pages of their own.\n\n{_yaml(CONF / 'config.yaml')}"
    )


def _group(group: str, title: str) -> str:
    files = _choices(CONF / group) + (_choices(CONF / "size_of") if group == "size" else [])
    sections = [_section(path, group if path.is_relative_to(CONF / group) else "size_of") for path in files]
    word = {"models": "base_model=` and `pivot_model", "size": "size"}.get(group, group)
    return f"# {title}\n\nChoices of `{word}=`. The first lines of each say how it is used.\n\n" + "\n".join(sections)


def _target(path: Path):
    """What the yaml's `_target_` names; None without one."""
    named = re.search(r"^\s*_target_: (\S+)\.(\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return None if named is None else getattr(import_module(named[1]), named[2])


def _methods() -> str:
    sections = []
    for path in _choices(CONF / "merge"):
        function, text = _target(path), ""
        if function is not None:
            span = function.method_spec.lambda_range
            ends = "no λ" if span is None else f"λ from {span[0]:g} to {'∞' if math.isinf(span[1]) else f'{span[1]:g}'}"
            exact = "; its ends are the parents bit for bit" if function.method_spec.exact_ends else ""
            text = f"{ends}{exact}.\n\n```text\n{_doc(function)}\n```\n\n"
        sections.append(_section(path, "merge", text))
    start = "# Parameters of the merge methods\n\nChoices of `merge=`; [what each computes](/methods.md).\n\n"
    return start + "\n".join(sections)


def _tasks() -> str:
    shared = [f"## `{path.stem}`\n\n{_yaml(path)}" for path in sorted((CONF / "task").glob("_*.yaml"))]
    sections = [_section(path, "task") for path in _choices(CONF / "task")]
    classes = list(dict.fromkeys(_target(path) for path in sorted((CONF / "task").glob("*.yaml"))))
    texts = [f"## `{item.__name__}`\n\n```text\n{_doc(item)}\n```\n" for item in classes if item is not None]
    start = "# Keys of the tasks\n\nChoices of `task=`, then the keys that several share (their names begin with an "
    return start + "underscore), then the families that read them.\n\n" + "\n".join([*sections, *shared, *texts])


def _commands() -> str:
    from patientdx.cli.__main__ import COMMANDS
    from patientdx.cli.__main__ import __doc__ as doc

    modules = {name: import_module(f"patientdx.cli.{name}") for name in COMMANDS if name not in ("run", "merge")}
    sections = [f"## `{name}`\n\n```text\n{_doc(module)}\n```\n" for name, module in modules.items()]
    return f"# Commands\n\n```text\n{(doc or '').strip()}\n```\n\n" + "\n".join(sections)


def _doc(item: object) -> str:
    from inspect import getdoc

    return (getdoc(item) or "").strip()
