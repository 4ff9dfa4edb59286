"""Runs or converts a checked graph with torch: a script for the separate environment.

    python -I -P _torch_process.py FOLDER

Reads program.json and weights.npz of FOLDER, which `sources/torch.py` writes. If images.npy exists,
the answers [N, classes] to the images [N, H, W, 3] are written to answers.npz, otherwise the model
to float.tflite. For a model that cannot be converted it ends with 3 and the reason in refusal.txt.

From the user's file it only gets numbers and the names of allowed operators.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

REFUSAL_STATUS = 3


def main() -> int:
    """See above."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Numpy and torch are those of the environment.
    import numpy as np
    import torch

    program = json.loads((folder / "program.json").read_text("utf-8"))
    with np.load(folder / "weights.npz", allow_pickle=False) as archive:
        weights = {name: torch.from_numpy(archive[name]) for name in archive.files}
    images = folder / "images.npy"
    try:
        if images.exists():
            image_array = np.load(images, allow_pickle=False)
            np.savez(folder / "answers.npz", answers=_answers(program, weights, image_array))
        else:
            _convert(program, weights, folder / "float.tflite")
    except Exception as error:  # anything that torch and its converter raise for a model
        if isinstance(error, MemoryError):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        (folder / "refusal.txt").write_text(text[:300], "utf-8")
        return REFUSAL_STATUS
    return 0


def _die_with_parent() -> None:
    """Ends this process when its standard input closes, since the parent is gone then."""
    sys.stdin.read()
    os._exit(1)


def _network(program: dict[str, Any], weights: dict[str, Any], answer: str) -> Any:
    """The nodes as a module: image [1, 3, H, W] -> the value named `answer`."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number, weight in enumerate(weights.values()):
                self.register_buffer(f"w{number}", weight)

        def forward(self, image: Any) -> Any:
            values = {name: getattr(self, f"w{number}") for number, name in enumerate(weights)}
            values[program["image"]] = image
            for node in program["nodes"]:
                operator = torch.ops
                for name in node["operator"].split("."):
                    operator = getattr(operator, name)
                results = operator(
                    *(_argument(argument, values) for argument in node["arguments"]),
                    **{
                        name: _argument(argument, values)
                        for name, argument in node["named"].items()
                    },
                )
                has_several = node["list"] or len(node["makes"]) > 1
                values.update(
                    zip(node["makes"], results if has_several else [results], strict=True)
                )
            return values[answer]

    return Network().eval()


def _argument(argument: list[Any], values: dict[str, Any]) -> Any:
    """The value of an argument (kind, value)."""
    import torch

    kind, value = argument
    if kind == "value":
        return values[value]
    if kind == "list":
        return [_argument(item, values) for item in value]
    if kind in ("dtype", "memory_format", "layout"):
        return getattr(torch, value)
    return torch.device(value) if kind == "device" else value


def _answers(program: dict[str, Any], weights: dict[str, Any], images: Any) -> Any:
    import numpy as np
    import torch

    network = _network(program, weights, program["logits"])
    with torch.no_grad():
        rows = [
            network(torch.from_numpy(image[None].transpose(0, 3, 1, 2).copy())).numpy()
            for image in images
        ]
    return np.concatenate(rows).astype(np.float32)


def _convert(program: dict[str, Any], weights: dict[str, Any], path: Path) -> None:
    import litert_torch
    import torch

    height, width = program["resolution"]
    network = _network(program, weights, program["scores"])
    # TFLite's images are channels-last.
    channels_last = litert_torch.to_channel_last_io(network, args=[0])
    litert_torch.convert(channels_last, (torch.zeros(1, height, width, 3),)).export(str(path))


if __name__ == "__main__":
    sys.exit(main())
