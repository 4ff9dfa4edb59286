"""doctor sees what is installed and what is not, and cleans no more than our caches."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mobiledeploy import __version__
from mobiledeploy.core import artifacts, assets, package, records
from mobiledeploy.core.plugins import RUNTIMES
from mobiledeploy.verbs import doctor


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return assets.cache_dir()


def installed(
    tmp_path: Path, packages: dict[str, str], *requires: str
) -> dict[str, doctor.InstalledPart]:
    """The parts that doctor sees where exactly `packages` are installed."""
    for name, version in ({"mobiledeploy": __version__} | packages).items():
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {r}" for r in requires if name == "mobiledeploy"]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
    code = (
        "import importlib.metadata, sys\n"
        "from mobiledeploy.core import cards, records\n"
        "from mobiledeploy.store import database\n"
        "from mobiledeploy.verbs import doctor\n"
        "sys.path[:] = [sys.argv[1]]\n"
        "print(records.dumps(doctor.doctor()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    diagnosis = records.loads(doctor.Installation, result.stdout)
    found = {part.name: part for part in diagnosis.parts}
    found["extras"] = diagnosis.extras
    found["warnings"] = {warning.name: warning for warning in diagnosis.warnings}
    return found


def test_versions_are_those_of_the_installed_runtimes():
    found = doctor.versions()
    assert found["ai-edge-litert"] == metadata.version("ai-edge-litert")
    assert found["onnxruntime"] == metadata.version("onnxruntime")
    for runtime in RUNTIMES.names():
        assert any(package.endswith(runtime.replace("_", "-")) for package in found), runtime


def test_this_installation_is_sound():
    diagnosis = doctor.doctor()
    assert diagnosis.broken == ()
    parts = {part.name: part for part in diagnosis.parts}
    click = parts["click"]
    assert (click.extra, click.version, click.state) == ("base", metadata.version("click"), "ok")
    assert parts["tensorflow"].extra == "export"
    assert "pytest" not in parts
    assert diagnosis.free_disk_bytes > 0


def test_every_extra_of_the_metadata_is_listed_with_its_cost():
    diagnosis = doctor.doctor()
    extras = {extra.name: extra for extra in diagnosis.extras}
    assert extras.keys() == {"base", *metadata.metadata("mobiledeploy").get_all("Provides-Extra")}
    parts = {part.name: part for part in diagnosis.parts}
    scipy = metadata.distribution("scipy")
    assert parts["scipy"].size_bytes >= sum(file.size or 0 for file in scipy.files) > 50e6
    base, export = extras["base"], extras["export"]
    assert base.size_bytes >= sum(parts[name].size_bytes for name in ("numpy", "scipy", "onnx"))
    assert {"tensorflow", "h5py"} <= set(export.packages)
    assert not set(export.packages) & set(base.packages)
    assert set(export.packages) <= set(extras["all"].packages)
    assert "pytest" in extras["dev"].packages


def test_what_work_on_mobiledeploy_needs_is_listed_in_a_checkout_alone(monkeypatch):
    monkeypatch.setattr(package, "in_checkout", lambda: False)
    diagnosis = doctor.doctor()
    extras = {extra.name for extra in diagnosis.extras}
    assert extras == {"base", *metadata.metadata("mobiledeploy").get_all("Provides-Extra")} - {
        "dev",
        "docs",
    }
    assert not {"docs", "dev"} & {part.extra for part in diagnosis.parts}


def test_an_extra_costs_what_it_needs_beyond_the_base(tmp_path):
    """`more` needs what `base` has too, and something of a line that nobody can read."""
    requires = {
        "base": (),
        "more": ("Deep_er", "base", "not a requirement !"),
        "deep-er": ("more",),
    }
    for name, lines in requires.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        texts = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1"]
        texts += [f"Requires-Dist: {line}" for line in lines]
        (folder / "METADATA").write_text("\n".join(texts) + "\n")
        (tmp_path / f"{name}.py").write_bytes(b"#" * 10 ** (1 + len(lines)))
        (folder / "RECORD").write_text(f"{name}.py,,\ngone.pyc,,\n")
    found = installed(
        tmp_path,
        {},
        "base",
        'more; extra == "x"',
        'absent; extra == "y"',
        'mobiledeploy[x,y]; extra == "all"',
    )
    assert found["more"].size_bytes == 10**4
    assert found["absent"].size_bytes is None
    assert [dataclasses.astuple(one) for one in found["extras"]] == [
        ("base", ("base",), (), "ok", 10),
        ("all", ("deep-er", "more"), ("absent",), "missing", None),
        ("x", ("deep-er", "more"), (), "ok", 10**4 + 10**2),
        ("y", (), ("absent",), "missing", None),
    ]


def test_it_imports_no_library():
    code = (
        "import sys\nfrom mobiledeploy.verbs import doctor\n"
        "doctor.doctor(); doctor.versions(); print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"tensorflow", "tf_keras", "keras", "onnxruntime", "ai_edge_litert", "tflite_runtime"}
    assert not heavy & set(result.stdout.split())


def test_a_missing_base_package_is_broken(tmp_path):
    found = installed(tmp_path, {}, "click>=8.2")
    assert found["click"] == doctor.InstalledPart(
        "click", "base", None, "missing", "pip install mobiledeploy"
    )


def test_it_works_where_numpy_is_missing():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from mobiledeploy.verbs import doctor\n"
        "print(doctor.versions()['onnxruntime'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == metadata.version("onnxruntime")


def test_a_package_outside_our_bounds_is_unfit(tmp_path):
    found = installed(tmp_path, {"click": "7.1"}, "click>=8.2")
    assert found["click"].state == "unfit"
    assert found["click"].fix == "pip install 'click>=8.2'"


def test_a_missing_extra_names_its_line(tmp_path):
    found = installed(tmp_path, {}, "tensorflow<2.22,>=2.21; extra == 'export'")
    assert found["tensorflow"] == doctor.InstalledPart(
        "tensorflow", "export", None, "missing", "pip install 'mobiledeploy[export]'"
    )


def test_what_this_python_cannot_have_is_not_asked_for(tmp_path):
    marker = "python_version < '3.0' and sys_platform == 'linux' and extra == 'tflite-runtime'"
    found = installed(tmp_path, {}, f"tflite-runtime==2.14.0; {marker}")
    assert found["tflite-runtime"].state == "unavailable"


def test_numpy_2_beside_tflite_runtime_is_a_warning(tmp_path):
    requires = ("numpy>=1.26", "tflite-runtime==2.14.0; extra == 'tflite-runtime'")
    found = installed(tmp_path, {"numpy": "2.5.5", "tflite-runtime": "2.14.0"}, *requires)
    assert "numpy<2" in found["warnings"]["numpy-2-with-tflite-runtime"].advice


def test_numpy_1_beside_tflite_runtime_is_none(tmp_path):
    requires = ("numpy>=1.26", "tflite-runtime==2.14.0; extra == 'tflite-runtime'")
    found = installed(tmp_path, {"numpy": "1.26.4", "tflite-runtime": "2.14.0"}, *requires)
    assert "numpy-2-with-tflite-runtime" not in found["warnings"]


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (
            "'Android Debug Bridge version 1.0.41\nVersion 29.0.6-debian\nInstalled as adb'",
            "29.0.6-debian",
        ),
        ("qemu-aarch64 version 7.2.22 Debian", "7.2.22"),
        ("hello", None),
    ],
)
def test_a_program_on_the_path_is_found_with_its_version(message, version, tmp_path, monkeypatch):
    program = tmp_path / "adb"
    program.write_text(f"#!/bin/sh\necho {message}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    parts = {part.name: part for part in doctor.doctor().parts}
    assert parts["adb"] == doctor.InstalledPart("adb", "phones", version, "ok")


def test_the_ssh_on_the_path_is_found_with_its_version(tmp_path, monkeypatch):
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\n[ "$*" = -V ] && echo "OpenSSH_9.2p1 Debian-2, OpenSSL 3" >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    parts = {part.name: part for part in doctor.doctor().parts}
    assert parts["ssh"] == doctor.InstalledPart("ssh", "boards", "9.2p1", "ok")


def test_the_sdk_s_adb_is_found_off_the_path(tmp_path, monkeypatch):
    program = tmp_path / "platform-tools" / "adb"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho Version 36.0.0-1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    parts = {part.name: part for part in doctor.doctor().parts}
    assert parts["adb"] == doctor.InstalledPart("adb", "phones", "36.0.0-1", "ok")


def test_a_qemu_without_the_parts_beside_it_is_no_emulator(tmp_path, monkeypatch) -> None:
    program = tmp_path / "qemu-aarch64"
    program.write_text("#!/bin/sh\necho version 7.2.22\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parts = {part.name: part for part in doctor.doctor().parts}
    assert parts["qemu-aarch64"].state == "missing"


def test_an_absent_program_names_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts = {part.name: part for part in doctor.doctor().parts}
    fix = "apt install adb, or name it in MOBILEDEPLOY_ADB"
    assert parts["adb"] == doctor.InstalledPart("adb", "phones", None, "missing", fix)
    assert parts["qemu-aarch64"].fix == "mobiledeploy doctor --emulator"
    assert parts["ssh"].fix == "apt install openssh-client"


def test_places_say_what_lies_there(cache):
    before = {place.name: place for place in doctor.places()}["cache"]
    assert (before.path, before.size_bytes) == (str(cache), None)
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "a.h5").write_bytes(b"x" * 1000)
    assert {place.name: place for place in doctor.places()}["cache"].size_bytes == 1000


def test_clean_removes_the_cache_and_says_how_much(cache):
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "a.h5").write_bytes(b"x" * 1000)
    cleaned = doctor.doctor_clean()
    assert [(p.name, p.size_bytes) for p in cleaned.removed] == [("weights", 1000)]
    assert list(cache.iterdir()) == []
    assert doctor.doctor_clean().removed == ()


def test_clean_follows_no_link_out_of_the_cache(cache, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept").write_text("kept")
    cache.mkdir(parents=True)
    (cache / "link").symlink_to(mine, target_is_directory=True)
    doctor.doctor_clean()
    assert (mine / "kept").read_text() == "kept"
    assert not (cache / "link").is_symlink()


def test_clean_leaves_the_leases(cache):
    (cache / "leases").mkdir(parents=True)
    (cache / "leases" / "host.lock").touch()
    assert doctor.doctor_clean().removed == ()
    assert (cache / "leases" / "host.lock").exists()


def test_clean_sweeps_what_a_killed_export_left_aside(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "build" / "v1_0.5"
    made.mkdir(parents=True)
    with artifacts.staging(made) as alive:
        dead = made.parent / ".v1_0.5.dead.staging"
        dead.mkdir()
        (dead / "lock").touch()  # which nobody holds
        assert [place.name for place in doctor.doctor_clean().removed] == [dead.name]
        assert sorted(p.name for p in made.parent.iterdir()) == [alive.name, made.name]


def test_a_diagnosis_is_a_record():
    diagnosis = doctor.doctor()
    text = records.dumps(diagnosis)
    assert records.loads(doctor.Installation, text) == diagnosis
    assert json.loads(text)["schema_version"] == records.SCHEMA_VERSION
