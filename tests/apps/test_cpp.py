"""An app in C++ as its own commands build it, on this machine and on an emulated aarch64 core."""

from __future__ import annotations

import platform
import shutil

import pytest

from mobiledeploy.apps import cpp
from mobiledeploy.core import native
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.ports import SILENT
from mobiledeploy.verbs.app import app
from tests.apps.conftest import BROKEN_PPM, INT8, LIBRARY, SCORES, artifact, network, run

CROSS = "aarch64-linux-gnu-g++"


@pytest.fixture
def made(tmp_path):
    path = artifact(tmp_path / "made", network(SCORES, kind=INT8))
    app(path, language="cpp", out=tmp_path / "app", reporter=SILENT)
    return tmp_path / "app"


@pytest.mark.slow
def test_its_commands_build_and_test_it(made):
    if not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("no compiler for C++ (apt install cmake g++)")
    install, *others = cpp.COMMANDS
    assert install == "pip install --no-deps --target litert -r requirements.txt"
    # In place of a download: the same library, of the installed package.
    library = native.library(platform.machine(), "ai-edge-litert", LIBRARY)
    absent = run(["cmake", "-B", "build"], made)
    assert absent.returncode != 0
    assert install in " ".join(absent.stderr.split())
    (made / "litert").mkdir()
    (made / "litert" / library.parent.name).symlink_to(library.parent)
    for command in others:
        done = run(command.split(), made)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr.lower()
    assert "100% tests passed" in done.stdout


@pytest.mark.slow
def test_it_replays_its_golden_samples_on_an_emulated_core(made, emulator, monkeypatch):
    if not (shutil.which("cmake") and shutil.which(CROSS)):
        pytest.skip("no cross compiler (apt install cmake g++-aarch64-linux-gnu)")
    library = native.library("aarch64", "ai-edge-litert", LIBRARY)
    cross = {"SYSTEM_NAME": "Linux", "SYSTEM_PROCESSOR": "aarch64", "CXX_COMPILER": CROSS}
    settings = [f"-DCMAKE_{name}={value}" for name, value in cross.items()]
    for argv in (
        ["cmake", "-B", "build", *settings, f"-DLITERT_LIBRARY={library}"],
        ["cmake", "--build", "build"],
    ):
        done = run(argv, made)
        assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.chdir(made)
    for core in ("cortex-a53", "cortex-a76"):
        with DEVICES.load("emulator").open(
            f"emulator:{core}", exclusive=False, reporter=SILENT
        ) as session:
            program = session.run([str(made / "build" / "golden_test")])
            assert list(program.lines()) == ["pass: the golden samples are replayed\n"]
            assert program.wait()[0] == 0


@pytest.mark.parametrize(("content", "message"), [*BROKEN_PPM, (None, "cannot be read")])
def test_a_broken_image_is_named(content, message, made, build):
    build("cpp", made)
    if content is not None:
        (made / "broken.ppm").write_bytes(content)
    done = run([made / "build" / "app", "broken.ppm"], made)
    assert done.returncode == 1
    assert f"broken.ppm {message}" in done.stderr


def test_an_image_with_a_comment_is_read(made, build):
    build("cpp", made)
    (made / "a.ppm").write_bytes(b"P6\n# by hand\n2 1\n255\n" + bytes(6))
    done = run([made / "build" / "app", "a.ppm"], made)
    assert done.returncode == 0, done.stderr
