"""The site: Sphinx over the pages of this folder, the notebooks, and what generate.py makes. `make docs` builds it.

PATIENTDX_EXECUTE=1 executes the notebooks, which takes minutes. Otherwise they are shown without outputs, as they lie
in the repository.
"""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

import generate  # noqa: E402

from patientdx import __version__  # noqa: E402

generate.write()
os.environ["PYTHONPATH"] = str(FOLDER.parent)  # of the kernels that execute notebooks

project, author, release = "PatientDx", "The PatientDx maintainers", __version__
project_copyright = "2026, The PatientDx maintainers"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["site.css"]
highlight_language = "none"  # where a block names none
html_title = f"PatientDx {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
myst_heading_anchors = 3
nb_execution_mode = "force" if os.environ.get("PATIENTDX_EXECUTE") == "1" else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nitpicky = False


def setup(app):
    """What is read differently from what Sphinx reads by itself."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _plain)


def _read(app, name, source):
    if not name.startswith("generated/"):
        source[0] = generate.links(FOLDER / f"{name}.md", source[0])


def _plain(app, what, name, obj, options, lines):
    """Docstrings are plain text, in which indentation is no markup."""
    lines[:] = ["::", "", *(f"   {line}" for line in lines), ""] if any(lines) else []
