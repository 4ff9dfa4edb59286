"""SavedModels that do harm when they are loaded or called. Nothing here runs while it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.trackable import resource

from tests.hostile.files import Hostile

v1 = tf.compat.v1
IMAGE = (1, 8, 8, 3)


class Initialized(resource.CapturableResource):  # type: ignore[misc]
    """Something that does `action` when TensorFlow initializes it, which loading does."""

    def __init__(self, action: Callable[[], Any] = tf.no_op) -> None:
        super().__init__()
        self.action = action

    def _create_resource(self) -> Any:
        return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

    def _initialize(self) -> Any:
        # TensorFlow keeps a check, and so what stands before it.
        with tf.control_dependencies([self.action()]):
            tf.raw_ops.Assert(condition=True, data=[""])


def _saved(folder: Path, answer: Callable[[Any], Any], **attributes: Any) -> Path:
    """A module with these attributes, whose signature answers an image with `answer`."""
    module = tf.Module()
    module.v = tf.Variable(1.0)
    for name, value in attributes.items():
        setattr(module, name, value)
    serve = tf.function(lambda image: answer(image) * module.v)
    concrete = serve.get_concrete_function(tf.TensorSpec(IMAGE, tf.float32, name="image"))
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    return folder


def _same(image: Any) -> Any:
    return image


def _calling(action: Callable[[Path], Any]) -> Callable[[Path, Path], Path]:
    """An answer to an image does `action` with the canary besides."""

    def write(folder: Path, canary: Path) -> Path:
        def answer(image: Any) -> Any:
            # Even what has no side effect for TensorFlow is run when the answer waits for it.
            with tf.control_dependencies(tf.nest.flatten(action(canary), expand_composites=True)):
                return tf.identity(image)

        return _saved(folder, answer)

    return write


def _initializing(action: Callable[[Path], Any]) -> Callable[[Path, Path], Path]:
    """Loading the model does `action` with the canary."""
    return lambda folder, canary: _saved(folder, _same, own=Initialized(lambda: action(canary)))


def _edited(folder: Path, edit: Callable[[meta_graph_pb2.MetaGraphDef], Any]) -> Path:
    """The SavedModel with its MetaGraph changed."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    return folder


def _function(graph: meta_graph_pb2.MetaGraphDef, part: str) -> function_pb2.FunctionDef:
    (found,) = (f for f in graph.graph_def.library.function if part in f.signature.name)
    return found


# Operators that are no computation


def _writes(canary: Path) -> Any:
    return tf.io.write_file(str(canary), "here")


def _save(canary: Path) -> Any:
    return tf.raw_ops.Save(filename=str(canary), tensor_names=["a"], data=[tf.constant(1.0)])


def _save_v2(canary: Path) -> Any:
    return tf.raw_ops.SaveV2(
        prefix=str(canary), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
    )


def _debug_identity(canary: Path) -> Any:
    return tf.raw_ops.DebugIdentity(
        input=tf.constant(1.0), tensor_name="a:0", debug_urls=[f"file://{canary}"]
    )


def _decodes(canary: Path) -> Any:
    return tf.raw_ops.DecodeProtoV2(
        bytes=[b""],
        message_type="A",
        field_names=[],
        output_types=[],
        descriptor_source=str(canary),
    )


def _prints(canary: Path) -> Any:
    return tf.print("here", output_stream=f"file://{canary}")


def _summary(canary: Path) -> Any:
    writer = tf.raw_ops.SummaryWriter(shared_name="w", container="")
    return tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=str(canary), max_queue=1, flush_millis=1, filename_suffix="x"
    )


def _records(canary: Path) -> Any:
    lines = tf.raw_ops.TensorSliceDataset(components=[tf.constant(["here"])], output_shapes=[()])
    return tf.raw_ops.DatasetToTFRecord(
        input_dataset=lines, filename=str(canary), compression_type=tf.constant("")
    )


def _reads_lines(canary: Path) -> Any:
    return tf.data.TextLineDataset(str(canary)).reduce(tf.constant(""), lambda _, line: line)


def _python(_: Path) -> Any:
    return tf.py_function(lambda: None, [], [])


def _restores(canary: Path) -> Any:
    return tf.raw_ops.RestoreV2(
        prefix=str(canary), tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )


def _maps_memory(canary: Path) -> Any:
    return tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=(1,), memory_region_name=str(canary))


def _samples(canary: Path) -> Any:
    return tf.raw_ops.FixedUnigramCandidateSampler(
        true_classes=[[0]],
        num_true=1,
        num_sampled=1,
        unique=True,
        range_max=2,
        vocab_file=str(canary),
    )


