"""What Google's own code reads in the metadata of a TFLite file: prints it as one JSON line.

Run by the Python of MediaPipe's own environment (`make oracle`), with a model file.
"""

import json
import sys
import zipfile
from pathlib import Path

from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as tflite

TYPES = {0: "float32", 3: "uint8", 9: "int8"}


def ends(graph, indices, about):
    """For each tensor its type and shape, and what the metadata says of it."""
    for index, told in zip(indices, about, strict=True):
        tensor = graph.tensors[index]
        content = told.content.contentProperties if told.content else None
        files = [(file.name.decode(), file.type) for file in told.associatedFiles or ()]
        yield {
            "name": tensor.name.decode(),
            "type": TYPES[tensor.type],
            "shape": list(map(int, tensor.shape)),
            "rgb": getattr(content, "colorSpace", None) == metadata.ColorSpaceType.RGB,
            "normalization": [
                [list(map(float, unit.options.mean)), list(map(float, unit.options.std))]
                for unit in told.processUnits or ()
                if unit.optionsType == metadata.ProcessUnitOptions.NormalizationOptions
            ],
            "axis_labels": [
                name
                for name, kind in files
                if kind == metadata.AssociatedFileType.TENSOR_AXIS_LABELS
            ],
        }


path = Path(sys.argv[1])
model = tflite.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
(entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
content = bytes(model.buffers[entry.buffer].data)
told = metadata.ModelMetadataT.InitFromPackedBuf(content, 0)
graph, about = model.subgraphs[0], told.subgraphMetadata[0]
inputs = list(ends(graph, graph.inputs, about.inputTensorMetadata))
outputs = list(ends(graph, graph.outputs, about.outputTensorMetadata))
with zipfile.ZipFile(path) as archive:
    for end in outputs:
        end["labels"] = [
            archive.read(name).decode().split("\n")[:-1] for name in end["axis_labels"]
        ]
json.dump({"inputs": inputs, "outputs": outputs}, sys.stdout)
