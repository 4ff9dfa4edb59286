"""ELF files are read as the linker wrote them, and damaged ones are refused."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core import elf
from mobiledeploy.core.elf import ElfFile
from mobiledeploy.core.errors import InputError
from tests import elves

COMPILER = "aarch64-linux-gnu-gcc"


@pytest.mark.parametrize("pages", [4096, 16384, 65536])
def test_what_a_linker_aligned_is_read(pages: int, tmp_path: Path) -> None:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed (apt install gcc-aarch64-linux-gnu)")
    source, library = tmp_path / "a.c", tmp_path / "liba.so"
    source.write_text(
        '#include <math.h>\n#include <stdio.h>\ndouble a(double x) { return puts("") + sin(x); }\n'
    )
    option = f"-Wl,-z,max-page-size={pages}"
    argv = [COMPILER, "-shared", "-fPIC", option, "-o", library, source, "-lm"]
    subprocess.run(argv, check=True)
    assert elf.read(library) == ElfFile("aarch64", pages, ("libm.so.6", "libc.so.6"))
    assert option == elf.LINKER_OPTION or pages != elf.PAGE_BYTES


def test_a_file_of_32_bits_and_a_static_one(tmp_path: Path) -> None:
    if shutil.which("ld") is None or shutil.which("as") is None:
        pytest.skip("no linker for this machine (apt install binutils)")
    source, program = tmp_path / "a.s", tmp_path / "a"
    source.write_text(".globl _start\n_start: hlt\n")
    objects = tmp_path / "a.o"
    subprocess.run(["as", "--32", "-o", objects, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", program, objects], check=True)
    assert elf.read(program) == ElfFile("i686", 4096, ())


def test_an_address_that_does_not_fit_the_offset_has_smaller_pages(tmp_path: Path) -> None:
    # The header claims 64 KB, and no system can map it at that page.
    file = elf.read(elves.write(tmp_path / "a", 65536, address=0x11000))
    assert file == ElfFile("aarch64", 4096, ())


def test_libraries_that_android_lacks_are_named(tmp_path: Path) -> None:
    file = elf.read(elves.write(tmp_path / "a", 16384, needed="libc.so.6"))
    assert file is not None
    assert file.lacking([]) == ("libc.so.6",)
    assert file.lacking(["libc.so.6"]) == ()
    file = elf.read(elves.write(tmp_path / "a", 16384, needed="liblog.so"))
    assert file == ElfFile("aarch64", 16384, ("liblog.so",))
    assert file.lacking([]) == ()


def test_other_files_are_not_elf(tmp_path: Path) -> None:
    for content in (b"", b"\x7fELF", b"#!/bin/sh\n" * 10):
        (tmp_path / "a").write_bytes(content)
        assert elf.read(tmp_path / "a") is None


@pytest.mark.parametrize("end", [63, 100, 180, -1])
def test_a_file_that_is_cut_off_is_damaged(end: int, tmp_path: Path) -> None:
    whole = elves.write(tmp_path / "a", 16384, needed="libc.so.6").read_bytes()
    (tmp_path / "a").write_bytes(whole[:end])
    with pytest.raises(InputError, match="a is a damaged ELF file; build or copy it again"):
        elf.read(tmp_path / "a")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(4, 300), byte=st.integers(0, 255))
def test_any_byte_may_be_wrong(place: int, byte: int, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "wrong.elf"
    content = bytearray(elves.write(path, 16384, needed="libc.so.6").read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    with suppress(InputError):
        elf.read(path)
