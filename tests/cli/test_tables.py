"""Tables on a real terminal of any width, and where there is none."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.cli import _tables
from mobiledeploy.verbs import devices, models
from tests import warm
from tests.terminals import on_terminal

RESULTS = (
    ("model", "recipe", "top-1", "device", "instructions", "latency", "when", "id"),
    (
        (
            "mobilenet_v1_0.5_160 demo",
            "int8_best.tflite",
            "97.1 %",
            "host",
            "–",
            "702 us",
            "now",
            "9",
        ),
        (
            "mobilenet_v1_0.5_160 demo",
            "float32.tflite",
            "97.2 %",
            "host",
            "–",
            "1.67 ms",
            "now",
            "7",
        ),
    ),
)


def printed(columns, headers, rows, *more):
    arguments = ", ".join(map(repr, (headers, rows, *more)))
    program = f"from mobiledeploy.cli import _frame; _frame.table({arguments})"
    return on_terminal(columns, sys.executable, "-c", program)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["models", "devices", "devices --all"])
def test_every_line_fits_the_terminal(command, columns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = on_terminal(columns, warm.program(), "-m", "mobiledeploy", *command.split())
    # A sentence below the table is broken by the terminal, between words or not.
    table = [line for line in lines if not line.startswith(("Next: ", "13 "))]
    assert max(map(len, table)) <= columns
    text = "".join(line.split("  ")[0].strip() for line in lines) + "".join(lines)
    names = (
        [one.card.name for one in models.models().models]
        if command == "models"
        else [one.name for one in devices.devices().devices if "all" in command or not one.fix]
    )
    assert names
    assert all(name in text for name in names)


def test_names_are_printed_as_they_are():
    """With brackets, too, which a library for terminals takes for its own marks."""
    rows = [["build/net[v2]/a.tflite", "1"], ["out[/b]/:smile:.tflite", "2"]]
    lines = printed(100, ["file", "x"], rows, "[t]")
    assert lines[0] == "[t]"
    assert [line.split() for line in lines[2:]] == rows


def test_a_wide_terminal_shows_everything():
    lines = printed(120, *RESULTS)
    assert len(lines) == 3
    for cell in (*RESULTS[0], *RESULTS[1][0]):
        assert any(cell in line for line in lines)


def test_what_all_rows_share_goes_to_the_title():
    lines = printed(65, *RESULTS, "figures", ("id",))
    assert lines[0] == "figures, when now, device host"
    assert lines[1].split() == ["model", "recipe", "top-1", "latency", "id"]
    assert lines[2].split()[-1] == "9"


def test_columns_that_can_be_spared_are_left_out_and_named():
    lines = printed(56, *RESULTS, "", ("id", "latency"))
    assert lines[1].split() == ["model", "recipe", "top-1", "latency"]
    assert lines[-1] == "Left out on this narrow terminal: id."


def test_the_folder_of_all_files_goes_to_the_title():
    folder = f"build/{'long/' * 12}net"
    rows = [(f"{folder}/a.tflite", "1 ms"), (f"{folder}/b.tflite", "2 ms")]
    lines = printed(75, ("file", "median"), rows)
    assert lines[0] == f"in {folder}"
    assert [line.split()[0] for line in lines[1:]] == ["file", "a.tflite", "b.tflite"]


def test_without_room_for_columns_each_row_is_a_list():
    lines = printed(30, *RESULTS, "figures")
    assert lines[0] == "figures"
    assert lines[1:3] == ["model", " " * 14 + "mobilenet_v1_0.5_160"]
    assert "id            9" in lines


def test_without_a_terminal_lines_are_whole_and_text_is_on_the_left(capsys):
    _tables.show(("name", "what", "n"), (("a", "long words", "12"), ("bcd", "no", "3")), "both")
    assert capsys.readouterr().out == (
        "both\nname  what         n\na     long words  12\nbcd   no           3\n"
    )


def test_of_many_rows_without_room_each_is_a_line_and_a_sentence():
    headers, rows = RESULTS
    lines = printed(30, headers, rows * 3, "figures")
    assert max(map(len, lines)) <= 30
    assert lines.count("mobilenet_v1_0.5_160 demo") == 6
    assert "  recipe: int8_best.tflite," in lines
    # What a row does not have is not told.
    assert not any("instructions" in line for line in lines)


def test_a_long_path_breaks_behind_a_folder():
    rows = [
        (f"build/{name}/int8_best.tflite", f"{name[0]} x " * 7) for name in ("a" * 20, "b" * 20)
    ]
    lines = printed(50, ("file", "what"), rows)
    assert lines[0] == "in build"
    cells = [line.split(" ")[0] for line in lines[2:]]
    assert [cell for cell in cells if cell] == [
        *("a" * 20 + "/", "int8_best.tflite"),
        *("b" * 20 + "/", "int8_best.tflite"),
    ]


def test_a_command_in_a_sentence_is_one_line():
    command = "Next: `mobiledeploy export --arch mobilenet_v2 --alpha 0.75`"
    assert _tables.wrapped(command, 30) == command
    assert _tables.wrapped("words and " * 4, 20).count("\n") == 1


LAYERS = tuple(
    f"mobilenet_v1/backbone/block_{block}/separable_convolution/depthwise/Relu6"
    for block in (1, 2, 13)
)


def test_names_of_layers_are_shortened_in_their_middle_and_not_broken():
    rows = [(name, "Conv2D", "1,000,000") for name in LAYERS]
    lines = printed(60, ("layer", "operator", "mult-adds"), rows, "", (), ("layer",))
    names = [line.split("  ")[0] for line in lines[1:]]
    assert max(map(len, lines)) <= 60
    # One line each: the start and the end are there, and no two look alike.
    assert len(set(names)) == len(names) == len(LAYERS)
    for whole, short in zip(LAYERS, names, strict=True):
        start, end = short.split("…")
        assert start
        assert end
        assert whole.startswith(start)
        assert whole.endswith(end)


def test_a_number_is_not_cut_in_two():
    cells = [f"mobilenet_v1/conv_pw_{block}_relu/Relu6" for block in (13, 12, 8, 9)]
    short = _tables._shortened(cells, 24)
    numbers = [name.partition("_relu")[0].rpartition("_")[2].strip("…") for name in short]
    assert numbers == ["13", "12", "8", "9"]


def test_names_are_whole_where_there_is_no_terminal_and_where_there_is_room(capsys):
    table = (("layer", "n"), tuple((name, "1") for name in LAYERS), "", (), ("layer",))
    _tables.show(*table)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(LAYERS)
    lines = printed(120, *table)
    assert [line.split()[0] for line in lines[1:]] == list(LAYERS)


words = st.text("ab c–1.,/", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(
            st.lists(words, min_size=n, max_size=n, unique=True),
            st.lists(st.lists(words, min_size=n, max_size=n), min_size=1, max_size=4),
        )
    ),
    st.integers(20, 120),
)
def test_a_table_that_fits_has_columns_of_the_width_they_need(table, width):
    headers, rows = table
    columns = tuple(zip(headers, zip(*rows, strict=True), strict=True))
    layout = _tables._fit(_tables._Layout(columns, ""), headers[1:], width)
    if layout is None:
        return
    widths = _tables._widths(layout, width)
    assert sum(widths) + 2 * (len(widths) - 1) <= width
    for (header, cells), own in zip(layout.columns, widths, strict=True):
        assert layout.least(header, cells) <= own
    kept = {header for header, _ in layout.columns} | set(layout.left_out)
    for header in set(headers) - kept:
        cells = dict(columns)[header]
        assert len(set(cells)) == 1
        assert cells[0] == "–" or f"{header} {cells[0]}" in layout.title
    assert all(a < b for a, b in pairwise([headers.index(h) for h, _ in layout.columns]))


def test_a_sentence_breaks_between_words_on_a_terminal(capsys):
    words = "Take mobilenet_v1_0.5_224 demo as float16: 95.3 % top-1, 7.87 ms on pixel-3-and-more."
    code = f"from mobiledeploy.cli import _frame; _frame.sentence({words!r})"
    lines = on_terminal(60, warm.program(), "-c", code)
    assert len(lines) == 2
    assert " ".join(lines) == words
    _tables.sentence(words)
    assert capsys.readouterr().out == f"{words}\n"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (
            ["a/x/f.tflite", "a/y/f.tflite", "a/y/g.tflite"],
            ["x/f.tflite", "y/f.tflite", "g.tflite"],
        ),
        (["f.tflite", "a/f.tflite"], ["f.tflite", "a/f.tflite"]),
        (["/tmp/f.tflite"], ["f.tflite"]),
    ],
)
def test_a_path_is_named_by_as_little_of_its_end_as_tells_it_apart(paths, names):
    assert _tables.endings(paths) == names
