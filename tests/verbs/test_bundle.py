"""A bundle holds all of its artifacts, comes out the same each time, and is checked as a whole."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Artifact
from mobiledeploy.steps import (
    baseline,
    bundle_archive,
    bundle_contents,
    bundle_environment,
    defaults,
    reproduction,
)
from mobiledeploy.steps.bundle_contents import BundleContents, BundledArtifact
from mobiledeploy.steps.model_card import BundleCard
from mobiledeploy.store import database
from mobiledeploy.verbs.bundle import bundle, bundle_reproduce, bundle_verify
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.export import export
from tests import warm
from tests.keys import write_keys
from tests.lite import Lite

pytest.importorskip(
    "cyclonedx", reason="cyclonedx-python-lib is not there (pip install 'mobiledeploy[bundle]')"
)


def tiny() -> bytes:
    """A float TFLite of three classes for images of 16x16."""
    dice = np.random.default_rng(1)
    graph = Lite()
    image = graph.input((1, 16, 16, 3), name="image")
    kernel = graph.constant(dice.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32))
    x = graph.op(
        "CONV_2D",
        [image, kernel, graph.constant(np.zeros(4, np.float32))],
        (1, 8, 8, 4),
        options="Conv2DOptions",
        strideH=2,
        strideW=2,
        dilationHFactor=1,
        dilationWFactor=1,
        fusedActivationFunction=1,
    )
    axes = graph.constant(np.array([1, 2], np.int32))
    x = graph.op("MEAN", [x, axes], (1, 4), options="ReducerOptions", keepDims=False)
    weights = graph.constant(dice.normal(0, 1, (3, 4)).astype(np.float32))
    bias = graph.constant(np.zeros(3, np.float32))
    x = graph.op("FULLY_CONNECTED", [x, weights, bias], (1, 3), options="FullyConnectedOptions")
    return graph.file(graph.op("SOFTMAX", [x], (1, 3), options="SoftmaxOptions", beta=1.0))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a model, photos, two artifacts, a baseline of both, and a store."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny.tflite").write_bytes(tiny())
    dice = np.random.default_rng(2)
    for number in range(24):
        path = folder / "photos" / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(0, 256, (16, 16, 3), np.uint8) // (1 + number % 3)
        Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(folder / "store.db"))
        done = export(
            folder / "tiny.tflite",
            data=folder / "photos",
            recipe=("float32", "int8_ptq"),
            format="tflite",
            input_range=(0, 1),
            out=folder / "build",
            timed=False,
            reporter=SILENT,
        )
        loaded = [artifacts.load(Path(row.path)) for row in done.rows]
        with database.Store.open() as store:
            entries = [baseline.entry(a, store.evaluation_of(a.sha256)) for a in loaded]
        baseline.write(folder / "accepted.json", baseline.Baseline(tuple(entries)))
    return folder


@pytest.fixture(autouse=True)
def store(project, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(project / "store.db"))


@pytest.fixture
def built(project):
    return sorted((project / "build" / "tiny").glob("*.tflite"))


@pytest.fixture(scope="module")
def whole(project):
    """A bundle of both artifacts with everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(project / "store.db"))
        paths = sorted((project / "build" / "tiny").glob("*.tflite"))
        return bundle(
            paths, out=project / "all.zip", baseline=project / "accepted.json", reporter=SILENT
        )


@pytest.fixture
def moved(project, tmp_path):
    """The artifacts in a folder of the test's own."""
    shutil.copytree(project / "build" / "tiny", tmp_path / "own")
    return tmp_path / "own"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "MANIFEST.json"}


