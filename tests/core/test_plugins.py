"""Shelves list without importing, and name what is near or what is missing."""

import subprocess
import sys

import pytest

from mobiledeploy.core import package, plugins
from mobiledeploy.core.errors import MissingError, UsageError

SHELVES = [s for s in vars(plugins).values() if isinstance(s, plugins.Shelf)]


@pytest.mark.parametrize("shelf", SHELVES, ids=lambda shelf: shelf.folder)
def test_a_shelf_lists_its_files(shelf):
    assert shelf.names() == tuple(sorted(shelf.names()))
    for name in shelf.names():
        assert (package.PACKAGE / shelf.folder / f"{name}.py").is_file()


def test_listing_imports_nothing():
    code = (
        "import sys\n"
        "from mobiledeploy.core import plugins\n"
        "[s.names() for s in vars(plugins).values() if isinstance(s, plugins.Shelf)]\n"
        "print([m for m in sys.modules if m.startswith('mobiledeploy.')"
        " and not m.startswith('mobiledeploy.core')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean int8_ptq"):
        plugins.RECIPES.load("int8_ptk")
    with pytest.raises(UsageError, match="there are .*float32"):
        plugins.RECIPES.load("zzz")


def test_a_path_is_not_a_name():
    with pytest.raises(UsageError):
        plugins.RECIPES.load("../core/types")


def test_a_missing_library_names_the_extra_that_brings_it():
    error = plugins.missing("tensorflow.python")
    assert isinstance(error, MissingError)
    assert error.exit_code == 6
    assert error.hint == "pip install 'mobiledeploy[export]'"
    assert plugins.missing("lzma").hint == "pip install lzma"


def test_no_data_set_takes_nonsense(tmp_path):
    with pytest.raises(UsageError, match="no data set"):
        plugins.dataset(str(tmp_path / "absent"))
