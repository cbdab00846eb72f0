"""One study of invented scores for all tests of the report."""

from pathlib import Path

import pytest
from made_studies import write_made_run, write_sweep

from patientdx.reporting import write_report


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods at two λ each; slerp λ=0.6 and linear λ=0.6 have the evaluation for the clinic."""
    study = tmp_path_factory.mktemp("outputs") / "made <study>"
    asked = [("slerp", 0.2, 0.5), ("slerp", 0.6, 1.6), ("linear", 0.2, 0.4), ("linear", 0.6, 0.9)]
    folders = [
        write_made_run(study / f"mortality_{method}_{place}", method, place, strength, clinical=place == 0.6)
        for method, place, strength in asked
    ]
    given = [[f"merge={method}", f"lambda={place}", "output=/home/someone/x"] for method, place, _ in asked]
    write_sweep(study, folders, given)
    return study


@pytest.fixture(scope="session")
def made_page(made_study: Path) -> Path:
    """Its report."""
    return write_report(made_study)