def test_a_bundle_holds_everything(whole, project):
    contents = members(project / "all.zip")
    folder = "artifacts/tiny"
    assert whole.artifacts == (f"{folder}/float32.tflite", f"{folder}/int8_ptq.tflite")
    golden = {name for name in contents if name.startswith(f"{folder}/golden/")}
    assert len(golden) == 4
    assert set(contents) - golden == {
        *(f"{folder}/{name}.tflite" for name in ("float32", "int8_ptq")),
        *(f"{folder}/{name}.tflite.json" for name in ("float32", "int8_ptq")),
        *(f"{folder}/{name}.tflite.labels.txt" for name in ("float32", "int8_ptq")),
        "MODEL_CARD.json",
        "MODEL_CARD.md",
        "baseline.json",
        "bom.cdx.json",
        "commands.txt",
        "environment.json",
        "figures.jsonl",
        "requirements.lock",
    }
    for path in (project / "build" / "tiny").glob("*.tflite"):
        assert contents[f"{folder}/{path.name}"] == path.read_bytes()
    assert contents[f"{folder}/int8_ptq.tflite.labels.txt"] == b"a\nb\nc\n"
    lines = [json.loads(line) for line in contents["figures.jsonl"].splitlines()]
    kinds = [line["kept"]["record"] for line in lines]
    assert kinds.count("Artifact") == 2
    assert set(kinds) == {"Artifact", "Evaluation"}
    assert whole.figures == len(lines)
    assert whole.accepted == 2
    assert b"\nnumpy==" in contents["requirements.lock"]
    environment = json.loads(contents["environment.json"])
    assert environment["packages"]["numpy"] == np.__version__
    assert {m.name: m.sha256 for m in whole.members} == {
        name: records.sha256(data) for name, data in contents.items()
    }


def test_the_command_that_made_them_is_in_it(whole, project):
    command = members(whole.path)["commands.txt"].decode()
    assert command == (
        "mobiledeploy export tiny.tflite --data=photos --recipe=float32,int8_ptq --format=tflite "
        "--input-range=0,1\n"
    )


def test_no_folder_of_this_machine_is_in_it(whole, project):
    assert artifacts.load(project / "build/tiny/float32.tflite").data.source.startswith("/")
    for name, data in members(whole.path).items():
        assert str(project).encode() not in data, name
        assert b"/tmp/" not in data, name
    baseline = json.loads(members(whole.path)["baseline.json"])
    assert {entry["data"]["source"] for entry in baseline["accepted"]} == {"photos"}


def test_a_bundle_made_again_is_the_same_bytes(whole, built, project, tmp_path):
    again = bundle(
        built[::-1], out=tmp_path / "b.zip", baseline=project / "accepted.json", reporter=SILENT
    )
    assert again.sha256 == whole.sha256 == records.sha256(project / "all.zip")
    assert (tmp_path / "b.zip").read_bytes() == (project / "all.zip").read_bytes()


def test_the_place_of_the_artifacts_changes_nothing(whole, moved, project, tmp_path):
    bundle(
        moved.glob("*.tflite"),
        out=tmp_path / "b.zip",
        baseline=project / "accepted.json",
        reporter=SILENT,
    )
    assert (tmp_path / "b.zip").read_bytes() == (project / "all.zip").read_bytes()


def test_what_is_unpacked_is_an_artifact(whole, tmp_path):
    with zipfile.ZipFile(whole.path) as archive:
        archive.extractall(tmp_path)
    for name in whole.artifacts:
        assert artifacts.load(tmp_path / name).data.source == "photos"


def test_a_sound_bundle_is_sound(whole):
    found = bundle_verify(whole.path)
    assert (found.artifacts, found.sha256) == (whole.artifacts, whole.sha256)
    assert (found.accepted, found.figures) == (whole.accepted, whole.figures)
    assert found.members == len(whole.members)
    assert "is whole" in found.lines[0]


def test_without_a_store_or_a_baseline_there_is_less(built, here, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "none.db"))
    done = bundle(built[0], out="one.zip", reporter=SILENT)
    assert (done.accepted, done.figures) == (0, 0)
    assert not database.path().exists()
    assert "baseline.json" not in members("one.zip")
    assert bundle_verify("one.zip").artifacts == ("artifacts/tiny/float32.tflite",)


def test_the_baseline_of_the_folder_is_taken_if_it_names_them(built, project, here):
    shutil.copy(project / "accepted.json", "mobiledeploy-baseline.json")
    assert bundle(built[0], out="one.zip", reporter=SILENT).accepted == 1
    entries = json.loads(Path("mobiledeploy-baseline.json").read_text())
    entries["accepted"] = []
    Path("mobiledeploy-baseline.json").write_text(json.dumps(entries))
    assert bundle(built[0], out="one.zip", reporter=SILENT).accepted == 0
    with pytest.raises(InputError, match="has no entry of these artifacts"):
        bundle(built[0], out="one.zip", baseline="mobiledeploy-baseline.json", reporter=SILENT)
    with pytest.raises(MissingError, match=r"there is no baseline none\.json"):
        bundle(built[0], out="one.zip", baseline="none.json", reporter=SILENT)


