"""What a network costs, from a card, a model of one's own, or a finished file; and what fits."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.steps import card_specs, published
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import analyze as verb
from mobiledeploy.verbs.analyze import Budget
from tests.conftest import press


@pytest.fixture(scope="module")
def usual():
    """What `analyze` says without arguments."""
    return verb.analyze()


def test_mobilenet_v1_is_counted_to_the_last_one(usual):
    assert usual.mult_adds == 568_740_352
    assert (usual.params, usual.trainable_params) == (4_253_864, 4_231_976)
    assert (usual.name, usual.resolution, usual.classes) == (
        "mobilenet_v1_1_224",
        (224, 224),
        1000,
    )
    # Input and output of the first pointwise convolution: 112x112, 32 and 64 channels, 4 bytes.
    assert usual.peak_activation_bytes == 112 * 112 * (32 + 64) * 4
    assert usual.uncounted == ()
    assert sum(row.mult_adds for row in usual.layers) == usual.mult_adds
    assert sum(row.params for row in usual.layers) == usual.params
    shares = {share.kind: round(100 * share.mult_adds, 2) for share in usual.shares}
    assert shares == {
        "Conv 1x1": 94.86,
        "Conv DW 3x3": 3.06,
        "Conv 3x3": 1.91,
        "Fully Connected": 0.18,
        "FusedBatchNormV3": 0.0,
    }


def test_depthwise_moves_many_bytes_for_few_mult_adds(usual):
    def mean(kind):
        rows = [row.intensity for row in usual.layers if row.kind == kind]
        return sum(rows) / len(rows)

    assert mean("Conv DW 3x3") < mean("Conv 1x1") / 5


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
def test_a_finished_file_costs_what_its_model_does(recipe, suffix, converted, tmp_path):
    """Without a record beside it."""
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(converted[recipe, suffix])
    found = verb.analyze(path)
    wide = (recipe, suffix) == ("int8_ptq", "onnx")
    assert found.mult_adds == SHALLOW_QUARTER_64 + wide * MORE_OF_TWO_COLUMNS
    assert (found.resolution, found.classes, found.trainable_params) == ((64, 64), 12, None)
    # Input and output of the first pointwise convolution, in the file's own type.
    assert found.peak_activation_bytes == 32 * 32 * (8 + 16) * (1 if recipe == "int8_ptq" else 4)


SHALLOW_QUARTER_64 = 1_928_704
"""Mult-adds of a shallow v1 0.25 at 64 with 12 classes."""
MORE_OF_TWO_COLUMNS = 32 * 16 * 45 * 16 - 32 * 32 * 27 * 8
"""What windows of 3 x 15 take more than two of 3 x 9 in its first layer, in int8 ONNX."""


def test_the_keras_model_of_these_files_costs_the_same():
    found = verb.analyze(arch="mobilenet_v1_shallow", alpha=0.25, res=64, classes=12)
    assert found.mult_adds == SHALLOW_QUARTER_64


def test_a_finished_file_is_read_without_tensorflow(converted, tmp_path):
    path = tmp_path / "mine.tflite"
    path.write_bytes(converted["float32", "tflite"])
    code = (
        "import sys; from pathlib import Path; from mobiledeploy.verbs import analyze\n"
        f"found = analyze.analyze({str(path)!r})\n"
        "analyze.analyze_best()\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)\n"
        "print(found.mult_adds, *heavy)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [str(SHALLOW_QUARTER_64)]


def test_a_model_of_ones_own_needs_no_preprocessing(model_files, tmp_path):
    path = tmp_path / os.fsdecode(b"mine\xff.keras")
    path.write_bytes((model_files / "k3.keras").read_bytes())
    found = verb.analyze(path)
    assert found.mult_adds == 32 * 32 * 9 * 3 * 4 + 4 * 5
    assert found.name == "mine\N{REPLACEMENT CHARACTER}"
    assert (found.resolution, found.classes) == ((32, 32), 5)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_sum_over_channels_is_no_convolution_that_a_paper_counts(tmp_path, format_):
    import tf_keras

    from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization

    image = tf_keras.layers.Input((32, 32, 3))
    x = tf_keras.layers.Conv2D(8, 3, padding="same", activation="relu", bias_initializer="ones")(
        image
    )
    x = LocalResponseNormalization(size=5, alpha=1e-4, beta=0.75, bias=2.0, name="norm1")(x)
    network = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    images = np.zeros((1, 32, 32, 3), np.float32)
    path = tmp_path / f"model.{format_}"
    path.write_bytes(press(Model("tf_keras", network), "float32", format_, images, io="float"))
    found = verb.analyze(path)
    assert found.mult_adds == 32 * 32 * 27 * 8
    assert found.params == 27 * 8 + 8


def test_a_published_model_and_what_its_authors_made_of_it_cost_the_same(real_data):
    folder = real_data / "vww"
    files = [folder / f"vww_96{end}" for end in (".h5", "_float.tflite", "_int8.tflite")]
    whole, *finished = [verb.analyze(file) for file in files]
    assert {found.mult_adds for found in (whole, *finished)} == {7_489_664}
    assert whole.params == 221_794


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"arch": "mobilenet_v9"}, "did you mean mobilenet_v"),
        ({"arch": "googlenet", "alpha": 0.5}, "googlenet has no alpha"),
        ({"arch": "mobilenet_v1", "groups": 3}, "mobilenet_v1 has no groups"),
        ({"alpha": 0.0}, "alpha 0 is not above 0"),
        ({"res": 16}, "resolution 16 is not within 32"),
        ({"classes": 1}, "1 classes are not within 2"),
        ({"file": "k2.h5", "arch": "mobilenet_v1"}, "--arch does not go with a model file"),
        ({"file": "k2.h5", "classes": 3}, "--classes does not go with a model file"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(order, message, model_files):
    if "file" in order:
        order = order | {"file": model_files / order["file"]}
    with pytest.raises(UsageError, match=message):
        verb.analyze(order.pop("file", None), **order)


def test_the_name_of_an_architecture_is_no_model_file():
    with pytest.raises(UsageError, match="an architecture, .* --arch mobilenet_v2"):
        verb.analyze("mobilenet_v2", alpha=0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("k2_weights.h5", "holds weights without a model"),
        ("k3_lambda.keras", "code of its own.*--unsafe"),
        ("nowhere.tflite", "cannot be read"),
        ("nowhere.h5", "cannot be read"),
    ],
)
def test_what_cannot_be_counted_is_refused(name, message, model_files):
    with pytest.raises(InputError, match=message):
        verb.analyze(model_files / name)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_damaged_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(InputError):
        verb.analyze(path)


# What fits a budget.


def test_the_best_of_a_budget():
    found = verb.analyze_best(max_mult_adds=150_000_000, max_size=2_000_000, min_top1=60)
    assert found.budget == Budget(150_000_000, 2_000_000, 0.6)
    assert 1 <= len(found.choices) <= 5
    top1 = [choice.published.top1 for choice in found.choices]
    assert top1 == sorted(top1, reverse=True)
    for choice in found.choices:
        assert choice.published.mult_adds <= 150_000_000
        assert choice.size_bytes == choice.published.params <= 2_000_000
        assert choice.published.top1 >= 0.6
    best = found.choices[0].published
    others = [
        row.top1
        for row in published.grids()
        if row.variant == "float"
        and (row.mult_adds or 10**12) <= 150_000_000
        and (row.params or 10**12) <= 2_000_000
    ]
    assert best.top1 == max(others)


def test_its_command_builds_it_here():
    for choice in verb.analyze_best(most=1000).choices:
        row, words = choice.published, choice.command.split()
        assert words[0] == "mobiledeploy"
        options = dict(zip(words[2::2], words[3::2], strict=True))
        card = cards.load(options["--arch"])
        alpha = options.get("--alpha")
        groups = options.get("--groups")
        card_specs.spec(
            card,
            alpha=alpha and float(alpha),
            groups=groups and int(groups),
            res=int(options["--res"]),
            classes=1000,
        )
        assert card.name == row.card
        published = card.weights.imagenet
        has = published is not None and row.alpha in [file.alpha for file in published.files]
        assert words[1] == ("export" if has else "train")


def test_nothing_fits_names_the_nearest():
    with pytest.raises(UsageError, match="no published network fits") as error_info:
        verb.analyze_best(max_mult_adds=10_000_000, min_top1=45)
    assert "the nearest is" in error_info.value.hint
    with pytest.raises(UsageError, match="is not an accuracy"):
        verb.analyze_best(min_top1=0.65)
    with pytest.raises(UsageError, match="is not an accuracy"):
        verb.analyze_best(min_top1=float("nan"))


@settings(max_examples=30)
@given(st.integers(10**7, 10**9), st.integers(10**7, 10**9))
def test_a_larger_budget_is_never_worse(one, other):
    small, large = sorted((one, other))

    def top1(mult_adds):
        try:
            return verb.analyze_best(max_mult_adds=mult_adds).choices[0].published.top1
        except UsageError:
            return 0.0

    assert top1(small) <= top1(large)


@pytest.mark.slow
def test_a_card_of_a_task_without_a_usual_number_of_classes_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "mobiledeploy" / "models"
    folder.mkdir(parents=True)
    text = (cards.folders()[-1] / "mobilenet_v1.toml").read_text()
    text = text.replace('name = "mobilenet_v1"', 'name = "ages"\ntask = "regression"')
    (folder / "ages.toml").write_text(text.partition("[weights")[0])
    counted = verb.analyze(arch="ages", alpha=0.25, res=32)
    usual = verb.analyze(arch="mobilenet_v1", alpha=0.25, res=32)
    assert counted.classes == 1000
    assert (counted.mult_adds, counted.params) == (usual.mult_adds, usual.params)


@pytest.mark.parametrize(
    ("core", "recipe", "widest"),
    [
        ("cortex-a76", "int8_ptq", {("sdot", 16), ("smlal", 8)}),
        pytest.param("cortex-a53", "int8_ptq", {("smlal", 8)}, marks=pytest.mark.slow),
        pytest.param("cortex-a76", "float32", {("fmla", 4)}, marks=pytest.mark.slow),
        pytest.param("cortex-a76", "float16_full", {("fmla", 8)}, marks=pytest.mark.slow),
        pytest.param("cortex-a53", "float16_full", {("fmla", 4)}, marks=pytest.mark.slow),
    ],
)
def test_no_count_is_below_its_floor(emulator, exported, here, core, recipe, widest):
    path = exported[recipe, "tflite"]
    found = verb.analyze_instructions(path, device=f"emulator:{core}")
    assert found.core == core
    assert found.mult_adds == verb.analyze(path).mult_adds
    assert {(layer.instruction, layer.width) for layer in found.layers} == widest
    assert all(layer.instructions > layer.floor for layer in found.layers)
    # A floor is no guess: what multiplies is never less.
    assert found.floor <= found.multiplying < found.instructions
    within = sum(layer.instructions for layer in found.layers)
    assert within + found.other_instructions == found.instructions
    with Store.open() as store:
        (kept,) = store.measurements_of(found.artifact_sha256)
    assert (kept.instructions, kept.isa) == (found.instructions, found.isa)


def test_floors_of_what_cannot_be_counted_are_refused(tmp_path):
    broken = tmp_path / "a.tflite"
    broken.write_bytes(b"no model at all")
    with pytest.raises(InputError, match="a.tflite"):
        verb.analyze_instructions(broken)
    with pytest.raises(UsageError, match="takes a finished file"):
        verb.analyze_instructions(tmp_path / "a.h5")
    with pytest.raises(UsageError, match="host does not count instructions"):
        verb.analyze_instructions(broken, device="host")
    with pytest.raises(UsageError, match="nonsense"):
        verb.analyze_instructions(broken, device="nonsense")
