"""Computes a looked-at graph with torch, and converts it: a script for the environment of its own.

    python -I -P _torch_process.py FOLDER

Reads program.json and weights.npz of FOLDER, which `sources/torch.py` writes. Where images.npy is
there, the answers [N, classes] to the images [N, H, W, 3] go to answers.npz; else the model goes to
float.tflite. A model that cannot be converted ends in 3, with the reason in refusal.txt.

Nothing of the user's file is here but numbers and the names of operators that are on the list.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

REFUSED = 3


def main() -> int:
    """See above."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Numpy and torch are the environment's.
    import numpy as np
    import torch

    program = json.loads((folder / "program.json").read_text("utf-8"))
    with np.load(folder / "weights.npz", allow_pickle=False) as stored:
        weights = {name: torch.from_numpy(stored[name]) for name in stored.files}
    images = folder / "images.npy"
    try:
        if images.exists():
            given = np.load(images, allow_pickle=False)
            np.savez(folder / "answers.npz", answers=_answers(program, weights, given))
        else:
            _convert(program, weights, folder / "float.tflite")
    except Exception as error:  # whatever torch and its converter raise of a model
        if isinstance(error, MemoryError):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        (folder / "refusal.txt").write_text(text[:300], "utf-8")
        return REFUSED
    return 0


def _die_with_parent() -> None:
    """Ends this process when its standard input closes, which is when the parent is gone."""
    sys.stdin.read()
    os._exit(1)


def _network(program: dict[str, Any], weights: dict[str, Any], answer: str) -> Any:
    """The nodes, as a module: image [1, 3, H, W] -> the value named `answer`."""
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
                made = operator(
                    *(_argument(given, values) for given in node["arguments"]),
                    **{name: _argument(given, values) for name, given in node["named"].items()},
                )
                several = node["list"] or len(node["makes"]) > 1
                values.update(zip(node["makes"], made if several else [made], strict=True))
            return values[answer]

    return Network().eval()


def _argument(given: list[Any], values: dict[str, Any]) -> Any:
    """What an argument (kind, value) stands for."""
    import torch

    kind, value = given
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
    # TFLite's images have their channels last.
    turned = litert_torch.to_channel_last_io(network, args=[0])
    litert_torch.convert(turned, (torch.zeros(1, height, width, 3),)).export(str(path))


if __name__ == "__main__":
    sys.exit(main())