def test_two_models_of_one_name_have_folders_of_their_own(moved, built, tmp_path):
    path = moved / "int8_ptq.tflite"
    done = bundle([built[0], path], out=tmp_path / "b.zip", reporter=SILENT)
    folders = {Path(name).parent.name for name in done.artifacts}
    assert len(folders) == 2
    assert all(folder.startswith("tiny_") for folder in folders)
    assert bundle_verify(tmp_path / "b.zip").artifacts == done.artifacts


def test_other_versions_than_those_of_the_export_are_a_warning(moved, tmp_path, heard):
    path = moved / "float32.tflite"
    artifact = artifacts.load(path)
    old = dataclasses.replace(artifact, tools=artifact.tools | {"numpy": "1.0"})
    records.write_atomic(artifacts.record_path(path), records.dumps(old))
    done = bundle(path, out=tmp_path / "b.zip", reporter=heard)
    assert [w.name for w in heard.warnings] == ["other-environment"]
    assert "numpy 1.0, not" in heard.warnings[0].message
    assert done.warnings == tuple(heard.warnings)


# The model card and the bill of materials


def test_the_card_says_what_the_files_are_made_of_and_how_good(whole, built):
    contents = members(whole.path)
    card = records.loads(BundleCard, contents["MODEL_CARD.json"])
    assert [a.name for a in card.artifacts] == list(whole.artifacts)
    int8 = card.artifacts[1]
    artifact = artifacts.load(built[1])
    assert [(s.role, s.name, s.licence) for s in int8.sources] == [
        ("weights", "tiny.tflite", "unknown"),
        ("evaluation", "photos", "unknown"),
        ("calibration", "photos", "unknown"),
    ]
    assert int8.sources[0].sha256 == artifact.spec.weights.sha256
    metrics = {m.name: m for m in int8.metrics}
    with database.Store.open() as store:
        evaluation = store.evaluation_of(artifact.sha256)
    top1 = metrics["top1"]
    assert (top1.value, top1.images) == (evaluation.top1, evaluation.images)
    assert top1.interval[0] <= top1.value <= top1.interval[1]
    sqnr = metrics["sqnr_db"]
    assert (sqnr.value, sqnr.interval) == (artifact.fidelity.sqnr_db, None)
    assert int8.warnings
    text = contents["MODEL_CARD.md"].decode()
    assert "| weights | tiny.tflite |" in text
    assert "| unknown |" in text
    assert "95 % interval" in text


def test_licences_are_those_that_the_user_names(built, tmp_path):
    bundle(
        built[0],
        out=tmp_path / "b.zip",
        weights_license="Apache-2.0",
        data_license="my own",
        reporter=SILENT,
    )
    contents = members(tmp_path / "b.zip")
    materials = json.loads(contents["bom.cdx.json"])
    licences = {
        c["bom-ref"].partition(":")[0]: c["licenses"]
        for c in materials["components"]
        if "licenses" in c
    }
    assert licences["weights"] == licences["model"] == [{"license": {"id": "Apache-2.0"}}]
    assert licences["evaluation"] == [{"license": {"name": "my own"}}]
    assert b"| Apache-2.0 |" in contents["MODEL_CARD.md"]


