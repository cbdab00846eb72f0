"""Recipes written for a test, and what is said of those that are refused."""

import textwrap

import pytest
from command_line import listed

from patientdx.cli.mergekit.recipe import read_recipe
from patientdx.core.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Writes a recipe and returns its file."""

    def write(text):
        file = tmp_path / "recipe.yml"
        file.write_text(textwrap.dedent(text))
        return file

    return write


@pytest.fixture
def refused(write):
    """What is said of a recipe: its lines, without the first."""

    def refused(text):
        file = write(text)
        with pytest.raises(UserError) as caught:
            read_recipe(file)
        (first, *_), lines = str(caught.value).split("\n"), listed(caught.value, "- ")
        count = "something" if len(lines) == 1 else f"{len(lines)} things"
        assert first == f"{file} asks for {count} that cannot be done here:"
        return lines

    return refused
