import contextlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError
from mobiledeploy.sources import saved_model


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """SavedModels of plain TensorFlow; the signature does what their name says."""
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


def _plain(library):
    layers = library.layers
    model = library.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]
    )
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 2)), verbose=0)
    return model


def _augmented(library):
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomBrightness(0.1),
            layers.RandomCrop(12, 12),
            layers.Resizing(10, 10),
            layers.CenterCrop(8, 8),
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.5] * 3, variance=[1.0] * 3),
            layers.GaussianNoise(0.1),
            layers.Dropout(0.1),
            layers.Conv2D(2, 3, activation="swish"),
            layers.GlobalAveragePooling2D(),
        ]
    )


def _recurrent(library):
    layers = library.layers
    image = layers.Input((8, 8, 3))
    rows = layers.Reshape((8, 24))(image)
    rows = layers.MultiHeadAttention(2, 4)(rows, rows)
    rows = layers.GRU(3, return_sequences=True)(layers.LayerNormalization()(rows))
    return library.Model(image, layers.Bidirectional(layers.LSTM(3))(rows))


def _application(name):
    def build(library):
        image = library.layers.Input((64, 64, 3))
        network = getattr(library.applications, name)
        return network(weights=None, input_tensor=image, classes=3)

    return build


def _export(model, path):
    model.export(path, **({} if "tf_keras" in type(model).__module__ else {"verbose": False}))


def _tables(path):
    """A hash table of constants, and one that is open."""
    import tensorflow as tf

    class Tables(tf.Module):
        def __init__(self):
            super().__init__()
            pairs = tf.lookup.KeyValueTensorInitializer(
                tf.constant([0, 1], tf.int64), tf.constant([2.0, 3.0])
            )
            self.fixed = tf.lookup.StaticHashTable(pairs, -1.0)
            self.open = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), name="image")])
        def __call__(self, image):
            best = tf.argmax(tf.reduce_sum(image, [1, 2]), -1)
            return tf.stack([self.fixed.lookup(best), self.open.lookup(best)], -1)

    tables = Tables()
    tf.saved_model.save(tables, str(path), signatures=tables.__call__)


def _served(path):
    """A typical serving model: bytes of pixels in, names out."""
    import keras
    import tensorflow as tf

    class Served(tf.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, "image")])
        def __call__(self, image):
            scores = self.inner(tf.cast(image, tf.float32))
            return {"scores": scores, "label": tf.argmax(scores, -1)}

    served = Served(_plain(keras))
    tf.saved_model.save(served, str(path), signatures=served.__call__)