def test_the_bill_of_materials_names_models_data_weights_and_packages(whole, built):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = members(whole.path)["bom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"lowerBound"', '"lower"', 1)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None
    data = json.loads(text)
    assert "timestamp" not in data["metadata"]
    components = {c["bom-ref"]: c for c in data["components"]}
    kinds = [c["type"] for c in components.values()]
    # Weights, and images for evaluation and for calibration.
    assert (kinds.count("machine-learning-model"), kinds.count("data")) == (2, 3)
    assert components["package:numpy"]["purl"] == f"pkg:pypi/numpy@{np.__version__}"
    model = components["model:artifacts/tiny/int8_ptq.tflite"]
    assert model["hashes"][0]["content"] == records.sha256(built[1])
    card = model["modelCard"]
    sets = [d["ref"] for d in card["modelParameters"]["datasets"]]
    assert {components[ref]["data"][0]["type"] for ref in sets} == {"dataset"}
    metrics = {m["type"]: m for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    bounds = metrics["top1"]["confidenceInterval"]
    assert float(bounds["lowerBound"]) <= float(metrics["top1"]["value"])
    dependencies = {d["ref"]: d.get("dependsOn", []) for d in data["dependencies"]}
    assert len(dependencies["model:artifacts/tiny/int8_ptq.tflite"]) == 3
    assert len(dependencies["model:artifacts/tiny/float32.tflite"]) == 2


def test_other_models_have_another_serial_number(whole, built, tmp_path):
    bundle(built[0], out=tmp_path / "one.zip", reporter=SILENT)
    numbers = {
        json.loads(members(path)["bom.cdx.json"])["serialNumber"]
        for path in (whole.path, tmp_path / "one.zip")
    }
    assert len(numbers) == 2


def test_without_the_library_the_extra_is_named(built, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(MissingError, match=r"pip install 'mobiledeploy\[bundle\]'"):
        bundle(built[0], out=tmp_path / "b.zip", reporter=SILENT)


# What is refused before anything is written


def flip(path, place=100):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def golden_file(folder):
    return sorted((folder / "golden").iterdir())[0]


BROKEN = {
    "is not the file that its record describes": lambda f: flip(f / "float32.tflite"),
    "has no record beside it": lambda f: (f / "float32.tflite.json").unlink(),
    "does not exist": lambda f: (f / "float32.tflite").unlink(),
    "is not there": lambda f: golden_file(f).unlink(),
    "is not the one that its name says": lambda f: flip(golden_file(f), 60),
    "is not JSON": lambda f: (f / "float32.tflite.json").write_text("{"),
    "says itself another golden samples": lambda f: change(f, sqnr=True),
    "says itself another preprocessing": lambda f: change(f),
}


def change(folder, sqnr=False):
    """Another record of the same file."""
    path = folder / "float32.tflite"
    artifact = artifacts.load(path)
    if sqnr:
        golden = dataclasses.replace(artifact.golden, isa="another")
        changed = dataclasses.replace(artifact, golden=golden)
    else:
        how = dataclasses.replace(artifact.spec.preprocessing, mean=(0.5, 0.5, 0.5))
        changed = dataclasses.replace(
            artifact, spec=dataclasses.replace(artifact.spec, preprocessing=how), signature=None
        )
    records.write_atomic(artifacts.record_path(path), records.dumps(changed))


@pytest.mark.parametrize("message", BROKEN)
def test_an_artifact_that_is_not_whole_is_refused(message, moved, tmp_path):
    BROKEN[message](moved)
    with pytest.raises(InputError) as caught:
        bundle(moved / "float32.tflite", out=tmp_path / "b.zip", reporter=SILENT)
    assert message in str(caught.value)
    assert not (tmp_path / "b.zip").exists()


def test_the_same_file_in_two_folders_is_refused(built, moved, tmp_path):
    with pytest.raises(UsageError, match=r"is the same file as .*; name one of them"):
        bundle([built[0], moved / "float32.tflite"], out=tmp_path / "b.zip", reporter=SILENT)


def test_nothing_and_nowhere_are_refused(built, tmp_path):
    with pytest.raises(UsageError, match="nothing to bundle"):
        bundle([], out=tmp_path / "b.zip")
    with pytest.raises(UsageError, match="there is no folder"):
        bundle(built, out=tmp_path / "none" / "b.zip")
    with pytest.raises(UsageError, match="is a folder"):
        bundle(built, out=tmp_path)


# Bundles whose zip file is sound and whose parts do not fit each other

FLOAT = "artifacts/tiny/float32.tflite"


def edited(name, **fields):
    def edit(contents):
        record = json.loads(contents[name])
        contents[name] = json.dumps(record | fields).encode()

    return edit


def swapped(one, other):
    def edit(contents):
        contents[one], contents[other] = contents[other], contents[one]

    return edit


def less_entries(contents):
    """One artifact is not there, and everything else speaks of it."""
    del contents[FLOAT], contents[f"{FLOAT}.json"], contents[f"{FLOAT}.labels.txt"]


LIES = {
    f"{FLOAT} is not the file that its record describes": swapped(
        FLOAT, "artifacts/tiny/int8_ptq.tflite"
    ),
    "sha256": edited(f"{FLOAT}.json", sha256=5),
    "has other labels than the record": lambda c: c.update({f"{FLOAT}.labels.txt": b"x\ny\nz\n"}),
    "environment.json is missing": lambda c: c.pop("environment.json"),
    "requirements.lock has other versions": lambda c: c.update({"requirements.lock": b"numpy==1"}),
    "not a mapping": edited("environment.json", packages=[]),
    "member artifacts/tiny/note.txt belongs to no artifact": lambda c: c.update(
        {"artifacts/tiny/note.txt": b"hello"}
    ),
    "member run.sh belongs to no artifact": lambda c: c.update({"run.sh": b"rm -r ."}),
    "MODEL_CARD.json is of other files": less_entries,
    "bom.cdx.json is of other models": lambda c: edited(
        "bom.cdx.json",
        components=[x for x in json.loads(c["bom.cdx.json"])["components"] if "modelCard" not in x],
    )(c),
    "bom.cdx.json is no bill of materials": edited("bom.cdx.json", specVersion="1.5"),
    "holds no artifact": lambda c: [c.pop(n) for n in list(c) if n.endswith(".tflite.json")],
    "figures.jsonl, line 1 is not a record": lambda c: c.update({"figures.jsonl": b"{}\n"}),
    "was edited": lambda c: c.update(
        {"baseline.json": c["baseline.json"].replace(b'"isa": "', b'"isa": "x')}
    ),
}


@pytest.mark.parametrize("message", LIES)
def test_parts_that_do_not_fit_are_named(message, whole, tmp_path):
    contents = members(whole.path)
    LIES[message](contents)
    bundle_archive.write(tmp_path / "lie.zip", contents)
    with pytest.raises(InputError) as caught:
        bundle_verify(tmp_path / "lie.zip")
    assert message in str(caught.value)
    assert "lie.zip" in str(caught.value)
    assert "/content/" not in str(caught.value)


def test_a_golden_file_of_another_name_is_named(whole, tmp_path):
    contents = members(whole.path)
    one, other = sorted(name for name in contents if "/golden/" in name)[:2]
    swapped(one, other)(contents)
    bundle_archive.write(tmp_path / "lie.zip", contents)
    with pytest.raises(InputError, match="is not the one that its name says"):
        bundle_verify(tmp_path / "lie.zip")


@pytest.mark.parametrize("name", ["baseline.json", "figures.jsonl"])
def test_statements_about_another_file_are_named(name, whole, built, tmp_path):
    bundle(built[0], out=tmp_path / "one.zip", reporter=SILENT)
    contents = members(tmp_path / "one.zip") | {name: members(whole.path)[name]}
    bundle_archive.write(tmp_path / "lie.zip", contents)
    with pytest.raises(InputError, match=rf"{name} has an? \w+ of another file"):
        bundle_verify(tmp_path / "lie.zip")


# Signatures


def test_a_signed_bundle_is_checked_by_its_key(whole, built, project, tmp_path):
    pytest.importorskip(
        "model_signing", reason="model-signing is not there (pip install 'mobiledeploy[sign]')"
    )
    for name in ("own", "other"):
        write_keys(tmp_path, name)
    done = bundle(
        built,
        out=tmp_path / "b.zip",
        baseline=project / "accepted.json",
        sign=tmp_path / "own.pem",
        reporter=SILENT,
    )
    # The signature is beside the file, which is the same as without one.
    assert (done.signature, done.sha256) == (str(tmp_path / "b.zip.sig"), whole.sha256)
    found = bundle_verify(tmp_path / "b.zip", key=tmp_path / "own.pub")
    assert found.lines[-1] == f"signed by the private key of {tmp_path / 'own.pub'}"
    with pytest.raises(InputError, match="was made with another key"):
        bundle_verify(tmp_path / "b.zip", key=tmp_path / "other.pub")
    assert "no signature was checked" in bundle_verify(tmp_path / "b.zip").lines[-1]
    unsigned = bundle(built, out=tmp_path / "b.zip", reporter=SILENT)
    assert [warning.name for warning in unsigned.warnings] == ["old-signature"]
    with pytest.raises(InputError, match="is no private key that can sign"):
        bundle(built, out=tmp_path / "c.zip", sign=tmp_path / "own.pub", reporter=SILENT)
    assert not (tmp_path / "c.zip").exists()


# Making them again


def test_the_artifacts_come_out_the_same_elsewhere(whole, project, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.delenv("MOBILEDEPLOY_STORE")
    done = bundle_reproduce(
        whole.path,
        out="again",
        data=project / "photos",
        weights=project / "tiny.tflite",
        reporter=SILENT,
    )
    assert done.same
    assert [(f.name, f.differences) for f in done.files] == [(n, ()) for n in whole.artifacts]
    for file in done.files:
        assert records.sha256(Path(file.path)) == file.sha256 == file.sha256_in_bundle
        assert artifacts.load(Path(file.path)).sha256 == file.sha256
    assert len(done.lines) == 2
    assert not Path(".mobiledeploy").exists()


def test_files_of_two_folders_stay_apart(project, moved, built, tmp_path):
    bundle([built[0], moved / "int8_ptq.tflite"], out=tmp_path / "b.zip", reporter=SILENT)
    done = bundle_reproduce(
        tmp_path / "b.zip",
        out=tmp_path / "again",
        data=project / "photos",
        weights=project / "tiny.tflite",
        reporter=SILENT,
    )
    assert done.same
    assert len({Path(file.path).parent for file in done.files}) == 2


def test_other_images_give_another_file_and_are_named(project, built, tmp_path):
    bundle(built[1], out=tmp_path / "int8.zip", reporter=SILENT)
    shutil.copytree(project / "photos", tmp_path / "photos")
    for path in (tmp_path / "photos").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path)) // 2).save(path)
    done = bundle_reproduce(
        tmp_path / "int8.zip",
        out=tmp_path / "again",
        data=tmp_path / "photos",
        weights=project / "tiny.tflite",
        reporter=SILENT,
    )
    assert not done.same
    (file,) = done.files
    words = " | ".join(file.differences)
    assert "bytes" in words
    assert "the golden samples are others" in words
    assert "calibration images: " in words
    assert "evaluation images: " in words
    assert "differs, sha256" in done.lines[0]


def test_another_name_changes_the_metadata_only(project, built, tmp_path):
    bundle(built[0], out=tmp_path / "float.zip", reporter=SILENT)
    shutil.copy(project / "tiny.tflite", tmp_path / "renamed.tflite")
    done = bundle_reproduce(
        tmp_path / "float.zip",
        out=tmp_path / "again",
        data=project / "photos",
        weights=tmp_path / "renamed.tflite",
        reporter=SILENT,
    )
    (file,) = done.files
    assert file.differences == (
        "the model is the same, and only the metadata in the file differ",
        "the answers to the golden samples differ by 0 at most",
        "the model's name: renamed, not tiny",
    )


def test_other_weights_are_refused(whole, project, tmp_path):
    other = bytearray(tiny())
    other[other.index(np.float32(0).tobytes() * 4)] ^= 1
    (tmp_path / "tiny.tflite").write_bytes(other)
    with pytest.raises(InputError, match="holds other weights than those that made"):
        bundle_reproduce(
            whole.path,
            out=tmp_path / "again",
            data=project / "photos",
            weights=tmp_path / "tiny.tflite",
            reporter=SILENT,
        )
    assert not (tmp_path / "again").exists()


def test_what_a_record_names_is_never_opened(whole, project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(UsageError, match=r"was made with photos, which .*; give --data"):
        bundle_reproduce(whole.path, out=tmp_path, weights="tiny.tflite", reporter=SILENT)
    with pytest.raises(UsageError, match=r"was made with tiny\.tflite, which .*; give --weights"):
        bundle_reproduce(whole.path, out=tmp_path, data="photos", reporter=SILENT)


def rewritten(whole, path, **changes):
    """A bundle of one artifact whose record has other arguments."""
    contents = members(whole.path)
    record = json.loads(contents[f"{FLOAT}.json"])
    arguments = record["arguments"]
    record["arguments"] = None if changes == {"arguments": None} else arguments | changes
    contents[f"{FLOAT}.json"] = json.dumps(record).encode()
    bundle_archive.write(path, contents)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": None}, "does not say how the file was made"),
        ({"custom_objects": "evil.py"}, "was made with code of its own"),
        ({"unsafe": True}, "was made with code of its own"),
        ({"formats": ["onnx"]}, "says another recipe or format than its command"),
    ],
)
def test_a_record_that_cannot_be_followed_is_refused(changes, message, whole, project, tmp_path):
    path = rewritten(whole, tmp_path / "b.zip", **changes)
    with pytest.raises(InputError, match=message):
        bundle_reproduce(
            path,
            out=tmp_path / "again",
            data=project / "photos",
            weights=project / "tiny.tflite",
            reporter=SILENT,
        )


def test_data_that_nobody_needs_are_refused(whole, tmp_path):
    path = rewritten(whole, tmp_path / "a.zip", model=None, data=None)
    artifact = records.loads(Artifact, members(path)[f"{FLOAT}.json"])
    bundled = (BundledArtifact(FLOAT, artifact, tmp_path / "none"),)
    contents = BundleContents(bundled, bundle_environment.here(), (), ())
    for option in ("data", "weights"):
        own = {"data": None, "weights": None, option: tmp_path}
        with pytest.raises(UsageError, match=f"was made with --{option} of a user's own"):
            reproduction.reproduce(contents, tmp_path, **own, reporter=SILENT)


# The gate


@pytest.fixture
def judged(whole, project, here, monkeypatch):
    """A check in an empty folder that has a copy of the bundle."""
    # Its verdicts would be in the bundles that are made later.
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "judged.db"))
    shutil.copy(whole.path, here / "all.zip")

    def run(*artifacts, **options):
        given = artifacts or ("all.zip",)
        return check(given, **{"data": project / "photos", "reporter": SILENT} | options)

    return run


