"""A training as a verb: what is refused beforehand, what stands afterwards, and how it goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core import preprocessing, records, runs
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DataRef, NamedWarning, Preprocessing
from mobiledeploy.steps import child_process, export_plan, training_plan, training_process
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.training_plan import TrainConfig
from mobiledeploy.verbs import analyze, bench, export, train
from tests.conftest import Heard

CLASSES = ("dark", "grey", "light")


def archive(path: Path, count: int = 300, **others: object) -> Path:
    """Noise of three classes, dark to light; a fifth of it is to judge by."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(0, 90, (count, 40, 48, 3), dtype=np.uint8)
    images = noise + (labels * 80).astype(np.uint8)[:, None, None, None]
    arrays = {"images": images, "labels": labels, "classes": np.array(CLASSES)} | others
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def image_files(folder: Path, counts: dict[str, int]) -> Path:
    """A folder per class, of noise."""
    for name, count in counts.items():
        for number in range(count):
            path = folder / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def order(data: Path, out: Path, **changes: object) -> TrainConfig:
    plain = TrainConfig(alpha=0.25, res=32, data=str(data), epochs=2, batch=16, out=out)
    return dataclasses.replace(plain, **changes)


def trained(config: TrainConfig, reporter: Reporter) -> train.TrainResult:
    """What `train` answers where it is asked for all that `config` says."""
    options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    images = dataclasses.asdict(options.pop("overrides"))
    return train.train(**options, **images, reporter=reporter)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "noise.npz")


@pytest.fixture(scope="module")
def result(data: Path) -> tuple[train.TrainResult, Heard]:
    """A training of two epochs, and what it said; no test writes into its folder."""
    heard = Heard()
    return trained(order(data, data.parent / "done"), heard), heard


@pytest.fixture
def folder(result: tuple[train.TrainResult, Heard], tmp_path: Path) -> Path:
    """A copy of the folder that it left."""
    return Path(shutil.copytree(result[0].folder, tmp_path / "copy"))


# What stands afterwards


def test_a_run_is_weights_record_log_and_events(result: tuple[train.TrainResult, Heard]) -> None:
    trained, _ = result
    folder, run = Path(trained.folder), trained.run
    assert not trained.reused
    assert {p.name for p in folder.iterdir()} == {
        "weights.h5",
        "run.json",
        "log.csv",
        "tensorboard",
        "state",
    }
    assert runs.load(folder) == run
    assert run.spec.weights.source == folder.name
    assert run.spec.weights.sha256 == records.sha256(folder / "weights.h5")
    assert not run.spec.weights.pinned
    assert run.spec.preprocessing.labels == run.data.labels == CLASSES
    assert (run.images, run.validation_images) == (240, 60)
    assert run.data.split == "held"
    assert (
        run.top1
        == max(epoch.top1 for epoch in run.history)
        == runs.best(run.history, run.settings).top1
    )
    assert run.tools["tensorflow"]
    with (folder / "log.csv").open() as file:
        assert [int(row["number"]) for row in csv.DictReader(file)] == [1, 2]


def test_it_says_what_it_does(result: tuple[train.TrainResult, Heard]) -> None:
    _, heard = result
    assert heard.said[0].endswith(" has 240 images for training and 60 for validation")
    first, last = heard.said[1:]
    assert re.fullmatch(r"epoch 1 of 2: loss .*, validation top-1 0\.\d{3}, \d+ s left", first)
    assert re.fullmatch(r"epoch 2 of 2: loss .*, validation top-1 0\.\d{3}", last)
    assert len(first) <= 80
    assert "few-training-images" in {warning.name for warning in heard.warnings}
    assert ("epoch 2 of 2", 15, 15) in heard.steps


def test_a_finished_training_is_answered_from_its_folder(
    data: Path, folder: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "events", None)
    before = runs.load(folder)
    again = trained(order(data, folder), heard)
    assert again.reused
    assert again.run == before
    assert set(before.warnings) <= set(heard.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"alpha": 0.5}, "network name mobilenet_v1_0.25_32, not mobilenet_v1_0.5_32"),
        ({"res": 64}, "not mobilenet_v1_0.25_64"),
        ({"batch": 8}, "batch 16, not 8"),
        ({"ema": True}, "ema false, not true"),
        ({"schedule": "v2"}, "schedule"),
        ({"init": "demo", "schedule": "paper"}, "init"),
        ({"overrides": Overrides(channels="bgr")}, "channels rgb, not bgr"),
    ],
)
def test_a_folder_of_another_training_is_refused(
    changes: dict[str, object], message: str, data: Path, folder: Path, heard: Heard
) -> None:
    before = (folder / "run.json").read_bytes()
    with pytest.raises(InputError, match="copy holds a training with") as refused:
        trained(order(data, folder, **changes), heard)
    assert message in refused.value.message
    assert (folder / "run.json").read_bytes() == before


