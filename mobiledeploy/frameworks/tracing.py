"""Any framework's model as one frozen TensorFlow graph with a static batch of 1."""

from __future__ import annotations

import dataclasses
import heapq
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Layer, Model, Output, Tensor
from mobiledeploy.frameworks import loading

tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", module=r"tensorflow|tf_keras|keras")

_SHAPING = ("Reshape", "Squeeze", "ExpandDims")


@dataclass(frozen=True)
class FrozenModel:
    """Frozen functions, images [1, H, W, 3] float32 -> [1, classes].

    `logits` is cut before the softmax; `scores` ends in the model's own, None where it has none:
    then `logits` is all that the model answers. `variables` are those that they read.
    """

    logits: Any
    scores: Any | None
    variables: tuple[tf.Variable, ...] = ()

    def _own(self, output: Output) -> Any | None:
        """Its own function that ends so; None where a softmax has to be added."""
        if output == "softmax":
            return self.scores
        return self.logits if output == "logits" or self.scores is None else self.scores

    def ending(self, output: Output) -> Any:
        """A ConcreteFunction image -> {"scores"} that ends as an artifact shall."""
        frozen = self._own(output)

        def serve(image: Any) -> dict[str, Any]:
            if frozen is None:
                return {"scores": tf.nn.softmax(self.logits(image)[0])}
            return {"scores": frozen(image)[0]}

        spec = tf.TensorSpec(self.logits.inputs[0].shape, tf.float32, name="image")
        return tf.function(serve).get_concrete_function(spec)

    def save(self, output: Output, folder: Path) -> None:
        """A SavedModel with the signature serving_default, image -> scores.

        A bare module is saved instead of the Keras model: TFLiteConverter's own way has every
        layer of it traced again, which takes most of the time of a conversion. UsageError where
        `folder`, a temporary one, cannot be written.
        """
        ending = self.ending(output)
        # A gradient that a layer brings, as swish does, cannot be traced without its variables.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        module = tf.Module()
        module.read = self.variables
        with loading.writing_temporary(tf.errors.OpError):
            tf.saved_model.save(module, str(folder), {"serving_default": ending}, options=options)

    def draws_numbers(self) -> bool:
        """Whether random numbers are drawn on the way to its answers."""
        return any("Random" in op.type for op in self.logits.graph.get_operations())

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [N, classes] of preprocessed images [N, H, W, 3]: the float reference.

        InputError where TensorFlow cannot compute them.
        """
        with loading.refusing("TensorFlow cannot run the model", tf.errors.OpError):
            rows = [self.logits(tf.constant(image[None]))[0].numpy()[0] for image in images]
        return np.asarray(rows, np.float32)


def inference(model: Model) -> tuple[Callable[[Any], Any], Sequence[Any]]:
    """Images [N, H, W, 3] float32 -> answers, without dropout and the like; its variables."""
    handle = model.handle
    return lambda images: handle(images, training=False), handle.variables


def freeze(model: Model, resolution: tuple[int, int]) -> FrozenModel:
    """The model as functions of one image, at `resolution` (height, width).

    Weights stay the variables that they are, for each copy of a large network's counts. Where the
    graph has calls in it, as that of a SavedModel, or computes in halves, they become constants.
    InputError where TensorFlow cannot trace it there, and for more than one output.
    """
    height, width = resolution
    with loading.refusing(
        f"TensorFlow cannot run the model on one {height}x{width} image", tf.errors.OpError
    ):
        call, variables = inference(model)
        spec = tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
        frozen = _flat(call, spec)
        read = _read_by(frozen, variables)
        if read is None:
            concrete = tf.function(lambda image: call(image)).get_concrete_function(spec)
            frozen, read = _in_float32(convert_variables_to_constants_v2(concrete)), ()
        del variables  # The graph's captures hold them.
    if len(frozen.outputs) != 1:
        raise InputError(f"the model has {len(frozen.outputs)} outputs; one is needed")
    last = frozen.outputs[0].op
    shaped = False
    while _keeps_values(last):
        shaped |= last.type != "Identity"
        last = last.inputs[0].op
    # Fetched as lists, so that every pruned function answers with one.
    image = frozen.inputs[:1]
    own = frozen.prune(image, [frozen.outputs[0]])
    if last.type != "Softmax":
        return FrozenModel(own, None, read)
    before = frozen.prune(image, [last.inputs[0]])
    if not shaped:
        return FrozenModel(before, frozen.prune(image, [last.outputs[0]]), read)
    inner = last.inputs[0].shape
    if inner.num_elements() is None or inner.num_elements() != inner[-1]:
        return FrozenModel(own, None, read)  # A softmax over something else than the classes.
    # What shapes the scores shapes the logits instead, so that the softmax stands at the very end.
    logits = _refrozen(
        lambda image: tf.cast(tf.reshape(before(image)[0], (1, -1)), tf.float32), spec
    )
    return FrozenModel(logits, _refrozen(lambda image: tf.nn.softmax(logits(image)[0]), spec))


_CALLS = ("PartitionedCall", "While", "If", "Case")


def _flat(call: Callable[[Any], Any], spec: tf.TensorSpec) -> Any:
    """A function of one graph, with the model's variables as they are."""
    with _in_its_place():
        return tf.compat.v1.wrap_function(lambda image: call(image), [spec])