INSIDE = [f"all.zip/artifacts/tiny/{name}.tflite" for name in ("float32", "int8_ptq")]


def test_a_bundle_is_judged_by_its_own_baseline_with_a_warning(judged, heard):
    report = judged(reporter=heard)
    assert [one.path for one in report.checks] == INSIDE
    assert {one.outcome for one in report.checks} == {"pass"}
    for one in report.checks:
        (warning,) = [w for w in one.warnings if w.name == "own-baseline"]
        assert "all.zip is judged by the baseline in it" in warning.message
    assert "own-baseline" in {warning.name for warning in heard.warnings}


def test_a_bundle_is_judged_by_the_file_that_is_given_or_is_there(judged, project, here):
    shutil.copy(project / "accepted.json", defaults.BASELINE)
    for report in (judged(baseline=project / "accepted.json"), judged()):
        assert {one.outcome for one in report.checks} == {"pass"}
        assert "own-baseline" not in {w.name for one in report.checks for w in one.warnings}
    known = records.loads(baseline.Baseline, (here / defaults.BASELINE).read_text())
    baseline.write(here / defaults.BASELINE, baseline.Baseline(known.accepted[:1]))
    report = judged()
    assert [one.path for one in report.checks] == INSIDE[:1]
    (failed,) = report.failed
    assert failed.what == INSIDE[1]
    assert f"{defaults.BASELINE} has no tiny int8_ptq tflite" in failed.message
    assert "staging" not in failed.message


