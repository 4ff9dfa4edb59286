from __future__ import annotations

import pytest

from mobiledeploy.core import elf
from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.core.types import Target
from mobiledeploy.runners import native


@pytest.mark.parametrize("machine", ["android-x86_64", "armv7l", "android-armv7l", ""])
def test_without_a_native_runner_the_error_names_another(machine: str) -> None:
    with pytest.raises(MissingError, match="no native runner for .*; --runner benchmark_model"):
        native.files(machine, "litert")


def test_android_also_gets_the_c_library(emulator) -> None:
    files = native.files("android-aarch64", "litert")
    assert {"runner", "library", native.LOADER, *native.C_LIBRARIES} == set(files)
    # They find each other by name, in one folder.
    for name in (native.LOADER, *native.C_LIBRARIES):
        assert files[name].name == name
        assert files[name].read_bytes()[:4] == b"\x7fELF"
    there = {role: f"/data/it/{path.name}" for role, path in files.items()}
    argv = native.bench("m", Target("", "native", "litert", 1, ""), None, there)
    assert argv[:4] == (there[native.LOADER], "--library-path", "/data/it", there["runner"])
    plain = native.files("aarch64", "litert")
    assert set(plain) == {"runner", "library"}
    assert sum(path.stat().st_size for path in files.values()) < 13e6


@pytest.mark.parametrize("runtime", native.runtimes())
def test_android_can_load_all_of_it(emulator, runtime: str) -> None:
    """Pages of 16 KB suffice, and what they need is Android's or comes with them."""
    paths = native.files("android-aarch64", runtime).values()
    brought = {path.name for path in paths}
    for path in paths:
        file = elf.read(path)
        assert file is not None
        assert (file.machine, file.lacking(brought)) == ("aarch64", ())
        assert file.page_bytes is not None
        assert file.page_bytes >= elf.PAGE_BYTES, path


def test_the_library_of_a_gpu_comes_with_it_where_the_package_has_one(emulator) -> None:
    files = native.files("aarch64", "litert", "gpu")
    assert set(files) == {"runner", "library", "gpu"}
    assert files["gpu"].name == "libLiteRtWebGpuAccelerator.so"
    # They find each other in one folder.
    assert files["gpu"].parent == files["library"].parent
    assert files["gpu"].read_bytes()[:4] == b"\x7fELF"
    with pytest.raises(UsageError, match="GPU of Android; --runner benchmark_model"):
        native.files("android-aarch64", "litert", "gpu")
    with pytest.raises(UsageError, match="onnxruntime has no library for the GPU of any device"):
        native.files("aarch64", "onnxruntime", "gpu")