@contextmanager
def _in_its_place() -> Iterator[None]:
    """What Keras compiles by XLA is traced in its place, not as a call that hides it."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _read_by(flat: Any, variables: Sequence[Any]) -> tuple[tf.Variable, ...] | None:
    """The variables that a graph reads; None where it is none that can stay as it is."""
    own = [v if isinstance(v, tf.Variable) else v.value for v in variables]
    known = {id(variable.handle) for variable in own}
    resources = [t for t in flat.captured_inputs if t.dtype == tf.resource]
    ops = flat.graph.get_operations()
    calls = any(op.type.removeprefix("Stateful").removeprefix("Stateless") in _CALLS for op in ops)
    halves = any(tensor.dtype in _HALF for op in ops for tensor in op.outputs)
    if calls or halves or any(id(resource) not in known for resource in resources):
        return None
    return tuple(own)


_HALF = (tf.float16, tf.bfloat16)


def _in_float32(frozen: Any) -> Any:
    """The frozen function with float32 in the place of the halves that mixed precision trains in.

    Weights and sums of float16 have few bits; TFLite would keep them, in operators that it lacks.
    """
    tensors = (tensor for op in frozen.graph.get_operations() for tensor in op.outputs)
    if not any(tensor.dtype in _HALF for tensor in tensors):
        return frozen
    definition = frozen.graph.as_graph_def()
    functions = definition.library.function
    wide, halves = tf.float32.as_datatype_enum, {dtype.as_datatype_enum for dtype in _HALF}
    for node in (*definition.node, *(node for f in functions for node in f.node_def)):
        for value in node.attr.values():
            if value.type in halves:
                value.type = wide
            for place, dtype in enumerate(value.list.type):
                if dtype in halves:
                    value.list.type[place] = wide
            if value.tensor.dtype in halves:
                numbers = tf.make_ndarray(value.tensor).astype(np.float32)
                value.tensor.CopyFrom(tf.make_tensor_proto(numbers))
    for function in functions:
        for end in (*function.signature.input_arg, *function.signature.output_arg):
            if end.type in halves:
                end.type = wide
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    return whole.prune([t.name for t in frozen.inputs], [t.name for t in frozen.outputs])


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model learns (`trainable`), and holds in all, moving statistics too."""

    trainable: int
    total: int


def parameters(model: Model) -> Parameters:
    """Those of the model's variables that hold floats."""
    _, variables = inference(model)
    sizes = [
        (math.prod(v.shape), bool(v.trainable))
        for v in variables
        if tf.as_dtype(v.dtype).is_floating
    ]
    return Parameters(sum(n for n, own in sizes if own), sum(n for n, _ in sizes))


def layers(model: Model, resolution: tuple[int, int]) -> tuple[Layer, ...]:
    """The model's operators in execution order, for one image of `resolution` (height, width).

    Constant are the model's variables; other numbers that its code holds, and shapes, are left out.
    What is computed of variables alone stands as these variables where it is read. A bias belongs
    to the operator that it is added to. Names are those of the model's own layers.

    InputError where TensorFlow cannot trace it.
    """
    concrete = _traced(model, resolution)
    # By operator: what it holds, the variables that it is computed of.
    weights: dict[str, tuple[Tensor, ...]] = {
        tensor.op.name: () for _, tensor in concrete.graph.captures
    }
    rows: list[Layer] = []
    for op in _in_order(concrete.outputs[0].op):
        fixed = _constant(op, weights)
        if fixed is not None:
            weights[op.name] = fixed
        elif op.type not in ("Placeholder", "Identity") and op.outputs:
            inputs = [_read(tensor, weights) for tensor in op.inputs]
            output = _tensor(op.outputs[0])
            rows.append(Layer(op.name, op.type, tuple(t for ts in inputs for t in ts), (output,)))
    rows = _with_their_biases(rows)
    names = _short_names([row.name for row in rows])
    return tuple(dataclasses.replace(row, name=names[row.name]) for row in rows)


def _traced(model: Model, resolution: tuple[int, int]) -> Any:
    """A ConcreteFunction of the model without function calls in it; its variables as they are."""
    height, width = resolution
    with loading.refusing(
        f"TensorFlow cannot run the model on one {height}x{width} image", tf.errors.OpError
    ):
        call, variables = inference(model)
        spec = tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
        with _in_its_place():
            concrete = tf.function(lambda image: call(image)).get_concrete_function(spec)
        if any("PartitionedCall" in op.type for op in concrete.graph.get_operations()):
            # A SavedModel is made of calls; freezing takes their insides out.
            concrete = convert_variables_to_constants_v2(concrete)
        del variables  # The graph's captures hold them, and from then on constants.
    return concrete


