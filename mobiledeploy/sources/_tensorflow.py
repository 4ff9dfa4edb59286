"""Shared by the sources that use TensorFlow: an opened live model, and its float TFLite."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python.convert import ConverterError

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Model, Output, Preprocessing, Source
from mobiledeploy.frameworks import calibration_statistics, loading, tracing
from mobiledeploy.graphs import ends
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources._inputs import ShapedInput, inputs_of, require_scores


class TensorFlowModel:
    """A model that TensorFlow runs, with its inputs and the names of its outputs."""

    def __init__(self, model: Model, output_names: Sequence[str]) -> None:
        self.network: Model | None = model
        self.inputs = tuple(one.end for one in model.inputs)
        self.output_names = tuple(output_names)
        self._model = model

    @functools.cached_property
    def _frozen_model(self) -> tracing.FrozenModel:
        return tracing.freeze(self._model)

    def floats(self, output: Output) -> bytes:
        """See `ports.OpenedModel`; InputError for an operator that TFLite lacks."""
        require_scores(output, [tensor.shape.rank for tensor in self._frozen_model.logits.outputs])
        with loading.temporary_folder() as folder:
            self._frozen_model.save(output, folder)
            with loading.refusing("TFLiteConverter cannot read the model", tf.errors.OpError):
                converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
            try:
                content = bytes(converter.convert())
            except ConverterError as error:
                raise InputError(_reason(str(error))) from error
        one, *others = self._model.inputs
        plain = one.batch == 1 and one.end.dtype == "float32" and not others
        if plain and len(self.output_names) == 1:
            # Nothing is to be changed, and parsing takes the memory of the weights again.
            return content
        graph = Graph(ends.in_order(content))
        ends.single_batch(graph)
        ends.without_casts(graph)
        ends.own_outputs(graph)
        return graph.pack()

    def answers(self, samples: Batch) -> tuple[NDArray[np.float32], ...]:
        """See `ports.OpenedModel`; InputError if TensorFlow cannot compute them."""
        if len(samples) and self._frozen_model.draws_numbers() and self._is_random(samples[:1]):
            raise InputError(
                "the model gives different answers to the same image",
                "a Dropout or noise layer is still on (training=True): build it without",
            )
        return self._frozen_model.run(samples)

    def _is_random(self, sample: Batch) -> bool:
        """Whether two answers to one sample differ.

        This uses the model before freezing, since a frozen generator restarts each time.
        """
        call, _ = tracing.inference(self._model)
        pairs = zip(sample.arrays, tracing.specs_of(self._model.inputs), strict=True)
        tensors = [tf.constant(np.repeat(x, spec.shape[0], 0), spec.dtype) for x, spec in pairs]
        with loading.refusing("TensorFlow cannot run the model", tf.errors.OpError):
            first, second = call(*tensors), call(*tensors)
        return not all(
            np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
            for one, other in zip(first, second, strict=True)
        )

    def ends_in_softmax(self) -> bool:
        """See `ports.OpenedModel`."""
        return self._frozen_model.scores is not None

    def likelier_range(self, pre: Preprocessing, images: Batch) -> tuple[float, float] | None:
        """See `ports.OpenedModel`."""
        if len(self.inputs) > 1 or self.inputs[0].kind != "image":
            return None
        return calibration_statistics.likelier_range(self._frozen_model, pre, images.arrays[0])


def open_model(model: Model, source: Source) -> TensorFlowModel:
    """A user's model, with its images at their own resolution or the requested one.

    InputError for a model without known inputs and outputs, UsageError for a resolution that it
    does not accept.
    """
    handle = model.handle
    if not getattr(handle, "inputs", None) or not handle.outputs:
        raise InputError(f"the model {handle.name} was saved without the shape of its input")
    names = getattr(handle, "input_names", None) or [tensor.name for tensor in handle.inputs]
    declared = [
        ShapedInput(name, _sides(tensor.shape), _dtype(tensor))
        for name, tensor in zip(names, handle.inputs, strict=True)
    ]
    inputs = inputs_of(declared, source.resolution)
    return TensorFlowModel(dataclasses.replace(model, inputs=inputs), _output_names(handle))


def _output_names(handle: Any) -> Sequence[str]:
    """The names of the outputs in the order of the traced function."""
    # Of Keras 2 and of Keras 3. tf.nest flattens a dictionary in the order of its keys.
    for attribute in ("_nested_outputs", "_outputs_struct"):
        structure = getattr(handle, attribute, None)
        if isinstance(structure, dict) and len(structure) == len(handle.outputs):
            return sorted(structure)
    names = getattr(handle, "output_names", None)
    return list(names) if names else [tensor.name for tensor in handle.outputs]


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name)


def _sides(shape: Sequence[int | None] | tf.TensorShape) -> Sequence[int | None] | None:
    if isinstance(shape, tf.TensorShape):
        return None if shape.rank is None else shape.as_list()
    return shape


def _reason(text: str) -> str:
    """One line for the converter's long text: the operators that TFLite does not have."""
    ops = sorted(
        set(re.findall(r"'?(?:tf|tfl)\.(\w+)'? op is neither|error: '(tf\.\w+)' op", text))
    )
    names = sorted({name for pair in ops for name in pair if name})
    flex = re.search(r"(?:Flex|Select TF|Custom) ops: ([\w, ]+)", text)
    if flex:
        names = [name.strip() for name in flex[1].split(",")]
    if names:
        return f"TFLite has no operator for {', '.join(names)}"
    # The cause follows a long location.
    cause = re.search(r"error: (?:loc\(.*\): )?(.+)", text)
    line = loading.first_line(ValueError(cause[1] if cause else text))
    return f"TFLiteConverter rejected the model: {line}"
