import dataclasses
import tempfile

import h5py
import numpy as np
import pytest

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.frameworks import loading
from mobiledeploy.sources import _keras_files as keras
from tests.hostile.keras_files import h5, k3, keras3_lambda, lambda_layer


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("\n\n  second \nthird", "second"),
        ("", "ValueError"),
        (
            "Exception encountered when calling Conv2D.call().\n\n\x1b[1mtoo small\x1b[0m",
            "too small",
        ),
        (
            'in user code:\n\n    File "x.py", line 1\n        f(x)\n\n    TypeError: no way',
            "no way",
        ),
        ("subtracting 9 from 4 for '{{node Conv2D}} = Conv2D[T=1]'", "subtracting 9 from 4"),
        ("Exception encountered when calling x", "Exception encountered when calling x"),
        ("a" * 200 + "b" * 100, "a" * 119 + "…" + "b" * 80),
        (
            "Graph execution error:\n\nDetected at node 'x' defined at (most recent call last):\n"
            "  File \"a.py\", line 2, in b\nNode: 'x'\nIncompatible shapes: [2] vs. [3]\n [[x]]",
            "Incompatible shapes: [2] vs. [3]",
        ),
        ("{{function_node __wrapped__Add}} Incompatible shapes", "Incompatible shapes"),
    ],
)
def test_the_first_useful_line(text, line):
    assert loading.first_line(ValueError(text)) == line


@pytest.mark.parametrize(
    ("write", "suffix"),
    [(h5(lambda c: [lambda_layer(c)]), ".h5"), (k3(lambda c: [keras3_lambda(c)]), ".keras")],
)
def test_a_file_that_was_another_at_the_check_is_refused(tmp_path, write, suffix):
    """The content for Keras is checked again, even if the hash is that of the present file."""
    path = write(tmp_path, tmp_path / "canary")
    earlier = dataclasses.replace(keras.detect(path), code=())
    with (
        pytest.raises(InputError, match="changed while it was read"),
        loading.for_inference(earlier, suffix),
    ):
        pass
    trusted = dataclasses.replace(keras.detect(path), trusted=True)
    with loading.for_inference(trusted, suffix) as copy:
        assert copy.is_file()


def test_unwritable_temporary_files_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError) as excinfo, loading.temporary_folder():
        (tmp_path / "absent" / "file").write_bytes(b"")
    assert excinfo.value.message == (
        f"cannot write temporary files in {tempfile.gettempdir()}: no such file or directory"
    )
    assert "TMPDIR" in excinfo.value.hint
    with pytest.raises(UsageError, match="disk is full"), loading.writing_temporary(KeyError):
        raise KeyError("disk is full")
    with pytest.raises(InputError), loading.temporary_folder():
        raise InputError("not about files")


def raiser(error, module):
    """A function of `module` that raises `error`."""
    room = {"__name__": module, "error": error}
    exec("def fail():\n    raise error", room)
    return room["fail"]


@pytest.mark.parametrize(
    "error", [AssertionError("no x"), AttributeError("no y"), TypeError("no z")], ids=repr
)
def test_an_error_in_our_code_is_not_blamed_on_the_file(error):
    with pytest.raises(type(error)), loading.refusing("the file"):
        raiser(error, "mobiledeploy.frameworks.tf_keras")()


@pytest.mark.parametrize(
    ("error", "module"),
    [
        (AssertionError("no x"), "tf_keras.src.engine"),
        (AttributeError("no y"), "keras.src.models"),
        (TypeError("no z"), "tf_keras.src.engine"),
        (ValueError("no w"), "mobiledeploy.frameworks.tf_keras"),
        # Keras builds it from the file.
        (TypeError("no v"), "mobiledeploy.frameworks.response_normalization"),
    ],
    ids=str,
)
def test_an_error_of_a_framework_is_blamed_on_the_file(error, module):
    with pytest.raises(InputError, match="the file: no"), loading.refusing("the file"):
        raiser(error, module)()


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ([b"a", b"b"], ["a", "b"]),
        (np.array(["a"], h5py.string_dtype()), ["a"]),
        (3, ["3"]),
        ([], []),
        (None, []),
    ],
)
def test_names_in_an_attribute_of_any_kind(tmp_path, listing, names):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if listing is not None:
            file.attrs["names"] = listing
        assert loading.names(file, "names") == names
