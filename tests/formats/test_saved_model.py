import contextlib
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobiledeploy.core.errors import InputError
from mobiledeploy.formats import saved_model


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """SavedModels of bare TensorFlow whose signature does what their name says."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("graphs")
    spec = tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")

    def python(image):
        return tf.py_function(lambda x: x, [image], tf.float32)

    def reads(image):
        return image + tf.strings.to_number(tf.io.read_file("/etc/hostname"))

    def inside(image):
        return tf.cond(tf.reduce_sum(image) > 0, lambda: reads(image), lambda: image)

    def checkpoint(image):
        return (
            image
            + tf.raw_ops.RestoreV2(
                prefix="x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0]
        )

    def prints(image):
        tf.print(image, output_stream="file:///tmp/never-written")
        return image

    for function in (python, reads, inside, checkpoint, prints, lambda image: image * 2):
        name = function.__name__.strip("<>")
        module = tf.Module()
        concrete = tf.function(function).get_concrete_function(spec)
        tf.saved_model.save(module, folder / name, signatures={"serving_default": concrete})
    concrete = tf.function(lambda image: image).get_concrete_function(spec)
    tf.saved_model.save(tf.Module(), folder / "nameless", signatures={"other": concrete})
    return folder


@pytest.mark.parametrize("name", ["k2_saved", "k3_saved", "k2_two_saved"])
def test_a_saved_model_is_known(model_files, name):
    file = saved_model.detect(model_files / name)
    assert (file.format, file.framework, file.content) == ("saved_model", "saved_model", "model")
    assert file.code == ()


def test_the_hash_is_of_all_files(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    first = saved_model.detect(model_files / "k2_saved").sha256
    assert saved_model.detect(copy).sha256 == first
    with (copy / "variables" / "variables.data-00000-of-00001").open("ab") as stream:
        stream.write(b"\0")
    assert saved_model.detect(copy).sha256 != first


def test_a_lambda_layers_bytecode_is_named(model_files):
    assert saved_model.detect(model_files / "k2_lambda_saved").code == ("Lambda layer 'doubled'",)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("python", "EagerPyFunc"),
        ("reads", "ReadFile"),
        ("inside", "ReadFile"),
        ("checkpoint", "RestoreV2"),
        ("prints", "PrintV2"),
    ],
)
def test_operations_that_touch_files_or_python_are_named(graphs, name, operation):
    code = saved_model.detect(graphs / name).code
    assert any(operation in line for line in code)


def test_the_checkpoints_own_operations_are_no_code(graphs, model_files):
    raw = (graphs / "lambda" / "saved_model.pb").read_bytes()
    assert b"RestoreV2" in raw
    assert saved_model.detect(graphs / "lambda").code == ()


def test_a_message_in_two_parts_is_merged_as_protobuf_does(graphs, tmp_path):
    copy = tmp_path / "split"
    shutil.copytree(graphs / "reads", copy)
    path = copy / "saved_model.pb"

    def field(number, content):
        length, size = b"", len(content)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    (graph,) = saved_model._all(memoryview(path.read_bytes()), 2)
    # A second, empty graph_def: a reader that takes the last one would see no nodes.
    path.write_bytes(field(2, bytes(graph) + field(2, b"")))
    assert any("ReadFile" in line for line in saved_model.detect(copy).code)


def test_a_model_without_the_signature_says_what_to_do(graphs):
    with pytest.raises(InputError, match=r"no signature serving_default \(.*other"):
        saved_model.detect(graphs / "nameless")


def test_what_is_no_saved_model_is_left_to_others(tmp_path):
    assert saved_model.detect(tmp_path) is None
    assert saved_model.detect(tmp_path / "nowhere.h5") is None
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match="name the folder"):
        saved_model.detect(tmp_path / "saved_model.pb")
    with pytest.raises(InputError, match="no graph with the tag serve"):
        saved_model.detect(tmp_path)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_broken_files_are_one_line(model_files, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("broken")
    whole = (model_files / "k2_saved" / "saved_model.pb").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(max_size=20))
    (folder / "saved_model.pb").write_bytes(whole[:cut] + junk + whole[cut + 10 :])
    # Damage where nothing is read leaves a SavedModel; anything else is refused, never a crash.
    with contextlib.suppress(InputError):
        assert saved_model.detect(folder).format == "saved_model"
    (folder / "saved_model.pb").write_bytes(whole[:cut])
    with pytest.raises(InputError, match=r"broken|no graph|no signature") as caught:
        saved_model.detect(folder)
    assert "\n" not in str(caught.value)


def test_links_to_folders_and_pipes_are_refused(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    (copy / "assets" / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="link to a folder"):
        saved_model.detect(copy)
    (copy / "assets" / "up").unlink()
    os.mkfifo(copy / "assets" / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        saved_model.detect(copy)
