"""Networks and model files as layers, traced by the real child."""

import math

import pytest
import tf_keras

from mobiledeploy.analysis import cost
from mobiledeploy.core import cards, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Source
from mobiledeploy.steps import card_specs, child_process, tracing_process
from mobiledeploy.steps.model_files import detect
from mobiledeploy.verbs import analyze

CARDS = {
    "mobilenet_v1": {"alpha": 0.25, "res": 64},
    "conv_mobilenet": {"alpha": 0.25, "res": 33},
    "mobilenet_v3_small": {"alpha": 0.75, "res": 64},
    "shufflenet_v1": {"alpha": 0.5, "groups": 8, "res": 64},
}


def built(spec):
    return ARCHITECTURES.load(spec.architecture).build(
        **spec.arguments, resolution=spec.resolution, classes=spec.classes
    )


def by_keras(model):
    """Mult-adds from the attributes of Keras's own layers."""
    layers = tf_keras.layers
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            window = math.prod(layer.kernel_size)
            total += math.prod(layer.output_shape[1:]) * window
        elif isinstance(layer, layers.SeparableConv2D):
            channels, window = layer.input_shape[-1], math.prod(layer.kernel_size)
            each = window * channels + channels * layer.filters
            total += math.prod(layer.output_shape[1:-1]) * each
        elif isinstance(layer, layers.Conv2D):
            each = layer.input_shape[-1] // layer.groups
            total += math.prod(layer.output_shape[1:]) * math.prod(layer.kernel_size) * each
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.output_shape[1:]) * layer.input_shape[-1]
    return total


@pytest.fixture(scope="module")
def traced():
    """Card -> what the child says of it."""
    specs = [card_specs.spec(cards.load(n), classes=7, **given) for n, given in CARDS.items()]
    found = tracing_process.trace([Source(spec) for spec in specs], SILENT)
    return dict(zip(CARDS, found, strict=True))


@pytest.mark.parametrize("name", CARDS)
def test_a_card_costs_what_its_keras_layers_say(name, traced):
    found = traced[name]
    model = built(found.spec)
    counted = cost.cost(found.layers)
    assert counted.mult_adds == by_keras(model)
    assert counted.uncounted == ()
    assert counted.params == found.params == model.count_params()
    assert found.trainable == sum(math.prod(w.shape) for w in model.trainable_weights)
    assert found.spec.resolution == (CARDS[name]["res"],) * 2


@pytest.mark.parametrize("name", CARDS)
def test_memory_holds_at_least_what_any_operator_reads_and_writes(name, traced):
    found = traced[name]
    counted = cost.cost(found.layers)
    convolutions = [x for x in found.layers if "Conv" in x.op]
    largest = max(
        sum(cost.size_bytes(t) for t in (*x.inputs, *x.outputs) if not t.constant)
        for x in convolutions
    )
    everything = sum(cost.size_bytes(t) for x in found.layers for t in x.outputs)
    assert largest <= counted.peak_activation_bytes < everything
    if name == "mobilenet_v1":
        # No branches: a layer's input and output are all that lives.
        assert counted.peak_activation_bytes == largest


@pytest.mark.slow
def test_every_card_costs_what_its_keras_layers_say():
    specs = [card_specs.spec(cards.load(name), classes=1000) for name in cards.names()]
    found = tracing_process.trace([Source(spec) for spec in specs], SILENT)
    for spec, row in zip(specs, found, strict=True):
        model = built(spec)
        counted = cost.cost(row.layers)
        assert counted.mult_adds == by_keras(model), spec.name
        assert counted.params == row.params == model.count_params(), spec.name


def test_files_of_every_framework_are_the_same_network(model_files):
    names = ("k2.h5", "k2.keras", "k2_saved", "k3.keras", "k3.h5", "k3_saved")
    sources = []
    for name in names:
        file = detect(model_files / name)
        open_ = name.endswith("_saved") and (32, 32)
        sources.append(Source(analyze._own_spec(file), file=file, resolution=open_ or None))
    rows = list(tracing_process.trace(sources, SILENT))
    for name, row in zip(names, rows, strict=True):
        found = cost.cost(row.layers)
        # A convolution 3x3 from 3 to 4 channels, and a fully connected layer to 5 classes.
        assert found.mult_adds == 32 * 32 * 9 * 3 * 4 + 4 * 5, name
        assert [share.kind for share in found.shares][:2] == ["Conv 3x3", "Fully Connected"]
        assert row.trainable == 9 * 3 * 4 + 2 * 4 + 4 * 5 + 5
        assert found.params == row.params == row.trainable + 2 * 4
        assert (row.spec.resolution, row.spec.classes) == ((32, 32), 5)


def test_a_crash_names_the_file_whose_turn_it_was(tmp_path, monkeypatch):
    """The child has answered for the first file, and dies over the second.

    It has not taken all of its request: there are more files than a pipe holds the names of.
    """
    spec = card_specs.spec(cards.load("mobilenet_v1"), alpha=0.25, res=64, classes=7)
    own, answer = tmp_path / "python", records.line(tracing_process.TracedModel(spec, (), 0, 0))
    own.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nkill -SEGV $$\n")
    own.chmod(0o755)
    monkeypatch.setattr(child_process, "INTERPRETER", (str(own),))
    sources = [Source(spec, weights=str(tmp_path / name)) for name in ("a.h5", *["b.h5"] * 300)]
    with pytest.raises(InputError, match=r"the analysis crashed on b\.h5 \(SIGSEGV\)"):
        list(tracing_process.trace(sources, SILENT))


@pytest.mark.slow
def test_libraries_leave_nothing_in_the_users_home(cold, model_files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    analyze.analyze(model_files / "k2_saved")
    remaining = {
        path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()
    }
    assert remaining <= {("CACHE", "mobiledeploy")}
