"""The command line of doctor: a table, one JSON object, an exit code that scripts can use."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

from mobiledeploy import __version__
from tests import elves, warm


def mobiledeploy(
    *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sound_installation_ends_in_0(tmp_path):
    result = mobiledeploy("doctor", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"mobiledeploy {__version__}" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    version, size = metadata.version("tensorflow"), ["GB", "ok"]
    assert any(x[:3] + x[4:] == ["tensorflow", version, "export", *size] for x in lines)
    assert any(x[:1] + x[4:] == ["export", "ok"] for x in lines)
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_and_nothing_else(tmp_path):
    result = mobiledeploy("doctor", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["record"] == "Installation"


def test_a_broken_installation_ends_in_6_with_the_line_that_fixes_it(tmp_path):
    folder = tmp_path / "mobiledeploy-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: mobiledeploy\nVersion: 0.1.0\nRequires-Dist: click>=99\n"
    )
    result = mobiledeploy("doctor", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 6
    assert result.stderr == "error: click is unfit; pip install 'click>=99'\n"
    assert "unfit" in result.stdout


def test_clean_says_what_and_how_much(tmp_path):
    cache = tmp_path / "mobiledeploy" / "weights"
    cache.mkdir(parents=True)
    (cache / "a.h5").write_bytes(b"x" * 1500)
    result = mobiledeploy("doctor", "--clean", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"removed {cache} (1.50 kB)" in result.stdout
    assert not cache.exists()
    again = mobiledeploy("doctor", "--clean", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert again.stdout == "nothing to remove\n"


def test_version_names_the_runtimes(tmp_path):
    result = mobiledeploy("--version", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["mobiledeploy"] == __version__
    assert set(lines) >= {"ai-edge-litert", "onnxruntime", "tflite-runtime"}


def test_the_libraries_of_an_app_are_judged(tmp_path):
    elves.write(tmp_path / "liba.so", 16384)
    result = mobiledeploy("doctor", "--android", ".", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "liba.so" in result.stdout
    elves.write(tmp_path / "libb.so", 4096)
    result = mobiledeploy("doctor", "--android", ".", cwd=tmp_path)
    assert result.returncode == 7
    assert "1 of 2 libraries do not load on all phones, libb.so: small-pages" in result.stderr
    (tmp_path / "none").mkdir()
    result = mobiledeploy("doctor", "--android", "none", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (
        0,
        "no native libraries: nothing depends on the size of pages\n",
    )


def test_record_is_for_phone(tmp_path):
    result = mobiledeploy("doctor", "--record", "a.json", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        2,
        "error: --record is for --phone; leave it out\n",
    )


def test_two_works_at_once_are_refused(tmp_path):
    result = mobiledeploy("doctor", "--phone", "--android", "app.apk", cwd=tmp_path)
    assert result.returncode == 2
    assert "--phone does not go with --android" in result.stderr
