"""The wheel: what is in it, and that it works where nothing else of ours is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from mobiledeploy import __version__

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_is_this_version(wheel):
    assert wheel.name == f"mobiledeploy-{__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {"mobiledeploy", f"mobiledeploy-{__version__}.dist-info"}
    assert {name.partition("/")[0] for name in names} == roots
    for folder in ("models", "android_bench"):
        own = (REPOSITORY / folder).rglob("*")
        there = {f"mobiledeploy/_data/{p.relative_to(REPOSITORY).as_posix()}" for p in own}
        packed = {name for name in names if name.startswith(f"mobiledeploy/_data/{folder}/")}
        assert packed
        assert packed <= there
    assert "mobiledeploy/_data/models/mobilenet_v1.toml" in names
    assert "mobiledeploy/_data/android_bench/PROTOCOL.md" in names
    assert "mobiledeploy/py.typed" in names
    assert "mobiledeploy/reports/templates/page.html" in names
    assert "mobiledeploy/core/allowed/saved_model_operators.txt" in names
    assert not [n for n in names if re.search(r"__pycache__|_cache/|\.pyc$|/tests/|\.so$", n)]


def test_the_wheel_asks_for_the_base_only(wheel):
    (name,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
    lines = zipfile.ZipFile(wheel).read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist:")]
    base = {re.split(r"[^\w-]", line.split()[1])[0] for line in required if "extra ==" not in line}
    assert {"ai-edge-litert", "click", "numpy", "onnxruntime", "pillow"} <= base
    assert not {"tensorflow", "tf-keras", "keras", "tflite-runtime", "pytest"} & base


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--directory"]
    subprocess.run(
        [*build, tmp_path, "--target", "sdist"], cwd=REPOSITORY, check=True, capture_output=True
    )
    (sdist,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", sdist.name], cwd=tmp_path, check=True)
    source = tmp_path / sdist.name.removesuffix(".tar.gz")
    subprocess.run(
        [*build, tmp_path, "--target", "wheel"], cwd=source, check=True, capture_output=True
    )
    again = zipfile.ZipFile(tmp_path / wheel.name).namelist()
    assert sorted(again) == sorted(zipfile.ZipFile(wheel).namelist())


# Installed in a clean environment, with the base dependencies as the lock pins them


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel and what it asks for."""
    if find_spec("ensurepip") is None:
        pytest.skip("no clean environment (apt install python3-venv)")
    folder = tmp_path_factory.mktemp("clean environment")
    lock = (REPOSITORY / "requirements.lock").read_text("utf-8")
    pins = folder / "pins.txt"
    pins.write_text("\n".join(re.findall(r"^([a-z0-9][^\\\n]*?) *\\?$", lock, re.MULTILINE)))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bin_ = folder / "venv" / "bin"
    done = subprocess.run(
        [
            bin_ / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--retries",
            "1",
            "--only-binary",
            ":all:",
            "--constraint",
            pins,
            wheel,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if re.search(r"NewConnectionError|NameResolution|Max retries|ReadTimeout", done.stderr):
        pytest.skip("the base dependencies cannot be fetched (connect to a package index)")
    assert done.returncode == 0, done.stderr
    return bin_


def run(
    bin_: Path, *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [bin_ / "mobiledeploy", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_installed_it_lists_the_cards(clean, tmp_path):
    done = run(clean, "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mobilenet_v1" in done.stdout


@pytest.mark.slow
def test_installed_export_names_the_line_that_is_missing(clean, tmp_path):
    done = run(clean, "export", "--alpha", "0.5", "--res", "160", cwd=tmp_path)
    assert done.returncode == 6
    assert "pip install 'mobiledeploy[export]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "build").exists()


@pytest.mark.slow
def test_installed_doctor_is_content_and_names_the_extra(clean, tmp_path):
    done = run(clean, "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
    assert parts["tensorflow"]["state"] == "missing"
    assert parts["tensorflow"]["fix"] == "pip install 'mobiledeploy[export]'"
    assert parts["onnxruntime"]["state"] == "ok"


@pytest.mark.slow
def test_installed_it_says_its_version(clean):
    done = run(clean, "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"mobiledeploy {__version__}\n")


@pytest.mark.slow
def test_installed_every_light_verb_imports(clean):
    for verb in ("bench", "doctor", "evaluate", "export", "models"):
        code = f"import mobiledeploy.verbs.{verb}"
        done = subprocess.run(
            [clean / "python", "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
