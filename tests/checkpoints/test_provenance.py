"""What a merged folder says of itself: where its weights come from, and nothing of the machine it was made on."""

import hashlib
import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from merged_folders import recipe_of, sources, tree
from safetensors import safe_open

import patientdx
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.manifest import _code, _plain, read_record, state, summary
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.checkpoints.sidecar_files import sidecar_files
from patientdx.checkpoints.source import REPOSITORY, ModelSource
from patientdx.checkpoints.vocabulary import common_vocabulary
from patientdx.checkpoints.writer import raw
from patientdx.core.errors import UserError
from patientdx.merge.schedule import schedule

HUB = [
    ModelSource("instruct", "some-lab/instruct-1b", revision="main", licence="apache-2.0"),
    ModelSource("numeric", "wheel:some-wheel/model.gguf", adapter="an/adapter", ancestor="instruct", licence="mit"),
]
DEPTH = schedule({"mlp": [0, 1], "rest": 0.25})


@pytest.fixture(scope="module")
def merged(tiny_base, tiny_pivot, tmp_path_factory):
    place = tmp_path_factory.mktemp("merged")
    recipe = recipe_of(tiny_base, tiny_pivot, weight=DEPTH, arguments={"collinear": 0.99}, seed=7)
    return recipe, save(recipe, place / "folder", cache=place / "cache", sources=HUB, shard_bytes=30_000)


@pytest.fixture(scope="module")
def record(merged):
    return read_record(merged[1])


def test_the_recipe_is_recorded(record):
    assert record["method"] == "patientdx.merge.slerp.slerp"
    assert record["arguments"] == {"collinear": 0.99}
    assert record["lambda"] == [{"filter": "mlp", "value": [0.0, 1.0]}, {"filter": "*", "value": 0.25}]
    assert schedule(record["lambda"]) == DEPTH
    assert (record["seed"], record["dtype"], record["tokenizer"]) == (7, None, None)
    assert record["versions"] == {
        "patientdx": patientdx.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    assert summary(record) == "slerp λ=mlp=0-1,rest=0.25 of instruct and numeric"


def test_the_models_are_recorded_as_they_were_given_with_their_hashes(record, merged, tmp_path):
    base, pivot = record["models"]
    parents = merged[0].parents
    assert base == {
        "role": "base",
        "name": "instruct",
        "source": "some-lab/instruct-1b",
        "revision": "main",
        "adapter": None,
        "gguf": None,
        "licence": "apache-2.0",
        "ancestor": None,
        "sha256": content_hash(parents[0], tmp_path),
    }
    assert (pivot["role"], pivot["adapter"], pivot["ancestor"]) == ("pivot", "an/adapter", "instruct")
    assert pivot["sha256"] == content_hash(parents[1], tmp_path)


def test_every_tensor_has_its_lambda_facts_and_checksum(record, merged):
    recipe, folder = merged
    stored = Checkpoint(folder)
    assert set(record["tensors"]) == set(recipe.names)
    for name, said in record["tensors"].items():
        assert said["lambda"] == recipe.weight_of(name)
        assert said["sha256"] == hashlib.sha256(raw(stored.read(name))).hexdigest()
        assert said["facts"] == recipe.curves((name,))[name].diagnostics
    shares = {said["lambda"] for said in record["tensors"].values()}
    assert shares == {0.0, 0.25, 1.0}


def test_files_have_the_checksums_that_other_tools_give(record, merged):
    content = tree(merged[1])
    assert {name: shard["sha256"] for name, shard in record["shards"].items()} | record["files"] == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in content.items()
        if name not in ("provenance.json", "README.md")
    }
    assert all(shard["bytes"] == len(content[name]) for name, shard in record["shards"].items())
    assert "model.safetensors.index.json" in record["files"]


def test_every_shard_says_in_short_what_it_is(record, merged):
    said = set()
    for file in merged[1].glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["format"] == "pt"
            said.add(opened.metadata()["patientdx"])
    (text,) = said
    assert len(text) < 4000
    assert json.loads(text) == {key: record[key] for key in json.loads(text)}
    assert {"method", "arguments", "lambda", "seed", "models", "versions"} <= set(json.loads(text))


def test_nothing_tells_of_the_machine(merged, tiny_base):
    for name, data in tree(merged[1]).items():
        for place in (tiny_base.parent, merged[1].parent, Path(patientdx.__file__).parents[1], Path.home()):
            assert str(place).encode() not in data, name
        assert platform.node().encode() not in data


def test_the_card_names_the_models_and_their_licences(merged):
    card = (merged[1] / "README.md").read_text()
    assert card.startswith(
        "---\nbase_model:\n- some-lab/instruct-1b\nlibrary_name: transformers\nlicense: other\n"
        "license_name: apache-2.0-and-mit\ntags:\n- merge\n- patientdx\nbase_model_relation: merge\n---\n\n"
        "# slerp λ=mlp=0-1,rest=0.25 of instruct and numeric\n"
    )
    assert "| pivot | numeric | wheel:some-wheel/model.gguf | mit |" in card


def test_without_descriptions_models_have_no_names(tiny_base, tiny_pivot, tmp_path):
    recipe = recipe_of(tiny_base, tiny_pivot, ancestor=Checkpoint(tiny_base))
    found = read_record(save(recipe, tmp_path / "merged", cache=tmp_path))["models"]
    assert [(model["role"], model["name"]) for model in found] == [
        ("base", "base"),
        ("pivot", "pivot"),
        ("ancestor", "ancestor"),
    ]
    assert all("source" not in model for model in found)
    assert found[0]["sha256"] == found[2]["sha256"] != found[1]["sha256"]


