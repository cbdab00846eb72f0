"""The configuration: composed by Hydra from conf/, validated by `parse`, one message for each error."""

import json
from pathlib import Path

import pytest
from command_line import composed, listed
from omegaconf import open_dict

from patientdx.core.errors import UserError
from patientdx.core.functions import Call, dotted
from patientdx.evaluation.config.run_config import RunConfig, parse

MISSING = object()


def changed(key: str, value):
    """The default config with one key set, or taken away, behind Hydra's back: as another yaml would have it."""
    cfg = composed()
    *path, last = key.split(".")
    node = cfg
    for name in path:
        node = node[name]
    with open_dict(node):
        if value is MISSING:
            del node[last]
        else:
            node[last] = value
    return cfg


def errors(cfg) -> list[str]:
    """The lines of the refusal, without their count, which is checked here."""
    with pytest.raises(UserError) as refused:
        parse(cfg)
    lines = listed(refused.value, "  ")
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    assert str(refused.value).startswith(f"{count} in this configuration\n")
    return lines


def test_the_default_config():
    config = parse(composed())
    assert isinstance(config, RunConfig)
    assert (config.weight, config.merge.name, config.task.name, config.task.kind) == (
        0.4,
        "slerp",
        "mortality",
        "binary",
    )
    assert config.merge.spec.call == Call("patientdx.merge.slerp.slerp", '{"collinear": 0.9995}')
    assert (config.merge.base.name, config.merge.pivot.name) == ("smollm2_135m_instruct", "smollm2_135m_numeric")
    assert [label for label, _ in config.task.metrics] == ["auroc", "auprc"]
    assert (config.inference.splits, parse(composed(), sweep=True).inference.splits) == (("test",), ("pilot", "test"))
    assert config.composed["lambda"] == 0.4
    assert hash(config.merge.spec.call) == hash(
        parse(composed("lambda=0.1")).merge.spec.call
    )  # a sweep shares its curves


def test_the_cache_of_the_environment_reaches_the_task(monkeypatch, tmp_path):
    monkeypatch.setenv("PATIENTDX_CACHE", str(tmp_path))
    config = parse(composed())
    assert config.cache == tmp_path
    assert json.loads(config.task.call.arguments)["cache"] == str(tmp_path)
    config = parse(composed("cache='~/somewhere'"))
    assert config.cache == Path.home() / "somewhere"
    assert json.loads(config.task.call.arguments)["cache"] == str(config.cache)


@pytest.mark.parametrize(("text", "weight"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)])
@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_lambda_from_end_to_end(method, text, weight):
    found = parse(composed(f"merge={method}", f"lambda={text}")).weight
    assert found == weight
    assert isinstance(found, float)


def test_no_merge_has_no_lambda():
    assert parse(composed("merge=none")).weight is None


@pytest.mark.parametrize(
    "key", ["merge._target_", "task._target_", "merge.name", "task.name", "model.name", "base_model.name"]
)
@pytest.mark.parametrize("value", [MISSING, None])
def test_what_a_yaml_must_hold(key, value):
    expected = [f"{key} is missing."]
    if key == "base_model.name":
        ending = "is missing: ModelSource needs it." if value is MISSING else "must be a word, got None."
        expected = [f"{key} {ending}"]
    assert errors(changed(key, value)) == expected


def test_a_parameter_without_default_must_be_given():
    [fault] = errors(changed("task.cache", MISSING))
    assert fault == "task.cache is missing: ClinicalTask needs it."


def test_an_unknown_key_of_a_task_names_those_there_are():
    [fault] = errors(changed("task.windows", 3))
    assert fault.startswith("task.windows: ClinicalTask has no such parameter; it takes ")
    assert "window_hours" in fault


@pytest.mark.parametrize("overrides", [["~merge"], ["~task", "~scoring"]])
def test_a_group_taken_away(overrides):
    names = sorted(one[1:] for one in overrides)
    with pytest.raises(UserError) as refused:
        parse(composed(*overrides))
    assert str(refused.value) == f"this configuration has no {', '.join(names)}: choose one, as in merge=slerp."


def test_an_error_that_a_task_takes_over_is_listed_once():
    assert errors(composed("seed=0.5")) == ["seed=0.5: give a whole number of at least 0."]
    own = "task.seed must be a whole number, got 0.25."
    assert errors(composed("task.seed=0.25")) == [own]
    assert errors(composed("seed=0.5", "task.seed=0.25")) == ["seed=0.5: give a whole number of at least 0.", own]


def test_an_interpolation_that_leads_nowhere():
    with pytest.raises(UserError) as refused:
        parse(changed("task.question", "${nowhere}"))
    assert str(refused.value) == "this configuration cannot be resolved: Interpolation key 'nowhere' not found"


def test_splits_as_a_word_and_named_twice():
    assert parse(composed("splits=train")).inference.splits == ("train",)
    assert parse(composed("splits=[test,pilot,test]")).inference.splits == ("test", "pilot")


def test_a_package_that_is_not_installed_is_not_taken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    monkeypatch.setattr("patientdx.merge.__path__", [str(tmp_path)])
    with pytest.raises(UserError, match="needs the package surely_not_installed, which is not installed"):
        dotted("patientdx.merge.needy.needy")


@pytest.mark.parametrize("value", [True, 3, "x", [1, 2]])
def test_a_call_gives_its_arguments(value):
    call = Call("patientdx.core.functions.Call", json.dumps({"arguments": value}))
    assert call("patientdx.x").arguments == value


def test_lambda_by_depth_and_by_filter():
    assert parse(composed("lambda=[0,0.5,1]")).weight == (0.0, 0.5, 1.0)
    found = parse(composed("lambda={self_attn:[0,1],rest:0.4}"))
    assert found.weight == (("self_attn", (0.0, 1.0)), ("*", 0.4))
    assert hash(found.merge.spec) == hash(parse(composed("lambda=0.1")).merge.spec)


def test_a_merge_alone_has_no_task():
    config = parse(composed("task=none", "save=/tmp/merged"))
    assert (config.task, config.save.folder) == (None, Path("/tmp/merged"))