def _of_tensorflow_1(path, simple):
    """One graph with a saver in it: a sharded one, or a plain one and variables of the old kind."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (None, 8, 8, 3), name="image")
        weights = v1.get_variable("w", (192, 4), use_resource=simple)
        pairs = tf.lookup.KeyValueTensorInitializer(
            tf.constant([0, 1], tf.int64), tf.constant([2.0, 3.0])
        )
        table = v1.lookup.StaticHashTable(pairs, -1.0)
        scores = tf.matmul(tf.reshape(image, (-1, 192)), weights)
        scores = scores + table.lookup(tf.argmax(scores, -1))[:, None]
        ready = v1.tables_initializer()
        session.run([v1.global_variables_initializer(), ready])
        if simple:
            v1.saved_model.simple_save(
                session, str(path), {"image": image}, {"scores": scores}, legacy_init_op=ready
            )
            return
        saver = v1.train.Saver()
        # As estimators do.
        v1.add_to_collection(v1.GraphKeys.SAVERS, saver)
        signature = v1.saved_model.predict_signature_def({"image": image}, {"scores": scores})
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=ready, saver=saver
        )
        builder.save()


def _is_no_code(path):
    raw = (path / "saved_model.pb").read_bytes()
    # The saver exists: only its operators are allowed.
    assert b"SaveV2" in raw
    assert b"RestoreV2" in raw
    assert saved_model.detect(path).code == ()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(_tables, id="tables"),
        pytest.param(_served, id="served"),
        pytest.param(lambda path: _of_tensorflow_1(path, simple=True), id="v1-simple"),
        pytest.param(lambda path: _of_tensorflow_1(path, simple=False), id="v1-builder"),
    ],
)
def test_usual_tensorflow_models_are_not_code(tmp_path, build):
    build(tmp_path / "model")
    _is_no_code(tmp_path / "model")


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(_plain, id="plain"),
        pytest.param(_augmented, id="augmented", marks=pytest.mark.slow),
        pytest.param(_recurrent, id="recurrent", marks=pytest.mark.slow),
        *(
            pytest.param(_application(name), id=name, marks=pytest.mark.slow)
            for name in ("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0")
        ),
    ],
)
@pytest.mark.parametrize("kind", ["tf_keras", "keras"])
def test_saved_keras_models_are_not_code(tmp_path, kind, build):
    import keras
    import tensorflow as tf
    import tf_keras

    library = {"keras": keras, "tf_keras": tf_keras}[kind]
    model = build(library)
    if kind == "keras" or build in (_plain, _augmented):
        _export(model, tmp_path / "export")
        _is_no_code(tmp_path / "export")
    if kind == "tf_keras":
        model.save(tmp_path / "save", save_format="tf")
        _is_no_code(tmp_path / "save")
    elif build is _plain:
        tf.saved_model.save(model, str(tmp_path / "tensorflow"))
        _is_no_code(tmp_path / "tensorflow")


# The list of operators


@pytest.mark.slow
def test_the_list_holds_registered_operators_only():
    """In a process of its own, since converters register more operators in theirs."""
    program = (
        "from tensorflow.core.framework import op_def_pb2\n"
        "from tensorflow.python.client import pywrap_tf_session as session\n"
        "all_ = op_def_pb2.OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList()))\n"
        "print(*(op.name for op in all_.op))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    names = set(process.stdout.split())
    assert saved_model._allowed() <= names
    # Otherwise a function of such a name would hide an operator.
    assert not [n for n in names if not saved_model._OPERATOR_NAME.fullmatch(n)]


# Operators that read, write, connect, print, run other code, or wait for these.
DANGEROUS = re.compile(
    r"File|Dataset|Iterator|Reader|Summary|Debug|Dump|Print|PyFunc|Proto|Save|Restore|Checkpoint"
    r"|Event|Record|Remote|Rpc|Send|Recv|Collective|Nccl|TPU|Tpu|^Xla|TRT|Gcs|LoadAndRemap"
    r"|Vocab|Unigram|CandidateSampler|ImmutableConst|MemoryRegion|Queue|Stage|Barrier|Session"
    r"|Python|Host|Statistics|CustomAggregator|Mlir|RemoteFused|SymbolicGradient|BatchFunction"
    r"|MapDefun|ThreadPool|Server|Abort|Parse|Decode|Encode|Serialize|Regex|StringJoin|Filename"
)


def test_nothing_dangerous_is_on_the_list():
    allowed = saved_model._allowed()
    assert not [name for name in allowed if DANGEROUS.search(name)]
    assert len(allowed) > 300


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_operator_that_is_not_listed_is_refused(graphs, tmp_path_factory, data):
    from tensorflow.core.protobuf import saved_model_pb2

    raw = (graphs / "lambda" / "saved_model.pb").read_bytes()
    model = saved_model_pb2.SavedModel.FromString(raw)
    graph = model.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    node = data.draw(st.sampled_from(nodes))
    listing = sorted(saved_model._allowed())
    near = st.sampled_from(listing).flatmap(
        lambda name: st.sampled_from([name.lower(), f"{name}X", f" {name}", f"_{name}", name[:-1]])
    )
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    name = data.draw((near | text).filter(lambda name: name not in saved_model._allowed()))
    if name != node.op:
        node.op = name
        folder = tmp_path_factory.mktemp("changed")
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        assert f"operation {name} ({node.name})" in saved_model.detect(folder).code


@pytest.mark.parametrize("name", ["k2_saved", "k3_saved", "k2_two_saved"])
def test_a_saved_model_is_detected(model_files, name):
    file = saved_model.detect(model_files / name)
    assert (file.format, file.framework, file.content) == ("saved_model", "saved_model", "model")
    assert file.code == ()


def test_the_hash_covers_all_files(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    first = saved_model.detect(model_files / "k2_saved").sha256
    assert saved_model.detect(copy).sha256 == first
    with (copy / "variables" / "variables.data-00000-of-00001").open("ab") as stream:
        stream.write(b"\0")
    assert saved_model.detect(copy).sha256 != first


def test_the_hash_is_of_the_checked_content(graphs, tmp_path, monkeypatch):
    """Another process replaces the graph by a harmless one as soon as it was read."""
    path = shutil.copytree(graphs / "reads", tmp_path / "reads")
    hostile, real = saved_model.detect(path), inputs.open_file

    @contextlib.contextmanager
    def opened(file, *most):
        with real(file, *most) as stream:
            yield stream
        if file.name == "saved_model.pb":
            shutil.copyfile(graphs / "lambda" / file.name, file)

    monkeypatch.setattr(inputs, "open_file", opened)
    file = saved_model.detect(path)
    assert (file.sha256, file.code) == (hostile.sha256, hostile.code)
    assert file.code


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


def test_the_checkpoint_operators_are_not_code(graphs, model_files):
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


@pytest.mark.parametrize(
    "tag",
    [
        # 32 bits of a key count for some parsers: the same field, written in five bytes and more.
        b"\x92\x80\x80\x80\x10",
        b"\x92\x80\x80\x80\x80\x20",
        # A group, the field number 0, and a kind of field that there is not.
        b"\x13",
        b"\x02",
        b"\x17",
    ],
)
def test_fields_that_parsers_read_differently_are_refused(graphs, tmp_path, tag):
    copy = tmp_path / "copy"
    shutil.copytree(graphs / "lambda", copy)
    whole = (copy / "saved_model.pb").read_bytes()
    (copy / "saved_model.pb").write_bytes(whole + tag + b"\x00")
    with pytest.raises(InputError, match="broken SavedModel"):
        saved_model.detect(copy)


def test_names_that_are_not_text_are_refused(graphs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(graphs / "lambda", copy)
    whole = (copy / "saved_model.pb").read_bytes()
    assert b"Placeholder" in whole
    (copy / "saved_model.pb").write_bytes(whole.replace(b"Placeholder", b"Placehold\xff\xff"))
    with pytest.raises(InputError, match="broken SavedModel"):
        saved_model.detect(copy)


def test_a_text_file_beside_the_graph_is_never_read(graphs, tmp_path):
    """TensorFlow reads saved_model.pbtxt only if there is no saved_model.pb."""
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    copy = tmp_path / "copy"
    shutil.copytree(graphs / "lambda", copy)
    hostile = (graphs / "prints" / "saved_model.pb").read_bytes()
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(hostile))
    (copy / "saved_model.pbtxt").write_text(text)
    assert saved_model.detect(copy).code == ()
    functions = tf.saved_model.load(str(copy)).signatures["serving_default"].graph
    assert "PrintV2" not in {op.type for op in functions.get_operations()}
    (copy / "saved_model.pb").unlink()
    assert saved_model.detect(copy) is None


def test_a_model_without_the_signature_says_what_to_do(graphs):
    with pytest.raises(InputError, match=r"no signature serving_default \(.*other"):
        saved_model.detect(graphs / "nameless")


def test_other_folders_are_not_claimed(tmp_path):
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
    cut_size = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(max_size=20))
    (folder / "saved_model.pb").write_bytes(whole[:cut_size] + junk + whole[cut_size + 10 :])
    # Damage in unread parts leaves a SavedModel; all other damage is refused without a crash.
    with contextlib.suppress(InputError):
        assert saved_model.detect(folder).format == "saved_model"
    (folder / "saved_model.pb").write_bytes(whole[:cut_size])
    with pytest.raises(InputError, match=r"broken|no graph|no signature") as excinfo:
        saved_model.detect(folder)
    assert "\n" not in str(excinfo.value)


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
