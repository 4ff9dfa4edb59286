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

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.types import Layer, Model, NetworkInput, Output, Tensor
from mobiledeploy.frameworks import loading

tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", module=r"tensorflow|tf_keras|keras")

_SHAPING = ("Reshape", "Squeeze", "ExpandDims")


@dataclass(frozen=True)
class FrozenModel:
    """Frozen functions of one sample, a tensor for each input -> a list of the outputs.

    `logits` ends before the softmax of a single output; `scores` ends in the model's own softmax,
    None if it has none: then `logits` is the model's answer. `variables` are those that they read.
    """

    logits: Any
    scores: Any | None
    variables: tuple[tf.Variable, ...] = ()

    def _own(self, output: Output) -> Any | None:
        """Its own function with this output; None if a softmax has to be added."""
        if output == "softmax":
            return self.scores
        return self.logits if output == "logits" or self.scores is None else self.scores

    def ending(self, output: Output) -> Any:
        """A ConcreteFunction with the outputs of an artifact, by `input_key` and `output_key`."""
        own_function = self._own(output)

        def serve(*tensors: Any) -> dict[str, Any]:
            if own_function is None:
                answers = [tf.nn.softmax(self.logits(*tensors)[0])]
            else:
                answers = own_function(*tensors)
            return {output_key(number): answer for number, answer in enumerate(answers)}

        specs = [
            tf.TensorSpec(tensor.shape, tensor.dtype, name=input_key(number))
            for number, tensor in enumerate(self._inputs)
        ]
        return tf.function(serve).get_concrete_function(*specs)

    @property
    def _inputs(self) -> list[Any]:
        return _arguments(self.logits)

    def save(self, output: Output, folder: Path) -> None:
        """A SavedModel with the signature serving_default.

        A plain module is saved instead of the Keras model: TFLiteConverter would trace every layer
        again, which takes most of the time of a conversion. UsageError if `folder`, a temporary
        one, cannot be written.
        """
        ending = self.ending(output)
        # A layer's own gradient, such as that of swish, cannot be traced without its variables.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        module = tf.Module()
        module.read = self.variables
        with loading.writing_temporary(tf.errors.OpError):
            tf.saved_model.save(module, str(folder), {"serving_default": ending}, options=options)

    def draws_numbers(self) -> bool:
        """Whether the answers depend on random numbers."""
        return any("Random" in op.type for op in self.logits.graph.get_operations())

    def run(self, samples: Batch) -> tuple[NDArray[np.float32], ...]:
        """The outputs of `logits` for N samples, [N, ...] each: the float reference.

        InputError if TensorFlow cannot compute them.
        """
        rows = []
        with loading.refusing("TensorFlow cannot run the model", tf.errors.OpError):
            for sample in samples:
                tensors = [
                    # A model of a fixed batch takes the sample that often.
                    tf.constant(np.repeat(values, tensor.shape[0], axis=0), tensor.dtype)
                    for values, tensor in zip(sample.arrays, self._inputs, strict=True)
                ]
                rows.append([answer.numpy()[0] for answer in self.logits(*tensors)])
        return tuple(np.asarray(answer, np.float32) for answer in zip(*rows, strict=True))


def input_key(number: int) -> str:
    """The name of an input in the signature of a SavedModel; the names sort as the numbers."""
    return f"input_{number:03}"


def output_key(number: int) -> str:
    """As `input_key`."""
    return f"output_{number:03}"


def inference(model: Model) -> tuple[Callable[..., Any], Sequence[Any]]:
    """(a tensor for each input -> the list of outputs in inference mode, the model's variables).

    Images are channels-last; a model without `inputs` gets its tensors as they are.
    """
    handle = model.handle
    places = [n for n, one in enumerate(model.inputs) if one.channels_first]

    def call(*tensors: Any) -> Any:
        own = [tf.transpose(t, (0, 3, 1, 2)) if n in places else t for n, t in enumerate(tensors)]
        return tf.nest.flatten(handle(_packed(handle, own), training=False))

    return call, handle.variables


def _packed(handle: Any, tensors: Sequence[Any]) -> Any:
    """The tensors in the structure that the model takes them in; they are in its flat order."""
    if len(tensors) == 1:
        return tensors[0]
    # Keras 2, Keras 3; a signature of a SavedModel has its own order.
    structure = getattr(handle, "_nested_inputs", None) or getattr(handle, "_inputs_struct", None)
    return list(tensors) if structure is None else tf.nest.pack_sequence_as(structure, tensors)


def specs_of(inputs: Sequence[NetworkInput]) -> list[Any]:
    """What TensorFlow traces a model with: one sample, or the model's fixed batch."""
    return [
        tf.TensorSpec((one.batch, *one.end.shape), one.end.dtype, name=input_key(number))
        for number, one in enumerate(inputs)
    ]


