"""The settings, and what holds for every tracker."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from patientdx import tracking
from patientdx.core.errors import UserError
from patientdx.tracking import TrackingSettings, tracking_settings

ROOT = Path(__file__).parents[2]


def test_none_does_not_import_a_tracker():
    code = (
        "import sys; from pathlib import Path; from patientdx.tracking import *; here = Path('never'); "
        "print(track(TrackingSettings(mode='none'), fingerprint='f', name='n', group='g', job_type='j', tags=[], "
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
        modes[file.stem] = tracking_settings(yaml.safe_load(file.read_text())).mode
    assert modes == {"wandb_offline": "offline", "wandb": "online", "trackio": "trackio", "none": "none"}


def test_one_tag_is_a_tag_and_no_letters():
    assert tracking_settings({"tags": "demo"}).tags == ("demo",)
    assert tracking_settings({"tags": ["demo", 7]}).tags == ("demo", "7")
    assert tracking_settings({"tags": None}).tags == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "wandb"}, r"tracking\.mode=wandb does not exist; it is one of offline, online, trackio, none"),
        ({"predictions": True}, r"tracking\.predictions=True does not exist; it is one of open, always, never"),
        ({"project": "a/b"}, r"tracking\.project=a/b cannot be a project's name: give 1 to 128 characters without"),
        ({"project": ""}, r"tracking\.project= cannot be a project's name"),
        ({"proyect": "a"}, r"tracking\.proyect: tracking has no such key; it has mode, project, entity, tags, pred"),
    ],
)
def test_a_setting_that_will_not_do_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        tracking_settings(given)


def test_trackio_that_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError) as refused:
        TrackingSettings(mode="trackio")
    pinned = [line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if line.startswith("trackio")]
    assert str(refused.value) == (
        "tracking=trackio needs the package trackio, which is not installed. Install it with\n"
        f"  pip install {pinned[0]}\nor use tracking=wandb_offline, or tracking=none."
    )
    assert TrackingSettings(mode="none").mode == "none"