def test_other_images_are_another_training(folder: Path, heard: Heard, tmp_path: Path) -> None:
    other = archive(tmp_path / "noise.npz", 303)
    with pytest.raises(InputError, match="copy holds a training with .* images"):
        trained(order(other, folder), heard)


def test_fewer_epochs_than_there_are_come_from_the_folder(
    data: Path, folder: Path, heard: Heard
) -> None:
    assert len(trained(order(data, folder, epochs=1), heard).run.history) == 2


def test_weights_that_the_record_does_not_speak_of_are_found_out(folder: Path) -> None:
    with (folder / "weights.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"weights.h5 is not the file that run.json describes"):
        runs.load(folder)


def test_lost_weights_of_a_finished_training_come_back(
    data: Path, folder: Path, heard: Heard
) -> None:
    before = (folder / "weights.h5").read_bytes()
    (folder / "weights.h5").unlink()
    assert trained(order(data, folder), heard).reused
    assert (folder / "weights.h5").read_bytes() == before
    (folder / "weights.h5").write_bytes(b"")
    shutil.rmtree(folder / "state")
    with pytest.raises(InputError, match=r"weights.h5 is not the file") as refused:
        trained(order(data, folder), heard)
    assert refused.value.hint == "train into another --out"


def test_a_finished_training_that_cannot_go_on_is_not_begun_anew(
    data: Path, folder: Path, heard: Heard
) -> None:
    before = (folder / "weights.h5").read_bytes()
    shutil.rmtree(folder / "state")
    with pytest.raises(InputError, match="finished training without the state"):
        trained(order(data, folder, epochs=3), heard)
    assert (folder / "weights.h5").read_bytes() == before


def test_a_record_cannot_point_out_of_its_folder(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    record["weights"] = "../../elsewhere.h5"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="weights or history are not valid"):
        runs.load(folder)


def test_a_training_that_is_not_finished_is_no_run(folder: Path, tmp_path: Path) -> None:
    (folder / "run.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        runs.load(folder)
    with pytest.raises(InputError, match="holds no training"):
        runs.load(tmp_path)


# What is refused beforehand


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"freeze": True}, UsageError, "--freeze keeps weights that --init brings"),
        ({"arch": "no_such"}, UsageError, "no_such"),
        ({"epochs": 0}, UsageError, "--epochs 0"),
        ({"batch": 1}, UsageError, "--batch 1"),
        ({"seed": -1}, UsageError, "--seed -1"),
        ({"label_smoothing": 1.0}, UsageError, "--label-smoothing 1"),
        ({"schedule": "other"}, UsageError, "no schedule named 'other'"),
        ({"data": "nowhere"}, UsageError, "not a known data set"),
        ({"init": "nothing.h5"}, InputError, "nothing.h5"),
        ({"teacher": "nothing.h5"}, InputError, "nothing.h5"),
        ({"teacher": "demo"}, InputError, "knows other classes"),
        (
            {"teacher": "demo", "overrides": Overrides(input_range=(0.0, 1.0))},
            InputError,
            "the teacher demo was trained with --input-range",
        ),
        ({"init": "demo", "arch": "mobilenet_v2"}, MissingError, "demo"),
        ({"strategy": "multiworker"}, UsageError, "--strategy multiworker needs TF_CONFIG"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    changes: dict[str, object],
    kind: type[DeployError],
    message: str,
    data: Path,
    here: Path,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(kind) as refused:
        trained(dataclasses.replace(order(data, here / "out"), **changes), heard)
    assert message in refused.value.message
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "config",
    [
        "no json",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_cluster_that_cannot_be_is_refused_with_an_example(
    config: str, data: Path, heard: Heard, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match="TF_CONFIG does not say") as refused:
        training_plan.plan(order(data, here / "out", strategy="multiworker"), heard)
    assert '"task"' in refused.value.hint


@pytest.mark.parametrize(
    ("kind", "index", "chief"), [("worker", 0, True), ("worker", 1, False), ("chief", 0, True)]
)
def test_one_worker_writes(
    kind: str,
    index: int,
    chief: bool,
    data: Path,
    heard: Heard,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = {"worker": ["a:1", "b:1"]} | ({"chief": ["c:1"]} if kind == "chief" else {})
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert (
        training_plan.plan(order(data, here / "out", strategy="multiworker"), heard).chief == chief
    )


def test_a_place_that_holds_something_else_is_refused(data: Path, here: Path, heard: Heard) -> None:
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "letter").write_text("mine")
    with pytest.raises(UsageError, match="file is a file, not a folder"):
        trained(order(data, here / "file" / "below"), heard)
    with pytest.raises(UsageError, match="full holds something else"):
        trained(order(data, here / "full"), heard)


def test_the_default_folder_tells_network_and_data(data: Path, heard: Heard) -> None:
    planned = training_plan.plan(dataclasses.replace(order(data, Path()), out=None), heard)
    assert planned.folder == Path("runs") / "mobilenet_v1_0.25_32_noise"
    assert planned.request.settings.schedule.name == "paper"


def test_a_users_whole_model_must_come_with_its_input_range(
    data: Path, here: Path, heard: Heard, model_files: Path
) -> None:
    whole = order(data, here / "out", init=str(model_files / "k2.h5"))
    with pytest.raises(UsageError, match="is not in its file") as refused:
        training_plan.plan(whole, heard)
    assert "--input-range" in refused.value.hint
    message = dataclasses.replace(whole, overrides=Overrides(input_range=(0.0, 1.0)))
    spec = training_plan.plan(message, heard).request.spec
    assert spec.preprocessing.input_range == (0.0, 1.0)
    with pytest.raises(InputError, match="not a Keras 2 HDF5 file"):
        training_plan.plan(order(data, here / "out", init=str(model_files / "k3.keras")), heard)


def test_a_run_is_a_start_with_its_own_preprocessing(
    data: Path, folder: Path, heard: Heard, tmp_path: Path
) -> None:
    settings = training_plan.plan(
        order(data, tmp_path / "out", init=str(folder)), heard
    ).request.settings
    assert settings.schedule.name == "finetune"
    assert settings.init == runs.load(folder).spec.weights
    with pytest.raises(InputError, match=r"another --alpha\?"):
        training_plan.plan(order(data, tmp_path / "out", init=str(folder), alpha=0.5), heard)


def test_no_two_trainings_at_once(data: Path, folder: Path, heard: Heard) -> None:
    with (
        train._alone(folder),
        pytest.raises(UsageError, match="another training is at work in"),
    ):
        trained(order(data, folder), heard)


# Images


def prepared(data: Path, folder: Path, heard: Heard, shape: Preprocessing):
    spec = training_plan.plan(order(data, folder / "out"), heard).request.spec
    spec = dataclasses.replace(spec, preprocessing=shape)
    opened = dataset(str(data)).open(str(data), "train", resolution=(32, 32), labels=())
    ref = DataRef(str(data), "train", (32, 32), opened.classes, opened.identity)
    return opened, spec, training_process._prepare(ref, spec, folder / "images", heard)


@pytest.mark.parametrize(
    "shape",
    [
        Preprocessing((-1.0, 1.0), crop=0.875),
        Preprocessing((0.0, 1.0), channels="bgr", resize="bicubic", mean=(0.5,) * 3),
    ],
)
def test_images_are_prepared_as_in_use(
    shape: Preprocessing, data: Path, tmp_path: Path, heard: Heard
) -> None:
    opened, spec, (images, facts) = prepared(data, tmp_path, heard, shape)
    assert images.dtype == np.uint8
    assert list(facts.labels) == [opened.label(i) for i in range(len(opened))]
    bare = training_process.geometry(spec)
    for index in (0, 7, len(opened) - 1):
        wanted = preprocessing.prepare(opened.image(index), bare, (32, 32))
        np.testing.assert_array_equal(images[index], np.rint(wanted))


def test_images_that_were_half_removed_are_prepared_again(
    data: Path, tmp_path: Path, heard: Heard
) -> None:
    _, _, (images, _) = prepared(data, tmp_path, heard, Preprocessing((0.0, 1.0)))
    before = np.array(images)
    (lost,) = (tmp_path / "images").glob("*.npy")
    lost.unlink()
    _, _, (images, _) = prepared(data, tmp_path, heard, Preprocessing((0.0, 1.0)))
    np.testing.assert_array_equal(images, before)


def test_images_are_decoded_once(data: Path, tmp_path: Path, heard: Heard) -> None:
    shape = Preprocessing((-1.0, 1.0))
    prepared(data, tmp_path, heard, shape)
    steps = len(heard.steps)
    assert steps
    prepared(data, tmp_path, heard, shape)
    assert len(heard.steps) == steps


def test_no_space_for_the_images_is_said_before(
    data: Path, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(training_process.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match=r"decoded images take 0\.0 GB"):
        prepared(data, tmp_path, heard, Preprocessing((-1.0, 1.0)))


def request(data: Path, folder: Path, heard: Heard) -> training_process.TrainingRequest:
    (folder / "run").mkdir(exist_ok=True)
    return training_plan.plan(order(data, folder / "run"), heard).request


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/a": 30, "train/b": 30, "validation/a": 0, "validation/b": 5}, "one class"),
        ({"train/a": 4, "train/b": 4, "validation/a": 3, "validation/b": 3}, "8 readable images"),
        ({"train/a": 30, "validation/a": 3, "validation/b": 3}, "one"),
    ],
)
def test_images_that_teach_nothing_are_refused(
    counts: dict[str, int], message: str, tmp_path: Path, heard: Heard
) -> None:
    data = image_files(tmp_path / "photos", counts)
    with pytest.raises(InputError) as refused:
        training_process.fit(request(data, tmp_path, heard), heard)
    assert message in str(refused.value)


def test_images_that_cannot_be_read_are_named_and_left_out(tmp_path: Path, heard: Heard) -> None:
    data = image_files(
        tmp_path / "photos", {"train/a": 12, "train/b": 12, "validation/a": 3, "validation/b": 3}
    )
    (data / "train" / "a" / "03.png").write_text("no image")
    _, _, (images, facts) = prepared(data, tmp_path, heard, Preprocessing((-1.0, 1.0)))
    assert len(images) == len(facts.labels) == 23
    (warning,) = heard.warnings
    assert warning.name == "broken-image"
    assert "train/a/03.png" in warning.message


def test_many_images_are_decoded_by_processes(
    data: Path, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Preprocessing((-1.0, 1.0))
    _, _, (alone, _) = prepared(data, tmp_path / "one", heard, shape)
    monkeypatch.setattr(training_process, "WORTH_A_POOL", 1)
    _, _, (pooled, _) = prepared(data, tmp_path / "many", heard, shape)
    np.testing.assert_array_equal(alone, pooled)


def test_images_without_labels_are_refused(
    data: Path, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobiledeploy.datasets.npz.Npz.label", lambda *_: -1)
    with pytest.raises(InputError, match=r"has no class for each image; training needs"):
        prepared(data, tmp_path, heard, Preprocessing((-1.0, 1.0)))


def test_classes_that_no_image_shows_are_named(data: Path, tmp_path: Path, heard: Heard) -> None:
    other = archive(tmp_path / "four.npz", classes=np.array([*CLASSES, "white"]))
    options = request(other, tmp_path, heard)
    facts = training_process.PreparedImages(tuple(range(3)) * 20, ())
    training_process._check(options, facts, facts, heard)
    assert (
        NamedWarning(
            "empty-class",
            "no training image shows white",
            "the network will not name it: add images, or remove the class",
        )
        in heard.warnings
    )


# Going on


@pytest.mark.slow
def test_more_epochs_go_on_with_a_finished_training(data: Path, folder: Path, heard: Heard) -> None:
    before = runs.load(folder)
    after = trained(order(data, folder, epochs=3), heard).run
    assert after.history[:2] == before.history
    assert len(after.history) == 3
    assert f"going on after epoch 2 of 3 in {folder}" in heard.said


@pytest.mark.slow
def test_demo_weights_are_a_better_start_than_none(data: Path, tmp_path: Path) -> None:
    heard = Heard()
    run = trained(order(data, tmp_path / "out", init="demo", freeze=True, teacher=None), heard).run
    assert any("starts from new weights" in line for line in heard.said)
    assert run.settings.frozen
    assert run.spec.classes == 3


def test_an_export_of_a_run_names_images_that_are_gone(result, tmp_path):
    trained, _ = result
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    data = dataclasses.replace(trained.run.data, source="gone")
    record = records.dumps(dataclasses.replace(trained.run, data=data))
    (folder / "run.json").write_text(record)
    config = export_plan.ExportConfig(model=folder, out=tmp_path)
    with pytest.raises(UsageError, match="was trained on gone, which is not here"):
        export_plan.plan(config, Heard())


def test_an_export_of_a_run_is_judged_by_the_images_that_were_held_back(result, tmp_path):
    trained, _ = result
    planned = export_plan.plan(
        export_plan.ExportConfig(model=Path(trained.folder), out=tmp_path), Heard()
    )
    assert planned.source.spec.weights == trained.run.spec.weights
    assert planned.source.spec.preprocessing.labels == CLASSES
    assert planned.source.weights == str(Path(trained.folder) / trained.run.weights)
    assert (planned.data.split, planned.data.identity) == ("held", trained.run.data.identity)
    assert planned.evaluates
    moved = shutil.copy(trained.run.data.source, tmp_path / "moved.npz")
    elsewhere = export_plan.plan(
        export_plan.ExportConfig(model=Path(trained.folder), data=str(moved), out=tmp_path), Heard()
    )
    assert elsewhere.data.split == "held"
    assert elsewhere.data.identity == planned.data.identity
    larger = export_plan.plan(
        export_plan.ExportConfig(model=Path(trained.folder), res=64, out=tmp_path), Heard()
    )
    assert larger.source.spec.resolution == (64, 64)
    assert larger.folder != planned.folder
    with pytest.raises(UsageError, match="--alpha does not go with"):
        export_plan.plan(
            export_plan.ExportConfig(model=Path(trained.folder), alpha=0.5, out=tmp_path), Heard()
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune": 1.0}, "--prune 1 is not above 0 and below 1"),
        ({"prune": float("nan")}, "--prune nan"),
        ({"cluster": 1}, "--cluster 1 is not within 2 to 256"),
        ({"prune": 0.5, "cluster": 16}, "two trainings"),
        ({"prune": 0.5, "ema": True}, "--ema does not go with --prune"),
        ({"prune": 0.5, "freeze": True, "init": "demo"}, "--freeze does not go with --prune"),
        ({"cluster": 16, "strategy": "mirrored"}, "--strategy does not go with --cluster"),
        ({"prune_channels": 0.0, "init": "demo"}, "--prune-channels 0 is not above 0 and below 1"),
        ({"prune_channels": float("nan"), "init": "demo"}, "--prune-channels nan"),
        ({"max_mult_adds": 0, "init": "demo"}, "--max-mult-adds 0 is not above 0"),
        ({"max_instructions": 0, "init": "demo"}, "--max-instructions 0 is not above 0"),
        ({"max_instructions": 10**6}, "--max-instructions takes channels from a trained network"),
        ({"core": "cortex-a53"}, "--for goes with --max-instructions"),
        (
            {"max_instructions": 10**6, "core": "a53", "init": "demo"},
            "no core named 'a53' can be emulated",
        ),
        ({"prune_channels": 0.5, "max_mult_adds": 10**7}, "are one choice"),
        ({"max_mult_adds": 10**7, "max_instructions": 10**7}, "are one choice"),
        (
            {"prune_channels": 0.5, "cluster": 16},
            "--cluster and --prune-channels are two trainings",
        ),
        ({"prune_channels": 0.5}, "--prune-channels takes channels from a trained network"),
        ({"max_mult_adds": 10**6}, "--max-mult-adds takes channels from a trained network"),
    ],
)
def test_a_compression_that_cannot_be_is_refused(data, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        training_plan.plan(order(data, tmp_path / "run", **changes), Heard())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"prune_channels": 0.5}, {"max_mult_adds": 100_000}])
def test_a_network_that_loses_channels_learns_from_what_it_starts_from(
    data, result, tmp_path, changes
):
    trained_, heard = result[0], Heard()
    planned = training_plan.plan(
        order(data, tmp_path / "run", init=trained_.folder, **changes), heard
    )
    request, weights = planned.request, trained_.run.spec.weights
    assert request.teacher.weights == request.init
    assert request.teacher.spec.weights == request.settings.teacher == weights
    assert request.teacher.spec.arguments == request.spec.arguments
    assert not any("labels alone" in line for line in heard.said)