def _size(inputs: Sequence[NetworkInput]) -> str:
    """The inputs in words, for an error."""
    end = inputs[0].end
    if len(inputs) == 1 and end.kind == "image":
        height, width, _ = end.shape
        return f"one {height}x{width} image"
    return f"its {len(inputs)} inputs"


def freeze(model: Model) -> FrozenModel:
    """The model as functions of one sample.

    Weights stay variables, since each copy of a large network's weights costs memory. If the graph
    has calls, as in a SavedModel, or half precision, they become constants. InputError if
    TensorFlow cannot trace the model at this size.
    """
    specs = specs_of(model.inputs)
    with loading.refusing(
        f"TensorFlow cannot run the model on {_size(model.inputs)}", tf.errors.OpError
    ):
        call, variables = inference(model)
        function = _flat(call, specs)
        read_variables = _variables_of(function, variables)
        if read_variables is None:
            concrete = tf.function(lambda *tensors: call(*tensors)).get_concrete_function(*specs)
            function, read_variables = _in_float32(convert_variables_to_constants_v2(concrete)), ()
        del variables  # The graph's captures hold them.
    images = _arguments(function)
    if len(function.outputs) > 1:
        return FrozenModel(function.prune(images, list(function.outputs)), None, read_variables)
    last = function.outputs[0].op
    shaped = False
    while _keeps_values(last):
        shaped |= last.type != "Identity"
        last = last.inputs[0].op
    # As lists, so that every pruned function returns a list.
    whole_function = function.prune(images, [function.outputs[0]])
    if last.type != "Softmax":
        return FrozenModel(whole_function, None, read_variables)
    logits_function = function.prune(images, [last.inputs[0]])
    if not shaped:
        return FrozenModel(
            logits_function, function.prune(images, [last.outputs[0]]), read_variables
        )
    inner = last.inputs[0].shape
    if inner.num_elements() is None or inner.num_elements() != inner[-1]:
        return FrozenModel(
            whole_function, None, read_variables
        )  # The softmax is not over the classes.
    # The logits are reshaped instead of the scores, so that the softmax comes last.
    logits = _freeze_again(
        lambda *tensors: tf.cast(tf.reshape(logits_function(*tensors)[0], (1, -1)), tf.float32),
        specs,
    )
    return FrozenModel(
        logits, _freeze_again(lambda *tensors: tf.nn.softmax(logits(*tensors)[0]), specs)
    )


def _arguments(function: Any) -> list[Any]:
    """The inputs of a function that its caller gives; variables and constants come after them."""
    inputs = list(function.inputs)
    return inputs[: len(inputs) - len(function.captured_inputs)]


_CALLS = ("PartitionedCall", "While", "If", "Case")