def _in_a_branch(folder: Path, canary: Path) -> Path:
    def wrote(image: Any) -> Any:
        _writes(canary)
        return image

    def answer(image: Any) -> Any:
        return tf.cond(tf.reduce_sum(image) < 1e9, lambda: wrote(image), lambda: image)

    return _saved(folder, answer)


def _in_a_loop(folder: Path, canary: Path) -> Path:
    def wrote(step: Any) -> Any:
        _writes(canary)
        return step + 1

    def answer(image: Any) -> Any:
        (steps,) = tf.while_loop(lambda step: step < 2, wrote, [tf.constant(0)])
        return image * tf.cast(steps, tf.float32)

    return _saved(folder, answer)


def _never_called(folder: Path, canary: Path) -> Path:
    @tf.function(input_signature=[])
    def never() -> None:
        _writes(canary)

    return _saved(folder, _same, never=never)


def _merges(folder: Path, canary: Path) -> Path:
    def merge(_: Path) -> Any:
        return tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[str(folder / "variables" / "variables")],
            destination_prefix=str(canary),
        )

    return _calling(merge)(folder, canary)


def _text_file(folder: Path, _: Path) -> Path:
    words = folder.with_name(f"{folder.name}-words")
    words.write_text("a\nb\n")
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(words),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )
    return _saved(folder, _same, table=table)


# The saver, used for something else


def _adds_save(graph: meta_graph_pb2.MetaGraphDef, nodes: Any, canary: Path) -> None:
    """A call of the saver's function among `nodes`: all that it needs are constants."""
    saver = _function(graph, "traced_save")
    inputs = []
    for number, argument in enumerate(saver.signature.input_arg):
        node = nodes.add(name=f"hostile_{number}")
        node.attr["dtype"].type = argument.type
        if argument.type == tf.resource.as_datatype_enum:
            node.op = "VarHandleOp"
            node.attr["dtype"].type = tf.float32.as_datatype_enum
            node.attr["shape"].shape.SetInParent()
            inputs.append(f"{node.name}:resource:0")
            continue
        node.op = "Const"
        value = str(canary) if not number else "" if argument.type == tf.string else 0
        node.attr["value"].tensor.CopyFrom(
            tf.make_tensor_proto(value, dtype=tf.as_dtype(argument.type), shape=())
        )
        inputs.append(f"{node.name}:output:0")
    call = nodes.add(name="hostile", op="StatefulPartitionedCall", input=inputs)
    types = [argument.type for argument in saver.signature.input_arg]
    call.attr["Tin"].list.type.extend(types)
    call.attr["Tout"].list.type.append(tf.string.as_datatype_enum)
    call.attr["f"].func.name = saver.signature.name


