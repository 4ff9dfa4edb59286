from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from mobiledeploy.core import apart, native, records
from mobiledeploy.core.errors import DeployError, InputError, MissingError
from mobiledeploy.core.native import Equipment
from mobiledeploy.steps import equip


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A user's cache without the native parts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_what_is_there_is_not_fetched_again(emulator, heard, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert equip.equip(heard).versions["onnxruntime"]
    assert heard.said == []


def test_what_stood_on_a_qemu_that_is_gone_is_fetched_again(empty, heard, monkeypatch) -> None:
    record = Equipment({}, str(empty / "gone"), "")
    native.folder().mkdir(parents=True)
    records.write_atomic(native.folder() / "equipment.json", records.dumps(record))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="no apt"):
        equip.equip(heard)


def test_a_system_without_apt_is_told_what_to_do(empty, heard, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="no apt") as refused:
        equip.equip(heard)
    assert "Debian" in refused.value.hint
    # Nothing half-made is left.
    assert not any((empty / "cache" / "mobiledeploy" / "native").glob("*"))


def test_another_system_is_refused(empty, heard, monkeypatch) -> None:
    monkeypatch.setattr(equip.platform, "machine", lambda: "riscv64")
    with pytest.raises(MissingError, match="riscv64"):
        equip.equip(heard)


def test_a_wheel_of_another_hash_is_refused(tmp_path, monkeypatch) -> None:
    # A package index of one wheel, which has the right name and is not what was pinned.
    version = native.assets().packages["onnxruntime"].version
    name = f"onnxruntime-{version}-cp311-cp311-manylinux_2_28_aarch64.whl"
    wheels = tmp_path / "index"
    wheels.mkdir()
    (wheels / name).write_bytes(b"not what it says")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(InputError, match="not the one that is pinned"):
        equip._wheel("onnxruntime", "aarch64", tmp_path / "to")


def test_no_network_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeployError, match="pip download ai-edge-litert") as refused:
        equip._wheel("ai-edge-litert", "aarch64", tmp_path / "to")
    assert refused.value.exit_code == 6


def test_a_pip_of_the_current_folder_does_not_run(tmp_path, monkeypatch) -> None:
    (tmp_path / "pip.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeployError, match="pip download"):
        equip._wheel("ai-edge-litert", "aarch64", tmp_path / "to")
    assert not (tmp_path / "ran").exists()


def test_apt_never_takes_what_is_not_signed() -> None:
    assert "APT::Get::AllowUnauthenticated=false" in equip._AUTHENTICATED
    assert "Acquire::AllowInsecureRepositories=false" in equip._AUTHENTICATED


def test_everything_from_pypi_is_pinned() -> None:
    for package in native.assets().packages.values():
        for wheel in package.wheels.values():
            assert len(wheel.sha256) == 64
            int(wheel.sha256, 16)


def test_a_command_that_fails_says_its_reason() -> None:
    script = "import sys; sys.exit('W: never mind\\nERROR: the disk is full')"
    with pytest.raises(MissingError, match="it failed: the disk is full"):
        equip._run([equip.sys.executable, "-c", script], "it")
    with pytest.raises(MissingError, match="it cannot be started"):
        equip._run(["/nowhere/program"], "it")


def test_importing_it_runs_nothing() -> None:
    script = (
        "import subprocess, sys\n"
        "subprocess.Popen = None\n"
        "import mobiledeploy.steps.equip, mobiledeploy.devices.emulator\n"
        "import mobiledeploy.runners.native\n"
    )
    subprocess.run([equip.sys.executable, "-c", script], check=True)


def test_an_environment_that_is_there_is_not_fetched_again(torch_python, heard) -> None:
    made = equip.environment(apart.TORCH, heard)
    assert torch_python == apart.python(apart.TORCH)
    assert made.versions["litert-torch"] and not heard.said


@pytest.mark.slow
def test_an_environment_without_network_leaves_nothing(heard, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(MissingError, match="pip install for torch failed"):
        equip.environment(apart.TORCH, heard)
    assert not apart.folder(apart.TORCH).parent.exists()
    with pytest.raises(MissingError, match="doctor --torch"):
        apart.python(apart.TORCH)


def test_every_package_of_an_environment_is_pinned_by_a_hash() -> None:
    text = apart.lock(apart.TORCH).read_text("utf-8")
    assert len(re.findall(r"(?m)^[a-z0-9.-]+==.*\\\n +--hash=sha256:", text)) == len(
        re.findall(r"(?m)^[a-z]", text)
    )