def test_an_artifact_is_judged_by_the_baseline_of_a_bundle(judged, built):
    (one,) = judged(built[0], baseline="all.zip").checks
    assert (one.path, one.outcome) == (str(built[0]), "pass")


def test_without_any_baseline_the_command_for_one_is_told(judged, built, project):
    bundle(built[0], out="bare.zip", reporter=SILENT)
    with pytest.raises(MissingError, match=r"there is no baseline .*check bare.zip --baseline"):
        judged("bare.zip")
    with pytest.raises(InputError, match=r"bare\.zip holds no baseline"):
        judged("bare.zip", baseline="bare.zip")
    # The baseline in a bundle says nothing of a file beside it.
    bundle(built[0], out="one.zip", baseline=project / "accepted.json", reporter=SILENT)
    with pytest.raises(MissingError, match="there is no baseline"):
        judged("one.zip", built[1])


def test_a_changed_bundle_is_refused_by_name_and_the_others_are_judged(judged, built, here):
    data = bytearray((here / "all.zip").read_bytes())
    data[data.index(b"TFL3") + 40] ^= 1
    (here / "changed.zip").write_bytes(data)
    message = r"changed\.zip: member artifacts/tiny/float32\.tflite was changed"
    with pytest.raises(InputError, match=message):
        judged("changed.zip")
    with pytest.raises(InputError, match=message):
        judged("all.zip", baseline="changed.zip")
    report = judged("changed.zip", built[1], baseline="all.zip")
    assert [one.path for one in report.checks] == [str(built[1])]
    assert [one.what for one in report.failed] == ["changed.zip"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "does not end as a bundle does"),
        (b"PK\5\6" + bytes(18), "has no MANIFEST.json, so it is no bundle"),
    ],
)
def test_a_zip_file_that_is_no_bundle_is_refused(content, message, judged, here):
    if content is not None:
        (here / "other.zip").write_bytes(content)
    with pytest.raises(InputError, match=rf"other\.zip {message}"):
        judged("other.zip")


