"""Shared by the sources that use TensorFlow: an opened live model, and its float TFLite."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python.convert import ConverterError

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import Model, Output, Preprocessing, Source
from mobiledeploy.frameworks import calibration_statistics, loading, tracing


class TensorFlowModel:
    """A model that TensorFlow runs, at one resolution (height, width)."""

    def __init__(self, model: Model, resolution: tuple[int, int], classes: int) -> None:
        self.network: Model | None = model
        self._model = model
        self.resolution = resolution
        self.classes = classes

    @functools.cached_property
    def _frozen_model(self) -> tracing.FrozenModel:
        return tracing.freeze(self._model, self.resolution)

    def floats(self, output: Output) -> bytes:
        """See `ports.OpenedModel`; InputError for an operator that TFLite lacks."""
        with loading.temporary_folder() as folder:
            self._frozen_model.save(output, folder)
            with loading.refusing("TFLiteConverter cannot read the model", tf.errors.OpError):
                converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
            try:
                return bytes(converter.convert())
            except ConverterError as error:
                raise InputError(_reason(str(error))) from error

    def answers(self, images: Images) -> NDArray[np.float32]:
        """See `ports.OpenedModel`; InputError if TensorFlow cannot compute them."""
        if len(images) and self._frozen_model.draws_numbers() and self._is_random(images[:1]):
            raise InputError(
                "the model gives different answers to the same image",
                "a Dropout or noise layer is still on (training=True): build it without",
            )
        return self._frozen_model.run(images)

    def _is_random(self, image: Images) -> bool:
        """Whether two answers to one image differ.

        This uses the model before freezing, since a frozen generator restarts each time.
        """
        call, _ = tracing.inference(self._model)
        with loading.refusing("TensorFlow cannot run the model", tf.errors.OpError):
            first, second = (np.asarray(call(tf.constant(image)), np.float32) for _ in range(2))
        return not np.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True)

    def ends_in_softmax(self) -> bool:
        """See `ports.OpenedModel`."""
        return self._frozen_model.scores is not None

    def likelier_range(self, pre: Preprocessing, images: Images) -> tuple[float, float] | None:
        """See `ports.OpenedModel`."""
        return calibration_statistics.likelier_range(self._frozen_model, pre, images)


def open_model(model: Model, source: Source) -> TensorFlowModel:
    """A user's model at its own resolution or the requested one.

    InputError for a model that is not an image classifier, UsageError for a resolution that it does
    not accept.
    """
    inputs, outputs = shapes(model)
    classes = outputs[1]
    if classes is None or classes < 2:
        raise InputError("the model gives one score; a classifier of two or more classes is needed")
    height, width = inputs[1], inputs[2]
    resolution = source.resolution or (height or 0, width or 0)
    if 0 in resolution:
        raise UsageError("the model takes any resolution", "choose one with --res")
    if any(
        own_side not in (None, requested)
        for own_side, requested in zip((height, width), resolution, strict=True)
    ):
        raise UsageError(f"the model takes {height}x{width} only", "omit --res")
    return TensorFlowModel(model, resolution, classes)


def shapes(model: Model) -> tuple[loading.Shape, loading.Shape]:
    """([N, H, W, 3], [N, classes]), with None for dynamic sides.

    InputError for a model with several inputs or outputs, or other ones than float32 images and a
    row of scores.
    """
    handle = model.handle
    where = f"the model {handle.name}"
    if not getattr(handle, "inputs", None) or not handle.outputs:
        raise InputError(f"{where} was saved without the shape of its input")
    image = loading.require_one("input", handle.inputs, where)
    scores = loading.require_one("output", handle.outputs, where)
    dtype = image.dtype if isinstance(image.dtype, str) else image.dtype.name
    return loading.check_shapes((_sides(image.shape), dtype), _sides(scores.shape), where)


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
