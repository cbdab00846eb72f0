"""README and docs: links that lead somewhere, and lists that name every method and task."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from patientdx.cli.__main__ import OTHERS

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http", "generated/"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_readme_links_every_page_of_the_documentation():
    missing = [page.name for page in PAGES[2:] if f"docs/{page.name}" not in README and page.name not in README]
    assert missing == []


@pytest.mark.parametrize("group", ["merge", "task"])
def test_readme_names_every_method_and_task(group):
    names = {path.stem for path in (REPOSITORY / "conf" / group).glob("[!_]*.yaml")} - {"none"}
    listed = README[README.index("## Methods and tasks") : README.index("## The tree")]
    assert names - set(re.findall(r"`([a-z0-9_]+)`", listed)) == set()


def test_readme_can_be_read_at_once():
    assert len(README.splitlines()) <= 180


@pytest.fixture
def generate(monkeypatch):
    """docs/generate.py, which conf.py imports."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    return import_module("generate")


def test_every_page_is_in_the_contents_of_the_site():
    contents = "".join(re.findall(r"```{toctree}(.*?)```", (REPOSITORY / "docs/index.md").read_text(), re.DOTALL))
    missing = [page.stem for page in PAGES[2:] if page.stem != "index" and page.stem not in contents.split()]
    assert missing == []


def test_the_reference_has_every_choice_of_every_group_and_every_command(generate):
    """What generate.py makes, without Sphinx: `make docs` builds it, with warnings as errors."""
    texts = {"merge": generate._methods(), "task": generate._tasks()}
    texts |= {group: generate._group(group, title) for group, title in generate.GROUPS.items()}
    conf = REPOSITORY / "conf"
    groups = {path.name for path in conf.iterdir() if path.is_dir() and not path.is_symlink()}
    assert groups - {"hydra", "size_of"} <= set(texts)  # a new group needs a title there
    for group, text in texts.items():
        for path in (conf / group).rglob("[!_]*.yaml"):
            assert f"## `{path.relative_to(conf / group).with_suffix('').as_posix()}`\n" in text
            assert path.read_text(encoding="utf-8").strip() in text
    assert all(f"## `{name}`" in generate._commands() for name in OTHERS)


def test_links_of_a_page_lead_within_the_site_or_name_the_file(generate):
    text = (
        "[a](running.md#sweeps) [b](../conf/models) [c](../patientdx/api.py) [`run.py`](../run.py) [d](https://x.org/a)"
    )
    assert generate.links(REPOSITORY / "docs/page.md", text) == (
        "[a](/running.md#sweeps) [b](/generated/reference/models.md) c (`patientdx/api.py`) `run.py` [d](https://x.org/a)"
    )


def commands() -> list[str]:
    """Every command line of the pages that composes a configuration, without its comment and its placeholders."""
    found = []
    for page in (PAGES[0], *PAGES[2:]):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = (line.partition("  #")[0].strip() for line in block.splitlines())
            found += [line for line in lines if re.match(r"(python run\.py|patientdx (run|merge)) ", line)]
    return sorted({line for line in found if not re.search(r"[<…]|--help|-sc|--config-dir|hydra|mylab|-m ", line)})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_documentation_composes(line):
    """Its words are keys and choices that exist; what it reads need not be there."""
    words = [word for word in shlex.split(line)[2:] if not re.match(r"(base|pivot)_model=.*/", word)]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        compose("config", words)
