from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mobiledeploy.core import native
from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.core.package import shipped
from mobiledeploy.devices import emulator as device


@pytest.fixture
def nothing_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_without_the_native_parts_the_fix_is_named(nothing_there, heard) -> None:
    assert {one.fix for one in device.available()} == {native.FIX}
    assert "emulator:cortex-a76" in {one.name for one in device.available()}
    with pytest.raises(MissingError) as refused:
        device.open("emulator", exclusive=True, reporter=heard).__enter__()
    assert refused.value.hint == native.FIX


def test_the_cores_that_qemu_has_are_ready(emulator) -> None:
    seen = {one.name: one for one in device.available()}
    assert {"emulator:cortex-a53", "emulator:cortex-a72", "emulator:cortex-a76"} <= set(seen)
    assert {one.fix for one in seen.values()} == {""}


@pytest.mark.parametrize("name", ["emulator:", "emulator"])
def test_a_big_core_is_the_default(emulator, heard, name) -> None:
    with device.open(name, exclusive=True, reporter=heard) as session:
        facts = session.facts()
    assert (facts["core"], facts["machine"]) == ("cortex-a76", "aarch64")
    assert facts["version_qemu"].startswith("qemu ")
    assert facts["version_libc6"]
    assert facts["version_counter"]


def test_an_unknown_core_is_refused(emulator, heard) -> None:
    with pytest.raises(UsageError, match="no core named 'cortex-m4'"):
        device.open("emulator:cortex-m4", exclusive=True, reporter=heard).__enter__()


def test_a_program_of_the_core_runs_and_is_counted(emulator, heard) -> None:
    with device.open("emulator:cortex-a53", exclusive=True, reporter=heard) as session:
        process = session.run([str(native.runner("aarch64")), "predict"])
        lines = list(process.lines())
        status, _ = process.wait()
    assert status == 2
    assert '"record":"Failure"' in lines[-1]


# Of each instruction: its word, as an assembler makes it; the class; bytes loaded and stored.
WORDS = {
    "sdot v0.4s, v1.16b, v2.16b": (0x4E829420, "sdot", 0, 0),
    "udot v0.4s, v1.16b, v2.4b[1]": (0x6FA2E020, "sdot", 0, 0),
    "smmla v0.4s, v1.16b, v2.16b": (0x4E82A420, "mmla", 0, 0),
    "fmla v0.4s, v1.4s, v2.s[0]": (0x4F821020, "fmla", 0, 0),
    "fmla v0.4s, v1.4s, v2.4s": (0x4E22CC20, "fmla", 0, 0),
    "fmla v0.8h, v1.8h, v2.8h": (0x4E420C20, "fmla16", 0, 0),
    "fmadd s0, s1, s2, s3": (0x1F020C20, "fmadd", 0, 0),
    "smlal v0.4s, v1.4h, v2.4h": (0x0E628020, "mla", 0, 0),
    "mla v0.4s, v1.4s, v2.4s": (0x4EA29420, "mla", 0, 0),
    "add v0.4s, v1.4s, v2.4s": (0x4EA28420, "simd", 0, 0),
    "movi v0.4s, #0": (0x4F000400, "simd", 0, 0),
    "ldr q0, [x1]": (0x3DC00020, "load_simd", 16, 0),
    "str q0, [x1]": (0x3D800020, "store_simd", 0, 16),
    "ldp q0, q1, [x2]": (0xAD400440, "load_simd", 32, 0),
    "ld1 {v0.16b-v3.16b}, [x0]": (0x4C402000, "load_simd", 64, 0),
    "ld1r {v0.4s}, [x0]": (0x4D40C800, "load_simd", 4, 0),
    "ld1 {v0.d}[0], [x0]": (0x0D408400, "load_simd", 8, 0),
    "ldr x0, [x1]": (0xF9400020, "load", 8, 0),
    "ldrb w0, [x1]": (0x39400020, "load", 1, 0),
    "stp x0, x1, [sp, #-16]!": (0xA9BF07E0, "store", 0, 16),
    "prfm pldl1keep, [x0]": (0xF9800000, "prefetch", 0, 0),
    "b .": (0x14000000, "branch", 0, 0),
    "ret": (0xD65F03C0, "branch", 0, 0),
    "add x0, x1, x2": (0x8B020020, "alu", 0, 0),
    "mul x0, x1, x2": (0x9B027C20, "alu", 0, 0),
}

MAIN = """
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *t) { (void)t; return 0; }
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *t, size_t i)
{ (void)t, (void)i; return 0; }
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *i) { return i; }
void qemu_plugin_register_vcpu_tb_trans_cb(PluginId i, OnTranslation f) { (void)i, (void)f; }
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *t, OnExecution f, int n, void *d)
{ (void)t, (void)f, (void)n, (void)d; }
void qemu_plugin_register_vcpu_syscall_cb(PluginId i, OnCall f) { (void)i, (void)f; }
int main(int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    uint16_t counts[COUNTS] = {0};
    count((uint32_t)strtoul(argv[i], NULL, 0), counts);
    for (int k = 0; k < COUNTS; ++k) printf("%d ", counts[k]);
    for (int k = 0; k < BYTES_LOADED; ++k) if (counts[k]) puts(names[k]);
  }
}
"""


def test_the_counter_distinguishes_instructions(tmp_path) -> None:
    try:
        subprocess.run(["cc", "--version"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler named cc (apt install gcc)")
    counter = shipped("android_bench") / "counter" / "counter.c"
    (tmp_path / "main.c").write_text(f'#include "{counter}"\n{MAIN}')
    program = tmp_path / "classes"
    subprocess.run(["cc", "-o", program, tmp_path / "main.c", "-pthread"], check=True)
    words = [hex(word) for word, *_ in WORDS.values()]
    message = subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout
    for line, (name, (_, kind, loaded, stored)) in zip(
        message.splitlines(), WORDS.items(), strict=True
    ):
        *numbers, found = line.split()
        assert found == kind, name
        assert [int(n) for n in numbers[-2:]] == [loaded, stored], name
        assert sum(map(int, numbers[:-2])) == 1, name


def test_the_sources_name_the_folder(tmp_path, monkeypatch) -> None:
    before = native.folder().name
    copy = tmp_path / "android_bench"
    for path in shipped("android_bench").rglob("*"):
        if path.is_file():
            to = copy / path.relative_to(shipped("android_bench"))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    monkeypatch.setattr(native, "shipped", lambda folder: copy)
    assert native.folder().name == before
    (copy / "counter" / "counter.c").write_text("int changed;")
    assert native.folder().name != before
    assert Path(native.folder()).parent.name == "native"