def _flat(call: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Any:
    """A function of one graph that keeps the model's variables."""
    with _in_its_place():
        return tf.compat.v1.wrap_function(lambda *tensors: call(*tensors), list(specs))


@contextmanager
def _in_its_place() -> Iterator[None]:
    """In this context functions that Keras compiles by XLA are traced inline, not as calls."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _variables_of(flat: Any, variables: Sequence[Any]) -> tuple[tf.Variable, ...] | None:
    """The variables that a graph reads; None if they have to become constants."""
    own = [v if isinstance(v, tf.Variable) else v.value for v in variables]
    handles = {id(variable.handle) for variable in own}
    resources = [t for t in flat.captured_inputs if t.dtype == tf.resource]
    ops = flat.graph.get_operations()
    calls = any(op.type.removeprefix("Stateful").removeprefix("Stateless") in _CALLS for op in ops)
    halves = any(tensor.dtype in _HALF for op in ops for tensor in op.outputs)
    if calls or halves or any(id(resource) not in handles for resource in resources):
        return None
    return tuple(own)


_HALF = (tf.float16, tf.bfloat16)


def _in_float32(function_: Any) -> Any:
    """The frozen function with float32 instead of the half precision of mixed-precision training.

    TFLite would keep float16, which has few bits, in operators that it does not have.
    """
    tensors = (tensor for op in function_.graph.get_operations() for tensor in op.outputs)
    if not any(tensor.dtype in _HALF for tensor in tensors):
        return function_
    definition = function_.graph.as_graph_def()
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
    return whole.prune([t.name for t in function_.inputs], [t.name for t in function_.outputs])


@dataclass(frozen=True)
class Parameters:
    """The number of trainable parameters, and of all, moving statistics included."""

    trainable: int
    total: int


def parameters(model: Model) -> Parameters:
    """The parameters in the model's float variables."""
    _, variables = inference(model)
    sizes = [
        (math.prod(v.shape), bool(v.trainable))
        for v in variables
        if tf.as_dtype(v.dtype).is_floating
    ]
    return Parameters(sum(n for n, own in sizes if own), sum(n for n, _ in sizes))


def layers(model: Model) -> tuple[Layer, ...]:
    """The model's operators in execution order, for one sample.

    The constants are the model's variables; other constants and shapes are left out.

    Values that depend on variables only are listed as these variables. A bias belongs to the
    operator that it is added to. Names are those of the model's own layers. InputError if
    TensorFlow cannot trace it.
    """
    concrete = _trace(model)
    # For each constant operator: the variables that it depends on.
    weights: dict[str, tuple[Tensor, ...]] = {
        tensor.op.name: () for _, tensor in concrete.graph.captures
    }
    rows: list[Layer] = []
    for op in _in_order([output.op for output in concrete.outputs]):
        variables_ = _constant(op, weights)
        if variables_ is not None:
            weights[op.name] = variables_
        elif op.type not in ("Placeholder", "Identity") and op.outputs:
            reads = [_read(tensor, weights) for tensor in op.inputs]
            output = _tensor(op.outputs[0])
            rows.append(Layer(op.name, op.type, tuple(t for ts in reads for t in ts), (output,)))
    rows = _with_their_biases(rows)
    names = _short_names([row.name for row in rows])
    return tuple(dataclasses.replace(row, name=names[row.name]) for row in rows)


def _trace(model: Model) -> Any:
    """A ConcreteFunction of the model without function calls; variables stay variables."""
    with loading.refusing(
        f"TensorFlow cannot run the model on {_size(model.inputs)}", tf.errors.OpError
    ):
        call, variables = inference(model)
        with _in_its_place():
            concrete = tf.function(lambda *tensors: call(*tensors)).get_concrete_function(
                *specs_of(model.inputs)
            )
        if any("PartitionedCall" in op.type for op in concrete.graph.get_operations()):
            # A SavedModel consists of calls; freezing inlines them.
            concrete = convert_variables_to_constants_v2(concrete)
        del variables  # The graph's captures hold them, and from then on constants.
    return concrete


def _in_order(ends: Sequence[Any]) -> list[Any]:
    """The operators that `ends` depend on, each after its inputs, else in the graph's order."""
    last = ends[0]
    ancestors, waiting = set(ends), list(ends)
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op not in ancestors:
                ancestors.add(tensor.op)
                waiting.append(tensor.op)
    # The first ready operator comes next, so that branches keep the graph's order.
    number = {op: n for n, op in enumerate(last.graph.get_operations()) if op in ancestors}
    makers = {op: {tensor.op for tensor in op.inputs} for op in number}
    readers: dict[Any, list[Any]] = {op: [] for op in number}
    for op, inputs_ in makers.items():
        for maker in inputs_:
            readers[maker].append(op)
    ready = [(number[op], op.name) for op, inputs_ in makers.items() if not inputs_]
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
    """The variables that `op` depends on, () for a plain constant; None for an activation."""
    if op.type == "Const" or op.name in weights:
        return weights.get(op.name, ())
    # In a frozen graph a variable is a constant, read by an Identity.
    is_frozen_read = op.type == "Identity" and "ReadVariableOp" in op.name.rpartition("/")[2]
    if op.type == "ReadVariableOp" or is_frozen_read:
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
    merged: list[Layer] = []
    makers: dict[str, int] = {}
    for row in rows:
        constants = [t for t in row.inputs if t.constant]
        bias = [t for t in constants if t.shape and math.prod(t.shape) == t.shape[-1]]
        before = makers.get(row.inputs[0].name) if row.inputs else None
        if (
            row.op in ("BiasAdd", "AddV2")
            and len(constants) == len(bias) == 1
            and before is not None
            and any(t.constant for t in merged[before].inputs)
            and readers[row.inputs[0].name] == 1
        ):
            vector = dataclasses.replace(bias[0], shape=bias[0].shape[-1:])
            inputs = (*merged[before].inputs, vector)
            merged[before] = dataclasses.replace(merged[before], inputs=inputs, outputs=row.outputs)
            makers[row.outputs[0].name] = before
            continue
        makers[row.outputs[0].name] = len(merged)
        merged.append(row)
    return merged


def _short_names(names: list[str]) -> dict[str, str]:
    """Names without their common prefix, and without the operator's own name if a name is left."""
    paths = [name.split("/") for name in names]
    common_length = 0
    while all(
        len(path) > common_length + 1 and path[common_length] == paths[0][common_length]
        for path in paths
    ):
        common_length += 1
    scopes = Counter("/".join(path[common_length:-1]) for path in paths)
    return {
        name: scope
        if (scope := "/".join(path[common_length:-1])) and scopes[scope] == 1
        else "/".join(path[common_length:])
        for name, path in zip(names, paths, strict=True)
    }


def _keeps_values(op: Any) -> bool:
    """Whether `op` hands its input on, in another shape or float type."""
    if op.type == "Cast":
        return bool(op.inputs[0].dtype.is_floating and op.outputs[0].dtype.is_floating)
    return op.type == "Identity" or op.type in _SHAPING


def _freeze_again(call: Callable[..., Any], specs: Sequence[Any]) -> Any:
    function = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(*specs))
    return function.prune(function.inputs, [function.outputs[0]])