def _without_variables(folder: Path, **attributes: Any) -> Path:
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    concrete = tf.function(lambda image: image + 1.0).get_concrete_function(
        tf.TensorSpec(IMAGE, tf.float32, name="image")
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    return folder


def _signature_saves(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        function = _function(graph, "signature_wrapper")
        _adds_save(graph, function.node_def, canary)
        function.control_ret["hostile"] = "hostile"
        function.signature.control_output.append("hostile")
        function.signature.is_stateful = True

    return _edited(_without_variables(folder), edit)


def _initializer_saves(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        function = _function(graph, "initializer")
        _adds_save(graph, function.node_def, canary)
        function.control_ret["hostile"] = "hostile"
        function.signature.control_output.append("hostile")
        function.signature.is_stateful = True

    own = Initialized()
    return _edited(_without_variables(folder, own=own), edit)


def _restore_saves(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        function = _function(graph, "traced_restore")
        _adds_save(graph, function.node_def, canary)
        function.control_ret["hostile"] = "hostile"
        function.signature.control_output.append("hostile")
        # Without objects it is loaded as TensorFlow 1 does, by the operation that restores.
        graph.ClearField("object_graph_def")

    return _edited(_without_variables(folder), edit)


def _gradient_saves(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        library = graph.graph_def.library
        library.registered_gradients.add(
            gradient_func=_function(graph, "traced_save").signature.name,
            registered_op_type="CustomGradient-1",
        )

    return _edited(_without_variables(folder), edit)


def _implementation_saves(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        # TensorFlow's optimizer may put one function of the same mark in the place of another.
        for part in ("traced_save", "signature_wrapper"):
            _function(graph, part).attr["api_implements"].s = b"answer"

    return _edited(_without_variables(folder), edit)


def _object_saves(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        objects = graph.object_graph_def
        name = _function(graph, "traced_save").signature.name
        objects.concrete_functions[name].SetInParent()
        node = objects.nodes.add()
        node.bare_concrete_function.concrete_function_name = name
        objects.nodes[0].children.add(node_id=len(objects.nodes) - 1, local_name="_initialize")

    return _edited(_without_variables(folder), edit)


def _save_is_consumed(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        node = graph.saver_def.save_tensor_name.partition(":")[0]
        initializer = graph.collection_def["saved_model_main_op"].node_list.value[0]
        (first,) = (n for n in graph.graph_def.node if n.name == initializer)
        first.input.append(f"^{node}")

    return _edited(_without_variables(folder), edit)


def _restores_another(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        function = _function(graph, "traced_restore")
        node = function.node_def.add(name="path", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(canary)))
        (restore,) = (n for n in function.node_def if n.op == "RestoreV2")
        restore.input[0] = "path:output:0"

    return _edited(_saved(folder, _same), edit)


def _restore_is_given_another(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        node = graph.graph_def.node.add(name="path", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(canary)))
        (call,) = (n for n in graph.graph_def.node if n.name == graph.saver_def.restore_op_name)
        call.input[0] = "path"

    return _edited(_saved(folder, _same), edit)


def _path_from_elsewhere(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        # TensorFlow feeds the second tensor, and the first is computed.
        node = graph.graph_def.node.add(name="path", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([str(canary), ""]))
        split = graph.graph_def.node.add(name="both", op="Unpack", input=["path"])
        split.attr["T"].type = tf.string.as_datatype_enum
        split.attr["num"].i = 2
        (call,) = (n for n in graph.graph_def.node if n.name == graph.saver_def.restore_op_name)
        call.input[0] = "both"
        graph.saver_def.filename_tensor_name = "both:1"

    return _edited(_saved(folder, _same), edit)


# The file itself


def _shadows(folder: Path, canary: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        function = graph.graph_def.library.function.add()
        function.signature.name = "WriteFile"
        for name in ("filename", "contents"):
            function.signature.input_arg.add(name=name, type=tf.string.as_datatype_enum)

    return _edited(_calling(_writes)(folder, canary), edit)


def _hands_over(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        calls = (n for n in graph.graph_def.node if n.op in ("PartitionedCall", "NoOp"))
        call = next(calls)
        call.attr["f"].func.name = _function(graph, "signature_wrapper").signature.name
        # The name that the saver's function will have once it is loaded can be guessed.
        call.attr["f"].func.attr["g"].func.name = "__inference__traced_save_99"

    return _edited(_without_variables(folder), edit)


def _other_tags(folder: Path, canary: Path) -> Path:
    _calling(_writes)(folder, canary)
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    _without_variables(folder.with_name(f"{folder.name}-good"))
    good = (folder.with_name(f"{folder.name}-good") / "saved_model.pb").read_bytes()
    hostile = model.meta_graphs[0]
    hostile.meta_info_def.tags[:] = ["train"]
    model.meta_graphs.insert(0, saved_model_pb2.SavedModel.FromString(good).meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    return folder


def _in_parts(folder: Path, canary: Path) -> Path:
    _calling(_writes)(folder, canary)
    path = folder / "saved_model.pb"
    whole = path.read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(whole).meta_graphs[0].SerializeToString()
    # A second, empty graph_def: a reader that takes the last one sees no nodes.
    graph += b"\x12\x00"
    size, length = len(graph), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    path.write_bytes(b"\x08\x01\x12" + length + bytes([size]) + graph)
    return folder


def _asset_outside(folder: Path, _: Path) -> Path:
    def edit(graph: meta_graph_pb2.MetaGraphDef) -> None:
        asset = graph.asset_file_def.add(filename="../../../etc/passwd")
        asset.tensor_info.name = "saver_filename:0"

    return _edited(_without_variables(folder), edit)


# TensorFlow 1: one graph, whose saver is among its nodes


def _v1(
    folder: Path, build: Callable[[Any, Any], dict[str, Any]], canary: Path, own: bool = True
) -> Path:
    """A graph with a variable and a saver.

    `build(scores, save)` is what the signature answers, or {"main_op": ...} to run on load.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (None, 8, 8, 3), name="image")
        weights = v1.get_variable("w", (192, 4), use_resource=True)
        scores = tf.matmul(tf.reshape(image, (-1, 192)), weights)
        saver = v1.train.Saver(filename=str(canary))
        save = v1.get_default_graph().get_tensor_by_name(saver.saver_def.save_tensor_name)
        built = build(scores, save)
        main = built.pop("main_op", None)
        signature = v1.saved_model.predict_signature_def({"image": image}, built or {"y": scores})
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=main,
            saver=saver if own else None,
        )
        builder.save()
    return folder


def _v1_after(scores: Any, save: Any) -> dict[str, Any]:
    with tf.control_dependencies([save]):
        return {"y": tf.identity(scores)}


def _v1_collected(scores: Any, save: Any) -> dict[str, Any]:
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, save.op)
    return {"y": scores}


def _v1_writing(folder: Path, canary: Path) -> Path:
    def build(_: Any, __: Any) -> dict[str, Any]:
        return {"main_op": tf.io.write_file(str(canary), "here")}

    return _v1(folder, build, canary)


FILES: tuple[Hostile, ...] = (
    Hostile("initializer-save", _initializing(_save), "Save"),
    Hostile("initializer-save-v2", _initializing(_save_v2), "SaveV2"),
    Hostile("initializer-write-file", _initializing(_writes), "WriteFile"),
    Hostile("save-v2", _calling(_save_v2), "SaveV2"),
    Hostile("debug-identity", _calling(_debug_identity), "DebugIdentity"),
    Hostile("decode-proto", _calling(_decodes), "DecodeProtoV2", runs=False),
    Hostile("unreachable-write-file", _never_called, "WriteFile", runs=False),
    Hostile("branch-write-file", _in_a_branch, "WriteFile"),
    Hostile("loop-write-file", _in_a_loop, "WriteFile"),
    Hostile("read-file", _calling(lambda c: tf.io.read_file(str(c))), "ReadFile", runs=False),
    Hostile("immutable-const", _calling(_maps_memory), "ImmutableConst", runs=False),
    Hostile("vocabulary", _calling(_samples), "FixedUnigramCandidateSampler", runs=False),
    Hostile("python", _calling(_python), "PyFunc", runs=False),
    Hostile("print", _calling(_prints), "PrintV2"),
    Hostile("summary", _calling(_summary), "SummaryWriter"),
    Hostile("records", _calling(_records), "Dataset"),
    Hostile("lines", _calling(_reads_lines), "Dataset", runs=False),
    Hostile("merge", _merges, "MergeV2Checkpoints"),
    Hostile("restore", _calling(_restores), "RestoreV2", runs=False),
    Hostile("text-file-table", _text_file, "InitializeTableFromTextFileV2", runs=False),
    Hostile("saver-in-signature", _signature_saves, "SaveV2"),
    Hostile("saver-in-initializer", _initializer_saves, "SaveV2"),
    Hostile("saver-in-restore", _restore_saves, "SaveV2"),
    Hostile("saver-as-gradient", _gradient_saves, "SaveV2", runs=False),
    Hostile("saver-as-implementation", _implementation_saves, "SaveV2", runs=False),
    Hostile("saver-as-object", _object_saves, "SaveV2", runs=False),
    Hostile("saver-consumed", _save_is_consumed, "SaveV2", runs=False),
    Hostile("restore-of-a-constant", _restores_another, "RestoreV2", runs=False),
    Hostile("restore-given-a-constant", _restore_is_given_another, "RestoreV2", runs=False),
    Hostile("restore-of-another-tensor", _path_from_elsewhere, "RestoreV2", runs=False),
    Hostile("shadow", _shadows, "function WriteFile that is named like", runs=False),
    Hostile("handed-over", _hands_over, "function handed over", runs=False),
    Hostile("other-tags", _other_tags, "WriteFile", runs=False),
    Hostile("in-parts", _in_parts, "WriteFile"),
    Hostile("asset-outside", _asset_outside, "asset ../../../etc/passwd", runs=False),
    Hostile("v1-main-op-write-file", _v1_writing, "WriteFile"),
    Hostile("v1-saver-before-signature", lambda f, c: _v1(f, _v1_after, c), "SaveV2"),
    Hostile(
        "v1-saver-is-signature",
        lambda f, c: _v1(f, lambda y, save: {"y": y, "path": save}, c),
        "SaveV2",
    ),
    Hostile(
        "v1-saver-is-main-op",
        lambda f, c: _v1(f, lambda _, save: {"main_op": save.op}, c),
        "SaveV2",
    ),
    Hostile("v1-saver-in-collection", lambda f, c: _v1(f, _v1_collected, c), "SaveV2"),
    Hostile("v1-other-saver", lambda f, c: _v1(f, _v1_after, c, own=False), "SaveV2"),
)
