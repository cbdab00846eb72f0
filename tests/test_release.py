"""The files beside the code: citation, hooks and version say what the package says."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from patientdx import __version__

REPOSITORY = Path(__file__).parents[1]
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_names_the_version_and_the_papers_of_readme():
    assert {"cff-version", "message", "title", "authors", "version"} <= set(CITATION)
    assert (CITATION["cff-version"], CITATION["version"]) == ("1.2.0", __version__)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"author = \{(.*?)\}, (?:title|note).*?eprint = \{([\d.]+)\}", readme))
    assert len(entries) == len(CITATION["references"]) == 3
    for reference, (authors, eprint) in zip(CITATION["references"], entries.items(), strict=True):
        assert reference["url"] == f"https://arxiv.org/abs/{eprint}"
        names = [f"{author['family-names']}, {author['given-names']}" for author in reference["authors"]]
        assert authors == " and ".join(names)
        assert reference["title"] in readme.replace("{PatientDx}", "PatientDx")


@pytest.mark.skipif(find_spec("cffconvert") is None, reason="cffconvert, which has the schema, is not installed")
def test_the_citation_is_as_its_schema_says():
    from cffconvert import Citation

    Citation((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")).validate()


def test_the_changelog_begins_with_the_version():
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+?):", text, re.MULTILINE)[1] == __version__


def test_the_hooks_have_the_pinned_ruff():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pins = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8")
    assert [repo["rev"] for repo in hooks["repos"]] == ["v" + re.search(r"^ruff==(\S+)$", pins, re.MULTILINE)[1]]


@pytest.mark.parametrize("path", sorted((REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem)
def test_an_issue_form_has_what_a_form_needs(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem != "config":
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