def test_the_images_that_a_record_in_a_bundle_names_are_never_opened(judged, project, here):
    """Not even if they are there: the path is of another machine, and a stranger may write it."""
    (here / "photos").symlink_to(project / "photos")
    with pytest.raises(UsageError, match=r"all\.zip/artifacts/tiny/.* was judged on images that"):
        judged(data=None)


def test_a_bundle_can_be_accepted_and_is_never_written(judged, project, here):
    options = {"data": project / "photos", "reporter": SILENT}
    update = update_baseline("all.zip", **options)
    assert (update.baseline, len(update.changes)) == (defaults.BASELINE, 2)
    assert {one.outcome for one in judged().checks} == {"pass"}
    before = (here / "all.zip").read_bytes()
    with pytest.raises(UsageError, match=r"all\.zip is a bundle, which is never changed"):
        update_baseline("all.zip", baseline="all.zip", **options)
    assert (here / "all.zip").read_bytes() == before


# The command


def run(*argv):
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", "bundle", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_packs_and_checks(built, whole, project, tmp_path):
    done = run(*built, "--out", tmp_path / "b.zip", "--baseline", project / "accepted.json")
    assert done.returncode == 0, done.stderr
    assert "int8_ptq.tflite" in done.stdout
    assert records.sha256(tmp_path / "b.zip") == whole.sha256
    done = run("--verify", tmp_path / "b.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is whole: " in done.stdout
    done = run("--verify", tmp_path / "b.zip", "--json")
    assert json.loads(done.stdout)["sha256"] == whole.sha256
    flip(tmp_path / "b.zip", 5000)
    done = run("--verify", tmp_path / "b.zip")
    assert done.returncode == 7
    assert done.stderr.count("\n") == 1
    assert "b.zip: member " in done.stderr


@pytest.mark.slow
def test_files_that_differ_exit_with_7(built, project, tmp_path):
    run(built[0], "--out", tmp_path / "b.zip")
    shutil.copy(project / "tiny.tflite", tmp_path / "renamed.tflite")
    given = ("--out", tmp_path / "again", "--data", project / "photos")
    done = run("--reproduce", tmp_path / "b.zip", *given, "--weights", tmp_path / "renamed.tflite")
    assert done.returncode == 7, done.stderr
    assert "float32.tflite: differs, sha256 " in done.stdout
    assert "the model's name: renamed, not tiny" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("x.tflite",), "--out is missing"),
        (("--out", "b.zip"), "there is nothing to bundle"),
        (("--verify", "b.zip", "--out", "c.zip"), "--out does not go with --verify"),
        (("x.tflite", "--verify", "b.zip"), "ARTIFACT does not go with --verify"),
        (("--verify", "b.zip", "--reproduce", "c.zip"), "--reproduce does not go with --verify"),
        (("--reproduce", "b.zip"), "--out is missing"),
        (
            ("--reproduce", "b.zip", "--out", "x", "--data-license", "MIT"),
            "--data-license does not go with --reproduce",
        ),
        (("x.tflite", "--out", "b.zip", "--data", "x"), "--data does not go with a new bundle"),
    ],
)
def test_options_that_do_not_go_together_are_refused(argv, message, here):
    done = run(*argv)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(here.iterdir())


