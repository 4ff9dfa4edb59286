"""The artifact of a model file without a record: what the file itself and its metadata say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Format
from mobiledeploy.core.types import (
    Activation,
    Artifact,
    Contract,
    DataRef,
    FileFacts,
    Golden,
    InputOutput,
    Layout,
    ModelInput,
    ModelOutput,
    ModelSpec,
    Output,
    Preprocessing,
    Recipe,
    Signature,
    Tensor,
    Weights,
)

ARCHITECTURE = "file"
"""The architecture of a model whose file alone is known."""
_IMAGE_AXES = 4
_CHANNELS = (1, 3)
_PIXEL_TYPES = ("float32", "uint8", "int8")
_ACTIVATIONS: dict[str, Activation] = {
    "softmax": "softmax",
    "logistic": "sigmoid",
    "sigmoid": "sigmoid",
}
_PASSING = (
    "cast",
    "dequantize",
    "dequantizelinear",
    "expanddims",
    "expand_dims",
    "flatten",
    "identity",
    "quantize",
    "quantizelinear",
    "reshape",
    "squeeze",
    "unsqueeze",
)


def artifact(path: Path) -> Artifact:
    """What is known of the model file at `path`.

    Its images have no preprocessing if the file does not say it.

    Raises:
        InputError: no model file of a known format, or a damaged one.
    """
    name, shelf = _format(path)
    content = inputs.read(path, inputs.FINISHED)
    facts = shelf.inspect(content)
    contract = shelf.contract(content)
    signature = contract.signature if contract else None
    if signature is None:
        how = contract.preprocessing if contract else shelf.preprocessing(content)
        signature = _signature(facts, how)
    image = signature.image
    recipe = _recipe(facts, name)
    digest = records.sha256(content)
    return Artifact(
        path=path.name,
        sha256=digest,
        size_bytes=len(content),
        gzip_bytes=0,
        sparsity=shelf.sparsity(content),
        format=name,
        spec=ModelSpec(
            name=contract.name if contract else records.file_name(path.stem),
            card=None,
            architecture=ARCHITECTURE,
            arguments={},
            resolution=(image.shape[0], image.shape[1]) if image else (0, 0),
            classes=signature.outputs[0].shape[-1] if signature.outputs[0].shape else 1,
            preprocessing=(image and image.preprocessing) or Preprocessing((0.0, 1.0)),
            weights=Weights(records.file_name(path.name), digest, pinned=False),
            task=contract.task if contract else "",
        ),
        recipe=recipe,
        output=_output(contract, signature),
        io=_io(facts),
        layout=facts.layout,
        inputs=tuple(map(_of_one, facts.inputs)),
        outputs=tuple(map(_of_one, facts.outputs)),
        logits=facts.logits,
        golden=Golden((), (), (), ""),
        sqnr_db=math.nan,
        data=DataRef("", "all", (image.shape[0], image.shape[1]) if image else (0, 0)),
        calibration="",
        calibration_images=0,
        key="",
        convert_seconds=0.0,
        tools={},
        signature=signature,
    )


def _format(path: Path) -> tuple[str, Format]:
    shelves = list(FORMATS.each())
    for name, shelf in shelves:
        if path.suffix == shelf.SUFFIX:
            return name, shelf
    suffixes = " or ".join(shelf.SUFFIX for _, shelf in shelves)
    raise InputError(f"{path} is not a {suffixes} file", "mobiledeploy export makes one of a model")


def _of_one(tensor: Tensor) -> Tensor:
    """The tensor with a batch of 1 where the file leaves it open."""
    if not tensor.shape or tensor.shape[0] > 0:
        return tensor
    return replace(tensor, shape=(1, *tensor.shape[1:]))


def _signature(facts: FileFacts, how: Preprocessing | None) -> Signature:
    inputs_ = []
    for tensor in facts.inputs:
        shape = _channels_last(tensor, facts.layout)
        pixels = len(shape) == _IMAGE_AXES - 1 and shape[-1] in _CHANNELS
        if pixels and tensor.dtype in _PIXEL_TYPES:
            own = how and how.for_channels(shape[-1])
            inputs_.append(ModelInput(tensor.name, "image", shape, own))
        else:
            inputs_.append(ModelInput(tensor.name, "tensor", shape, None, tensor.dtype))
    outputs = [
        ModelOutput(t.name, _channels_last(t, facts.layout), _activation(facts, t.name))
        for t in facts.outputs
    ]
    return Signature(tuple(inputs_), tuple(outputs))


def _channels_last(tensor: Tensor, layout: Layout) -> tuple[int, ...]:
    """The shape without the batch; the channels of an image come last."""
    _, *sides = tensor.shape or (1,)
    if len(tensor.shape) == _IMAGE_AXES and layout == "NCHW":
        sides = [*sides[1:], sides[0]]
    return tuple(sides)


def _activation(facts: FileFacts, name: str) -> Activation:
    """The activation that an output ends in, behind changes of its shape and type."""
    makers = {tensor.name: layer for layer in facts.layers for tensor in layer.outputs}
    passed: set[str] = set()
    while name in makers and name not in passed and makers[name].op.lower() in _PASSING:
        passed.add(name)
        name = next((t.name for t in makers[name].inputs if not t.constant), "")
    return _ACTIVATIONS.get(makers[name].op.lower(), "none") if name in makers else "none"


def _output(contract: Contract | None, signature: Signature) -> Output:
    if contract:
        return contract.output
    return "softmax" if signature.outputs[0].activation == "softmax" else "model"


def _io(facts: FileFacts) -> InputOutput:
    dtypes = {tensor.dtype for tensor in facts.inputs if tensor.scale}
    return "int8" if "int8" in dtypes else "uint8" if "uint8" in dtypes else "float"


def _recipe(facts: FileFacts, format_: str) -> Recipe:
    """How the file's numbers are stored, by the types of its weights and activations."""
    tensors = [t for layer in facts.layers for t in (*layer.inputs, *layer.outputs)]
    weights = _types(t for t in tensors if t.constant and len(t.shape) > 1)
    activations = _types(t for t in tensors if not t.constant and t.scale)
    integer = bool(activations & {"int8", "uint8", "int16"})
    bits = 16 if "int16" in activations else 8
    if integer:
        return Recipe(
            "int16x8" if bits == 16 else "int8",
            "integers of another tool",
            4 if "int4" in weights else 8,
            bits,
            (format_,),
            calibration="min-max",
        )
    if weights & {"int8", "uint8", "int4"}:
        return Recipe("dynamic_int8", "integer weights of another tool", 8, 32, (format_,))
    if "float16" in weights:
        return Recipe("float16", "half precision of another tool", 16, 32, (format_,))
    return Recipe("float32", "floats of another tool", 32, 32, (format_,))


def _types(tensors: Iterable[Tensor]) -> set[str]:
    return {tensor.dtype for tensor in tensors}