def test_the_configuration_names_the_new_dtype(tiny_base, tiny_pivot, tmp_path):
    folder = save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", cache=tmp_path, dtype="float32")
    before, after = (json.loads((one / "config.json").read_text()) for one in (tiny_base, folder))
    assert before["dtype"] == "bfloat16"
    assert after == before | {"dtype": "float32"}
    assert {header.dtype for header in Checkpoint(folder).tensors.values()} == {torch.float32}
    assert read_record(folder)["dtype"] == "float32"


def test_foreign_code_comes_along_only_when_asked(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    (base / "modeling.py").write_text("raise SystemExit\n")
    (base / "LICENSE").write_text("terms\n")
    plain, asked = sidecar_files(Checkpoint(base), None), sidecar_files(Checkpoint(base), None, remote_code=True)
    assert "modeling.py" not in plain
    assert json.loads(plain["config.json"]) == config
    assert asked["modeling.py"] == b"raise SystemExit\n"
    assert asked["config.json"] == (base / "config.json").read_bytes()
    assert plain["LICENSE"] == b"terms\n"


def test_the_code_that_counts_is_the_methods_own(tmp_path, monkeypatch):
    methods = [f"patientdx.merge.{name}" for name in ("slerp", "breadcrumbs_ties", "none")]
    shutil.copytree(Path(patientdx.__file__).parent / "merge", tmp_path / "merge")
    monkeypatch.setattr(patientdx, "__file__", str(tmp_path / "__init__.py"))
    first = [_code(method) for method in methods]
    assert len(set(first)) == 3

    def changed(file):
        with (tmp_path / "merge" / file).open("a") as handle:
            handle.write("\n")
        found = [_code(method) for method in methods]
        return [one != other for one, other in zip(first, found, strict=True)]

    assert changed("karcher.py") == [False, False, False]
    assert changed("elect.py") == [False, True, False]
    assert changed("curve.py") == [True, True, True]


@pytest.mark.parametrize("given", [0.4, [0, 0.5, 1], {"mlp": 1, "self_attn": [0, 1], "rest": 0.5}])
def test_every_kind_of_lambda_is_read_back(given):
    assert schedule(json.loads(json.dumps(_plain(schedule(given))))) == schedule(given)
    assert _plain(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "{0} has no provenance.json: it was not written by `save=`, so there is no record to go by."),
        ("{", "{0}/provenance.json is not the record of a merge (JSONDecodeError("),
        ("[]", "{0}/provenance.json is not the record of a merge (TypeError("),
        ('{"format": 9}', "{0}/provenance.json is of another format than this version of patientdx reads."),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, words):
    if text is not None:
        (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_record(tmp_path)
    assert str(caught.value).startswith(words.format(tmp_path))


def test_descriptions_of_folders_keep_their_path(tiny_base, tiny_pivot, tmp_path):
    described = sources(first=tiny_base, second=tiny_pivot)
    folder = save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", cache=tmp_path, sources=described)
    assert [model["source"] for model in read_record(folder)["models"]] == [str(tiny_base), str(tiny_pivot)]
    card = (folder / "README.md").read_text()
    assert "base_model" not in card
    assert "| base | first | a local folder | apache-2.0 |" in card
    assert str(tiny_base.parent) not in card


def test_a_file_of_the_repository_is_recorded_by_its_name_in_it(tiny_base, tiny_pivot, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    described = [
        ModelSource("first", "org/name"),
        ModelSource("second", "org/name", adapter="patientdx/adapters/numeric"),
    ]
    stated = state(recipe_of(tiny_base, tiny_pivot), described)
    assert [model["adapter"] for model in stated["models"]] == [None, "patientdx/adapters/numeric"]


def test_what_others_wrote_stays_one_cell_of_the_card(tiny_base, tiny_pivot, tmp_path):
    described = [
        replace(source, licence=text)
        for source, text in zip(
            sources(first=tiny_base, second=tiny_pivot),
            ("mit |\n| x | <img src=//evil.test/x>", "[free](http://evil.test) `code`"),
            strict=True,
        )
    ]
    folder = save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", cache=tmp_path, sources=described)
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 2
    assert r"| mit \| \| x \| \<img src=//evil.test/x\> |" in rows[2]
    assert r"| \[free\](http://evil.test) \`code\` |" in rows[3]


def test_a_relative_folder_that_looks_like_a_hub_id_is_recorded_as_a_folder(
    tiny_base, tiny_pivot, tmp_path, monkeypatch
):
    shutil.copytree(tiny_pivot, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    described = [ModelSource("first", str(tiny_base)), ModelSource("second", "org/name")]
    folder = save(recipe_of(tiny_base, Path("org/name")), tmp_path / "merged", cache=tmp_path, sources=described)
    assert read_record(folder)["models"][1]["source"] == str(tmp_path / "org" / "name")
    assert "base_model" not in (folder / "README.md").read_text()


def test_licences_are_those_of_the_weights_and_the_tokenizer_that_of_the_vocabulary(tiny_base, make_tiny, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "LICENSE").write_text("terms\n")
    pair = Checkpoint(base), Checkpoint(make_tiny(seed=2, extra_tokens=("<|patient|>",)))
    shown = common_vocabulary(pair, ("base", "pivot"), "pivot", tmp_path / "cache").view(pair[0], "base")
    found = sidecar_files(shown, None)
    assert found["LICENSE"] == b"terms\n"
    assert found["tokenizer.json"] == (shown.folder / "tokenizer.json").read_bytes()
    assert found["tokenizer.json"] != (base / "tokenizer.json").read_bytes()