# Paths in texts


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"message": "cannot read /home/me/photos/a.png: broken"}, "cannot read a.png: broken"),
        ({"message": "1/2 of https://x.org/a/b, and/or n/a"}, None),
        ({"source": "/home/me/photos/"}, "photos"),
        ({"source": "photos/mine"}, None),
        ({"labels": ["/m/01g317"]}, None),
        ({"source": "/"}, "folder"),
        ({"source": "golden:/tmp/x/golden"}, "golden:golden"),
        ({"device": "replay:/home/me/pixel.jsonl"}, "replay:pixel.jsonl"),
        ({"device": "ssh:me@raspberrypi"}, "ssh:raspberrypi"),
        ({"device": "emulator:cortex-a76"}, None),
    ],
)
def test_absolute_paths_lose_their_folders(before, after):
    (value,) = bundle_contents._portable(before).values()
    assert value == (next(iter(before.values())) if after is None else after)


def test_a_record_without_paths_is_packed_as_it_is(project):
    path = project / "build" / "tiny" / "float32.tflite"
    text = artifacts.record_path(path).read_bytes()
    artifact = records.loads(Artifact, text)
    assert bundle_contents._portable_record(artifact, text) != text
    short = records.loads(Artifact, bundle_contents._portable_record(artifact, text))
    odd = json.dumps(json.loads(records.dumps(short))).encode()
    assert bundle_contents._portable_record(short, odd) == odd