def _in_order(last: Any) -> list[Any]:
    """What `last` depends on, each operator after all that it reads, as the graph lists them."""
    needed, waiting = {last}, [last]
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op not in needed:
                needed.add(tensor.op)
                waiting.append(tensor.op)
    # The first of what is ready, so that branches are walked as the graph lists them.
    number = {op: n for n, op in enumerate(last.graph.get_operations()) if op in needed}
    makers = {op: {tensor.op for tensor in op.inputs} for op in number}
    readers: dict[Any, list[Any]] = {op: [] for op in number}
    for op, made in makers.items():
        for maker in made:
            readers[maker].append(op)
    ready = [(number[op], op.name) for op, made in makers.items() if not made]
    heapq.heapify(ready)
    order: list[Any] = []
    while ready:
        op = last.graph.get_operation_by_name(heapq.heappop(ready)[1])
        order.append(op)
        for reader in readers[op]:
            makers[reader].discard(op)
            if not makers[reader]:
                heapq.heappush(ready, (number[reader], reader.name))
    return order


def _constant(op: Any, weights: dict[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...] | None:
    """The variables that `op` is computed of, none for a plain number; None for an activation."""
    if op.type == "Const" or op.name in weights:
        return weights.get(op.name, ())
    # Frozen, a variable is a constant, and its reading an Identity of it.
    frozen = op.type == "Identity" and "ReadVariableOp" in op.name.rpartition("/")[2]
    if op.type == "ReadVariableOp" or frozen:
        source = _behind_identities(op.inputs[0])
        if source.op.type in ("Const", "Placeholder"):
            value = _tensor(op.outputs[0])
            return (dataclasses.replace(value, name=source.name, constant=True),)
    if not op.inputs or any(tensor.op.name not in weights for tensor in op.inputs):
        return None
    sources = {t.name: t for tensor in op.inputs for t in weights[tensor.op.name]}
    if len(sources) == 1 and op.outputs:
        (source,) = sources.values()
        shape = _tensor(op.outputs[0]).shape
        if math.prod(shape) == math.prod(source.shape):
            return (dataclasses.replace(source, shape=shape),)
    return tuple(sources.values())


def _read(tensor: Any, weights: dict[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if tensor.op.name in weights:
        return weights[tensor.op.name]
    return (_tensor(_behind_identities(tensor)),)


def _behind_identities(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _tensor(tensor: Any) -> Tensor:
    shape = () if tensor.shape.rank is None else tuple(side or 0 for side in tensor.shape)
    return Tensor(tensor.name, shape, tensor.dtype.base_dtype.name)


def _with_their_biases(rows: list[Layer]) -> list[Layer]:
    """A BiasAdd, or a sum with a vector of weights, joined with the operator before it."""
    readers = Counter(tensor.name for row in rows for tensor in row.inputs)
    joined: list[Layer] = []
    makers: dict[str, int] = {}
    for row in rows:
        fixed = [t for t in row.inputs if t.constant]
        bias = [t for t in fixed if t.shape and math.prod(t.shape) == t.shape[-1]]
        before = makers.get(row.inputs[0].name) if row.inputs else None
        if (
            row.op in ("BiasAdd", "AddV2")
            and len(fixed) == len(bias) == 1
            and before is not None
            and any(t.constant for t in joined[before].inputs)
            and readers[row.inputs[0].name] == 1
        ):
            vector = dataclasses.replace(bias[0], shape=bias[0].shape[-1:])
            inputs = (*joined[before].inputs, vector)
            joined[before] = dataclasses.replace(joined[before], inputs=inputs, outputs=row.outputs)
            makers[row.outputs[0].name] = before
            continue
        makers[row.outputs[0].name] = len(joined)
        joined.append(row)
    return joined


def _short_names(names: list[str]) -> dict[str, str]:
    """Without what all begin with, and without the operator's own name where one is left so."""
    paths = [name.split("/") for name in names]
    shared = 0
    while all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    scopes = Counter("/".join(path[shared:-1]) for path in paths)
    return {
        name: scope
        if (scope := "/".join(path[shared:-1])) and scopes[scope] == 1
        else "/".join(path[shared:])
        for name, path in zip(names, paths, strict=True)
    }


def _keeps_values(op: Any) -> bool:
    """Whether `op` hands its input on, in another shape or float type."""
    if op.type == "Cast":
        return bool(op.inputs[0].dtype.is_floating and op.outputs[0].dtype.is_floating)
    return op.type == "Identity" or op.type in _SHAPING


def _refrozen(call: Callable[[Any], Any], spec: Any) -> Any:
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))
    return frozen.prune(frozen.inputs, [frozen.outputs[0]])
