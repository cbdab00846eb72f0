"""Every notebook is a story: executed as it is kept, without outputs, without functions of its own."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from experiments.reading import stems

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


def errors(notebook: nbformat.NotebookNode) -> list[str]:
    """What makes it something else than a story that is kept without outputs."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.outputs or cell.execution_count is not None:
            found.append(f"cell {number} has outputs")
        if number == 0 or notebook.cells[number - 1].cell_type != "markdown":
            found.append(f"cell {number} comes without a sentence")
        defined = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, DEFINITIONS)]
        found += [f"cell {number} defines {getattr(node, 'name', 'a lambda')}" for node in defined]
    if not any("from patientdx" in cell.source or "import patientdx" in cell.source for cell in code):
        found.append("patientdx is not used")
    return found


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_story_without_outputs(path):
    assert errors(nbformat.read(path, as_version=4)) == []


def test_every_table_has_a_cell():
    text = (FOLDER / "05_paper_tables.ipynb").read_text(encoding="utf-8")
    scripts = {stem for stem in stems() if (FOLDER.parent / "experiments" / f"{stem}.py").is_file()}
    assert {stem for stem in scripts if f'run(\\"{stem}\\"' not in text} == set()
    assert "mortality" in scripts


def test_what_is_no_story_is_named():
    new = nbformat.v4
    printed = new.new_output("stream", text="1")
    cells = [
        new.new_code_cell("x = 1"),
        new.new_markdown_cell("A sentence."),
        new.new_code_cell("def f():\n    pass", outputs=[printed]),
        new.new_code_cell("g = lambda x: x", execution_count=3),
    ]
    assert errors(new.new_notebook(cells=cells)) == [
        "cell 0 comes without a sentence",
        "cell 2 has outputs",
        "cell 2 defines f",
        "cell 3 has outputs",
        "cell 3 comes without a sentence",
        "cell 3 defines a lambda",
        "patientdx is not used",
    ]


@pytest.fixture(scope="module")
def tiny_pair(make_tiny):
    """For notebooks that ask a pair of models: a context that a whole record fits into, byte by byte."""
    return [make_tiny(max_position_embeddings=4096, **seeds) for seeds in ({}, {"noise_seed": 1})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch, tiny_pair):
    """In a kernel of its own, started where a reader starts it; an error in any cell fails the test."""
    monkeypatch.setenv("PATIENTDX_NOTEBOOK_PAIR", os.pathsep.join(map(str, tiny_pair)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own shows pictures
    before = {file: file.stat().st_mtime_ns for file in FOLDER.rglob("*")}
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {file: file.stat().st_mtime_ns for file in FOLDER.rglob("*")} == before
