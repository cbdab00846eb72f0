"""The tracking section, and what every tracker has in common."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from patientdx.core import extras
from patientdx.evaluation.config.tracking import TrackingConfig

ROOT = Path(__file__).parents[2]


def test_none_does_not_import_a_tracker():
    code = (
        "import sys; from pathlib import Path; from patientdx.evaluation.config.tracking import TrackingConfig; "
        "from patientdx.tracking import track; here, off = Path('never'), TrackingConfig(tracking={'mode': 'none'}); "
        "print(track(off, fingerprint='f', name='n', group='g', job_type='j', tags=[], "
        "config={}, summary={}, curves={}, folder=here, output=here, predictions=here, open_data=True), "
        "{'wandb', 'trackio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "None set()\n"
    assert not (ROOT / "never").exists()


def test_settings_and_their_yaml():
    modes = {}
    for file in (ROOT / "conf" / "tracking").glob("*.yaml"):
        assert file.read_text().startswith("# python run.py")
        modes[file.stem] = TrackingConfig(tracking=yaml.safe_load(file.read_text())).mode
    assert modes == {"wandb_offline": "offline", "wandb": "online", "trackio": "trackio", "none": "none"}


def test_one_tag_is_a_tag_and_no_letters():
    assert TrackingConfig(tracking={"tags": "demo"}).tags == ("demo",)
    assert TrackingConfig(tracking={"tags": ["demo", 7]}).tags == ("demo", "7")
    assert TrackingConfig(tracking={"tags": None}).tags == ()


@pytest.mark.parametrize("tags", ["", [""], ["demo", " "]])
def test_an_empty_tag_is_refused(tags):
    with pytest.raises(ValidationError, match="a tag is empty, and W&B takes none"):
        TrackingConfig(tracking={"tags": tags})


def test_trackio_that_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ValidationError) as refused:
        TrackingConfig(tracking={"mode": "trackio"})
    assert "tracking=trackio needs the package trackio, which is not installed: pip install" in str(refused.value)
    assert "tracking=none" in str(refused.value)
    assert TrackingConfig(tracking={"mode": "none"}).mode == "none"
