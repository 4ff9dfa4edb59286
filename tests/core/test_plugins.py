"""Shelves list plugins without importing them.

Errors name the nearest plugin or a missing package.
"""

import subprocess
import sys

import pytest

from mobiledeploy.core import package, plugins
from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.verbs import doctor

SHELVES = plugins.shelves()


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
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_an_unknown_name_gets_the_nearest_as_a_suggestion():
    with pytest.raises(UsageError, match="did you mean int8_ptq"):
        plugins.RECIPES.load("int8_ptk")
    with pytest.raises(UsageError, match="there are .*float32"):
        plugins.RECIPES.load("zzz")


def test_a_path_is_not_a_name():
    with pytest.raises(UsageError):
        plugins.RECIPES.load("../core/types")


def test_a_missing_library_names_the_extra_that_installs_it():
    error = plugins.missing("tensorflow.python")
    assert isinstance(error, MissingError)
    assert error.exit_code == 6
    assert error.hint == "pip install 'mobiledeploy[export]'"
    assert plugins.missing("lzma").hint == "pip install lzma"


def test_no_data_set_accepts_nonsense(tmp_path):
    with pytest.raises(UsageError, match="not a known data set"):
        plugins.dataset(str(tmp_path / "absent"))


def test_what_two_data_sets_accept_is_an_error_that_names_both(tmp_path):
    for name in ("images", "masks", "cat"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="can be read as folder and as masks"):
        plugins.dataset(str(tmp_path))
    (tmp_path / "cat").rmdir()
    assert plugins.dataset(str(tmp_path)) is plugins.DATASETS.load("masks")
    (tmp_path / "masks").rmdir()
    assert plugins.dataset(str(tmp_path)) is plugins.DATASETS.load("folder")


@pytest.mark.parametrize("name", ["a.npz", "a.json", "a.csv"])
def test_a_folder_that_is_named_as_a_file_is_a_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    assert plugins.dataset(str(tmp_path / name)) is plugins.DATASETS.load("folder")


def test_a_word_means_its_data_set_and_a_path_the_folder(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert plugins.dataset("demo") is plugins.DATASETS.load("shapes")
    for path in ("./demo", "demo/", str(tmp_path / "demo")):
        assert plugins.dataset(path) is plugins.DATASETS.load("folder")


@pytest.mark.parametrize("source", ["a.txt", "\0", "a\0.txt", "a" * 5000])
def test_what_is_no_data_set_is_refused(source):
    with pytest.raises(UsageError, match="not a known data set"):
        plugins.dataset(source)


# Plugins of other packages

SOUND = "MOBILEDEPLOY_INTERFACE = 1\nFORMATS = ('tflite',)\nDELEGATES = ('none',)\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with one runtime, `other`, whose module holds `code`."""

    def install(code: str, name: str = "other") -> None:
        (tmp_path / "stranger.py").write_text(code)
        info = tmp_path / "stranger_pkg-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.4\nName: stranger-pkg\nVersion: 1.0\n")
        entry = f"[mobiledeploy.runtimes]\n{name} = stranger\n"
        (info / "entry_points.txt").write_text(entry)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("stranger", None)


def test_a_plugin_of_another_package_is_on_the_shelf(installed):
    installed(SOUND)
    assert "other" in plugins.RUNTIMES.names()
    assert plugins.RUNTIMES.load("other").FORMATS == ("tflite",)
    assert "other" in dict(plugins.RUNTIMES.each())
    assert not list(plugins.RUNTIMES.broken())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("FORMATS = ()", "is for interface None, and this mobiledeploy has 1"),
        ("MOBILEDEPLOY_INTERFACE = 2", "is for interface 2, and this mobiledeploy has 1"),
    ],
)
def test_a_broken_one_is_named_and_left_out(installed, code, reason):
    installed(code)
    others = set(plugins.RUNTIMES.names()) - {"other"}
    assert {name for name, _ in plugins.RUNTIMES.each()} == others
    (error,) = plugins.RUNTIMES.broken()
    assert "the plugin other of stranger-pkg" in error.message
    assert reason in error.message
    assert error.hint == "pip install --upgrade stranger-pkg"
    with pytest.raises(MissingError, match="stranger-pkg"):
        plugins.RUNTIMES.load("other")


def test_doctor_names_a_broken_one(installed):
    installed("raise RuntimeError('no driver')")
    (warning,) = [w for w in doctor.doctor().warnings if w.name == "broken-plugin"]
    assert "the plugin other of stranger-pkg cannot be loaded" in warning.message


def test_none_takes_the_name_of_a_file_of_ours(installed):
    installed("raise RuntimeError('taken for ours')", name="litert")
    assert plugins.RUNTIMES.load("litert").PACKAGE == "ai-edge-litert"
    assert plugins.RUNTIMES.names().count("litert") == 1
