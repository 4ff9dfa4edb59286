"""Every language's app replays its golden samples, and names what a change of its code broke."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from mobiledeploy.cli import app as command
from mobiledeploy.core import preprocessing, records, units
from mobiledeploy.core.plugins import APPS, FORMATS, RECIPES, TASKS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import AppContract, AppSample, Preprocessing, Tensor
from mobiledeploy.verbs.app import app
from mobiledeploy.verbs.verify import verify
from tests.apps import conftest
from tests.apps.conftest import BENCHES, INT8, PLAIN, SCORES, SIZE, UINT8, run
from tests.tasks.conftest import EXAMPLES

LANGUAGES = APPS.names()
# A browser takes seconds to start: one test of it stands for the others of its kind. Kotlin's
# compiler takes some more.
SLOW = ("android", "javascript")
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LANGUAGES]
EVERY = pytest.mark.parametrize("language", EACH)
COMMAND_LINES = pytest.mark.parametrize(
    "language", [one for one in EACH if one.values != ("javascript",)]
)
DECODED = [example for example in EXAMPLES if example.task != "tensors"]
IMAGENET = Preprocessing((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BGR = replace(PLAIN, channels="bgr", resize="bicubic")


def test_every_language_has_a_bench():
    assert set(BENCHES) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_says_what_it_is(language):
    plugin = APPS.load(language)
    assert plugin.SUMMARY
    assert set(plugin.FORMATS) <= set(FORMATS.names())
    assert set(plugin.TASKS) <= set(TASKS.names())
    assert list(plugin.TASKS) == sorted(plugin.TASKS)
    assert plugin.COMMANDS
    option = next(p for p in command.command.params if p.name == "language")
    assert language in option.help


# The whole way: artifact, app, golden test

CASES = {
    "int8": (PLAIN, INT8, "classification", SCORES),
    "uint8 bgr bicubic": (BGR, UINT8, "multilabel", SCORES),
    "float": (IMAGENET, None, "regression", SCORES),
    "gray": (replace(PLAIN, channels="gray"), INT8, "embedding", SCORES),
}  # fmt: skip


def written(folder: Path, language: str, case: str) -> Path:
    how, kind, task, ends = CASES[case]
    channels = 1 if how.channels == "gray" else 3
    format_, content = conftest.model(language, ends, channels, kind)
    path = conftest.artifact(folder / "made", content, how, task, ends, kind=format_)
    app(path, language=language, out=folder / "app", reporter=SILENT)
    return path


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    """(language, case) -> the folder with `made` and `app`, each made once."""
    folders = {}

    def folder(language, case):
        if (language, case) not in folders:
            folders[language, case] = tmp_path_factory.mktemp("apps")
            written(folders[language, case], language, case)
        return folders[language, case]

    return folder


@pytest.mark.parametrize(
    ("language", "case"),
    [
        pytest.param(
            *pair,
            marks=[pytest.mark.slow] * (pair[0] in SLOW and pair != ("javascript", "int8")),
        )
        for pair in itertools.product(LANGUAGES, CASES)
    ],
)
def test_its_golden_samples_are_replayed(language, case, apps, build):
    made = apps(language, case) / "app"
    build(language, made)
    done = run(BENCHES[language].program(made, "golden_test"), made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass: the golden samples are replayed" in done.stdout


def planted(language, case, apps, build, tmp_path, plant) -> list[str]:
    """What the golden test says of an app with a mistake in its code, a line for each sample."""
    bench = BENCHES[language]
    made = shutil.copytree(apps(language, case) / "app", tmp_path / "app", symlinks=True)
    name, right, wrong = bench.plants[plant]
    code = (made / name).read_text()
    assert code.count(right) == 1
    (made / name).write_text(code.replace(right, wrong))
    build(language, made)
    done = run(bench.program(made, "golden_test"), made)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    samples = len(list((made / "golden").glob("*.input.bin")))
    assert len(lines) == samples
    assert all(line.startswith("golden/") for line in lines)
    return [line.partition(": ")[2] for line in lines]


MISTAKES = [
    ("int8", "channels", "the channels are swapped (RGB for BGR, or BGR for RGB)"),
    ("int8", "range", "another input range, mean, std or zero point"),
    ("int8", "rounding", "of the codes are one off: another rounding"),
    ("uint8 bgr bicubic", "rounding of uint8", "of the codes are one off: another rounding"),
    ("gray", "range", "another input range, mean, std or zero point"),
    ("int8", "resize", "another crop, resize or image decoder"),
    ("int8", "axes", "the axes are not NHWC"),
    ("int8", "answer", "the answer to the recorded outputs differs in classes"),
    ("int8", "outputs", "the outputs differ by 3 steps, 2 are allowed"),
]
# A compiler or a browser takes seconds for each of the others.
QUICK = [("cpp", "channels"), ("cpp", "rounding"), ("javascript", "channels")]
QUICK += [("python", plant) for _, plant, _ in MISTAKES]


@pytest.mark.parametrize(
    ("language", "case", "plant", "message"),
    [
        pytest.param(
            language, *mistake, marks=[pytest.mark.slow] * ((language, mistake[1]) not in QUICK)
        )
        for language in LANGUAGES
        for mistake in MISTAKES
    ],
)
def test_a_mistake_in_its_code_is_named(language, case, plant, message, apps, build, tmp_path):
    for line in planted(language, case, apps, build, tmp_path, plant):
        assert message in line


# Parts of it against this package


def answered(language, app, names) -> list[dict]:
    """What the app prints for images."""
    done = run([*BENCHES[language].program(app, "app"), *names], app)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def tensors(language, app, names):
    """The input tensors that the app makes of images, by their names."""
    done = run([*BENCHES[language].program(app, "app"), "--inputs", "t.npz", *names], app)
    assert done.returncode == 0, done.stderr
    with np.load(app / "t.npz") as archive:
        return dict(archive)


def rewritten(language, app, change) -> AppContract:
    """The app with a changed contract."""
    text = (app / "as-made.json").read_text()
    contract = change(records.loads(AppContract, text))
    for name, content in APPS.load(language).files(contract).items():
        (app / name).write_bytes(content)
    return contract


@pytest.fixture
def own_app(apps, build, tmp_path):
    """own_app(language): a copy of a finished app, ready to run, with its contract as a record."""

    def copy(language, case="int8"):
        made = shutil.copytree(apps(language, case) / "app", tmp_path / "app", symlinks=True)
        if (made / "contract.json").exists():
            record = (made / "contract.json").read_text()
        else:
            record = (apps("python", case) / "app" / "contract.json").read_text()
        (made / "as-made.json").write_text(record.replace(".png", APPS.load(language).IMAGES))
        build(language, made)
        return made

    return copy


@EVERY
def test_it_prints_answers_with_labels(language, own_app):
    made = own_app(language)
    suffix = APPS.load(language).IMAGES
    for image in sorted((made / "golden").glob(f"*{suffix}")):
        (answer,) = answered(language, made, [image])
        contract = json.loads((made / "as-made.json").read_text())
        sample = next(s for s in contract["golden"] if Path(s["image"]).stem == image.stem)
        assert Path(answer["image"]).name == image.name
        assert answer["classes"] == sample["answer"]["classes"]
        assert answer["scores"] == pytest.approx(sample["answer"]["scores"], rel=1e-5)
        assert answer["labels"] == ["abcdefg"[index] for index in answer["classes"]]


@COMMAND_LINES
def test_it_says_how_it_is_used(language, own_app):
    made = own_app(language)
    for arguments in ([], ["--inputs", "t.npz"], ["--nonsense"]):
        done = run([*BENCHES[language].program(made, "app"), *arguments], made)
        assert done.returncode == 2
        assert "usage: " in done.stderr


@EVERY
def test_it_prepares_images_of_all_sizes_as_this_package_does(language, own_app):
    made = own_app(language, "float")
    dice, images = np.random.default_rng(7), {}
    for number in range(12):
        height, width = dice.integers(1, 70, 2)
        pixels = dice.integers(0, 256, (height, width, 3), np.uint8)
        images[f"i{number}"] = pixels
        Image.fromarray(pixels).save(made / f"i{number}{APPS.load(language).IMAGES}")
    names = [f"{name}{APPS.load(language).IMAGES}" for name in images]
    for how in (
        IMAGENET,
        replace(PLAIN, resize="bicubic", crop=0.8),
        replace(PLAIN, channels="bgr", std=(0.1, 0.2, 0.3)),
    ):
        rewritten(
            language, made, lambda c, h=how: replace(c, image=replace(c.image, preprocessing=h))
        )
        for name, tensor in tensors(language, made, names).items():
            expected = preprocessing.prepare(images[name], how, SIZE)[None]
            assert tensor.shape == expected.shape
            # One level where an older Pillow resizes the rows first.
            span = np.abs(tensor - expected).max()
            level = 1.01 / 255 * (how.input_range[1] - how.input_range[0]) / min(how.std)
            assert span <= (level if PILLOW < (13,) else 0)


@COMMAND_LINES
def test_it_puts_channels_first_where_the_model_takes_them_so(language, own_app):
    """A page is left out: it saves its inputs only where the model takes them."""
    made = own_app(language, "float")
    last = tensors(language, made, sorted(made.glob(f"golden/*{APPS.load(language).IMAGES}")))
    rewritten(
        language,
        made,
        lambda c: replace(c, layout="NCHW", input=replace(c.input, shape=(1, 3, *SIZE))),
    )
    first = tensors(language, made, sorted(made.glob(f"golden/*{APPS.load(language).IMAGES}")))
    assert first
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, last[name].transpose(0, 3, 1, 2))


PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:1])


@EVERY
def test_verify_accepts_its_inputs(language, own_app, apps):
    made = own_app(language)
    made_ = apps(language, "int8") / "made"
    (path,) = (p for p in made_.glob("model.*") if p.suffix != ".json")
    program = BENCHES[language].program(made, "app")
    if language == "python":
        pipeline = " ".join((*program, "--inputs"))
    else:
        tensors(language, made, sorted((made / "golden").glob(f"*{APPS.load(language).IMAGES}")))
        pipeline = str(made / "t.npz")
    diagnosis = verify(path, pipeline=pipeline, reporter=SILENT).pipeline
    assert diagnosis.explained
    assert diagnosis.differences == ()
    assert diagnosis.error_as_wanted < 1


@pytest.mark.parametrize("example", DECODED, ids=lambda example: example.id)
@EVERY
def test_it_decodes_as_the_task_does(language, example, own_app):
    """The recorded outputs are random, so that the model's own differ: that is seen later.

    For Android the outputs of the first sample stand in for all, whose inputs are the same.
    """
    made = own_app(language, "float")
    names = [f"o{place}" for place in range(len(example.ends))]
    format_, content = conftest.model(language, example.ends, names=names)
    (made / f"model.{format_}").write_bytes(content)
    drawn = [x.astype("<f4") for x in example.draw(np.random.default_rng(3), 20)]

    def sample(number: int, one: AppSample) -> AppSample:
        stem, values = f"golden/s{number}", [x[number] for x in drawn]
        for name in (one.image, one.pixels, one.input):
            shutil.copy(made / name, made / f"{stem}.{name.partition('.')[2]}")
        outputs = tuple(f"{stem}.output{place}.bin" for place in range(len(values)))
        for name, row in zip(outputs, values, strict=True):
            (made / name).write_bytes(row.tobytes())
        answer = TASKS.load(example.task).decode(values, example.ends)
        image = Path(f"{stem}{Path(one.image).suffix}")
        return AppSample(str(image), f"{stem}.pixels.bin", f"{stem}.input.bin", outputs, answer)

    rewritten(
        language,
        made,
        lambda c: replace(
            c,
            task=example.task,
            ends=example.ends,
            outputs=tuple(
                Tensor(name, (1, *end.shape), "float32")
                for name, end in zip(names, example.ends, strict=True)
            ),
            golden=tuple(sample(number, c.golden[0]) for number in range(20)),
        ),
    )
    done = run(BENCHES[language].program(made, "golden_test"), made)
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert {line.partition(" by ")[0] for line in lines} == {"the outputs differ"}


# Names and labels of strangers

HOSTILE = 'x"; system("id"); //\n#include <x>\\u0041 {{7*7}} ${7} %s \x1b[31m</script>'


@EVERY
def test_names_of_strangers_stay_data(language, tmp_path, build):
    how = replace(PLAIN, labels=tuple(f"{HOSTILE} {n}" for n in range(7)))
    format_, content = conftest.model(language, SCORES, kind=INT8, names=[HOSTILE])
    path = conftest.artifact(tmp_path / "made", content, how, kind=format_)
    made = tmp_path / "an app"
    done = app(path, language=language, out=made, reporter=SILENT)
    code = {name: (made / name).read_bytes() for name in done.files if "/" not in name}
    data = {"contract.json", "contract.txt", "labels.txt", "model.onnx", "model.tflite"}
    assert all(b"system(" not in text for name, text in code.items() if name not in data)
    build(language, made)
    replayed = run(BENCHES[language].program(made, "golden_test"), made)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    image = next((made / "golden").glob(f"*{APPS.load(language).IMAGES}"))
    (answer,) = answered(language, made, [image])
    for index, label in zip(answer["classes"], answer["labels"], strict=True):
        assert units.one_line(label) == units.one_line(how.labels[index])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "recipe", "kind"),
    [
        (language, recipe, kind)
        for language in LANGUAGES
        for recipe in ("float16", "float32", "int8_ptq", "dynamic_int8")
        for kind in APPS.load(language).FORMATS
        if kind in RECIPES.load(recipe).RECIPE.formats
    ],
)
def test_files_of_an_export_are_replayed(language, recipe, kind, exported, tmp_path, build):
    made = tmp_path / "app"
    app(exported[recipe, kind], language=language, out=made, reporter=SILENT)
    build(language, made)
    done = run(BENCHES[language].program(made, "golden_test"), made)
    assert done.returncode == 0, done.stdout + done.stderr
