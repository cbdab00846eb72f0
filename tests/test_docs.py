"""README and docs: links that lead somewhere, and lists that name every method and task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("http")]
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