@pytest.mark.parametrize(
    "changes",
    [
        {"init": "demo"},
        {"init": "run", "overrides": Overrides(input_range=(0.0, 1.0))},
        {"init": "run/weights.h5"},
    ],
)
def test_it_learns_from_labels_alone_where_its_start_may_know_others(
    data, result, tmp_path, changes
):
    """The classes of demo weights are others, and a file of weights does not name its own."""
    heard = Heard()
    start = changes["init"].replace("run", result[0].folder)
    config = order(data, tmp_path / "run", prune_channels=0.5, **(changes | {"init": start}))
    request = training_plan.plan(config, heard).request
    assert request.teacher is request.settings.teacher is None
    assert any("learns from labels alone" in line for line in heard.said)


@pytest.mark.slow
def test_silenced_channels_are_not_in_the_export(data, result, tmp_path):
    before = analyze.analyze(arch="mobilenet_v1", alpha=0.25, res=32, classes=3).mult_adds
    heard = Heard()
    run = trained(
        order(data, tmp_path / "run", init=result[0].folder, max_mult_adds=before // 2), heard
    )
    assert any("silenced: export leaves out what is zero" in line for line in heard.said)
    assert not [warning for warning in run.run.warnings if warning.name == "dead-channels"]
    made = export.export(
        run.folder,
        recipe=("float32", "int8_ptq"),
        format="tflite",
        timed=False,
        out=tmp_path,
        reporter=heard,
    )
    for recipe in ("float32", "int8_ptq"):
        assert before / 4 < analyze.analyze(made.path(recipe)).mult_adds <= before // 2


@pytest.mark.slow
def test_the_exported_file_takes_no_more_instructions_than_that(emulator, data, result, tmp_path):
    core, heard = "cortex-a53", Heard()

    def counted(folder: str, name: str) -> int:
        made = export.export(
            folder,
            recipe="int8_ptq",
            format="tflite",
            timed=False,
            out=tmp_path / name,
            reporter=heard,
        )
        path = made.path("int8_ptq")
        (figure,) = bench.bench([path], device=f"emulator:{core}", reporter=heard).measurements
        return figure.instructions

    most = counted(result[0].folder, "whole") * 3 // 4
    config = order(data, tmp_path / "run", init=result[0].folder, max_instructions=most, core=core)
    run = trained(config, heard)
    assert (run.run.settings.max_instructions, run.run.settings.core) == (most, core)
    assert 0.8 * most < counted(run.folder, "pruned") <= most


@pytest.mark.parametrize(("steps", "advice"), [(4, "4 steps are too few"), (500, "--alpha")])
def test_dead_channels_of_a_short_training_are_not_taken_for_lost(steps, advice):
    warning = training_process._dead_channels({"conv_dw_1": 1, "conv_dw_2": 2}, steps)
    assert warning.message.startswith("3 depthwise channels with one answer to every image: 1 in")
    assert advice in warning.advice


def test_a_process_of_the_pool_that_is_killed_is_no_defect(tmp_path, monkeypatch):
    """As the system does it where memory ends."""
    monkeypatch.setattr(training_process, "WORTH_A_POOL", 1)
    ref = DataRef(str(archive(tmp_path / "noise.npz", 200)), "train", (32, 32))
    samples = dataset(ref.source).open(ref.source, "train", resolution=(32, 32), labels=())
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(children.read_text().split())

    def murder() -> None:
        for _ in range(600):
            time.sleep(0.05)
            for child in set(children.read_text().split()) - others:
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    return

    thread = threading.Thread(target=murder)
    thread.start()
    with pytest.raises(DeviceError, match="that reads images was killed"):
        list(training_process._chunks(ref, samples, (32, 32), Preprocessing((-1.0, 1.0))))
    thread.join()


def test_masks_need_names_of_classes_and_the_way_works(here: Path, heard: Heard) -> None:
    for number in range(20):
        for folder, pixels in (("images", (32, 32, 3)), ("masks", (32, 32))):
            path = here / "streets" / folder / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full(pixels, number % 2, np.uint8)).save(path)
    config = TrainConfig(
        arch="lraspp_mobilenet_v3_small", res=32, data="streets", task="segmentation"
    )
    with pytest.raises(InputError, match=r"does not name the classes of its masks.*classes\.txt"):
        training_plan.plan(config, heard)
    (here / "streets" / "classes.txt").write_text("nothing\nsomething\n")
    planned = training_plan.plan(config, heard).request
    assert (planned.spec.task, planned.spec.classes) == ("segmentation", 2)
    assert planned.spec.preprocessing.labels == ("nothing", "something")
    assert planned.settings.metric == "miou"
    with pytest.raises(UsageError, match="the task of mobilenet_v1 is classification"):
        training_plan.plan(dataclasses.replace(config, arch="mobilenet_v1"), heard)
