"""Golden samples of several inputs: the file may come from anywhere, as its record may."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from mobiledeploy.core import preprocessing
from mobiledeploy.core.errors import DeployError, InputError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import ModelInput, Preprocessing

ENDS = (
    ModelInput("photo", "image", (6, 5, 3), Preprocessing((0.0, 1.0))),
    ModelInput("facts", "tensor", (4,)),
)


def npy(values, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, **options)
    return stream.getvalue()


def header(shape, descr):
    """The beginning of an array file that says any shape, and 64 bytes of it."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 64


class Marked:
    """What a pickle would call."""

    called = False

    def __reduce__(self):
        return (setattr, (Marked, "called", True))


PLAIN = {
    "photo": npy(np.zeros((6, 5, 3), np.uint8)),
    "facts": npy(np.ones(4, np.float32)),
}
HOSTILE = {
    "a pickle": {"facts": npy(np.array([Marked()], object), allow_pickle=True)},
    "a terabyte": {"facts": header((10**12,), "<f4")},
    "a huge image": {"photo": header((10**6, 10**6, 3), "|u1")},
    "a negative side": {"facts": header((-4,), "<f4")},
    "nothing": {"facts": None},
    "text": {"facts": npy(np.array(["a"] * 4))},
    "complex numbers": {"facts": npy(np.zeros(4, np.complex64))},
    "NaN": {"facts": npy(np.full(4, np.nan, np.float32))},
    "another shape": {"facts": npy(np.zeros(7, np.float32))},
    "an image of floats": {"photo": npy(np.zeros((6, 5, 3), np.float32))},
    "two images": {"other": npy(np.zeros((6, 5, 3), np.uint8))},
}


def inputs_of(folder, members):
    with zipfile.ZipFile(folder / "0000.npz", "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(f"{name}.npy", content)
    source = f"golden:{folder}"
    samples = dataset(source).open(source, "all", resolution=(6, 5))
    return preprocessing.sample_inputs(samples, 0, ENDS)


def test_a_sample_is_read(tmp_path):
    photo, facts = inputs_of(tmp_path, PLAIN)
    assert photo.shape == (6, 5, 3) and facts.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_sample_is_refused(what, tmp_path):
    with pytest.raises(DeployError) as refusal:
        inputs_of(tmp_path, PLAIN | HOSTILE[what])
    assert refusal.value.exit_code == InputError.exit_code
    assert not Marked.called
