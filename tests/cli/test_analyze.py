import json
import re

import click
import click.testing
import onnx
import pytest

from mobiledeploy.analysis import quantization
from mobiledeploy.analysis.floors import InstructionFloors
from mobiledeploy.analysis.quantization import LayerError
from mobiledeploy.cli._frame import Amount
from mobiledeploy.cli.analyze import _where, command
from mobiledeploy.core import records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps.diagnose import QuantizationDiagnosis


def run(*arguments):
    return click.testing.CliRunner().invoke(command, list(map(str, arguments)))


def refused(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    return str(result.exception)


@pytest.fixture(scope="module")
def file(converted, tmp_path_factory):
    """An int8 v1 0.25 at 64, no record beside it."""
    path = tmp_path_factory.mktemp("analyze") / "mine.tflite"
    path.write_bytes(converted["int8_ptq", "tflite"])
    return path


def test_json_has_exact_integers_at_the_top():
    data = json.loads(run("--arch", "mobilenet_v1", "--json", "-q").stdout)
    assert data["record"] == "Analysis"
    assert (data["mult_adds"], data["params"]) == (568_740_352, 4_253_864)
    assert data["trainable_params"] == 4_231_976
    assert data["peak_activation_bytes"] == 4_816_896
    assert data["shares"][0]["kind"] == "Conv 1x1"
    assert len([row for row in data["layers"] if row["mult_adds"]]) == 28


def test_people_get_layers_kinds_and_totals(file):
    result = run(file)
    assert result.exit_code == 0
    message = result.stdout
    assert f"mine.tflite: {file}" in message
    header = ["layer", "kind", "output", "params", "mult-adds", "share", "per", "byte"]
    table = [line.split() for line in message.splitlines()]
    assert header in table
    start = table.index(header)
    rows = table[start + 1 : start + 19]
    assert all("Conv" in row or "Fully" in row for row in rows)
    assert "32x32x8" in rows[0]
    shares = table[start + 20 :]
    assert shares[0] == ["kind", "of", "layer", "layers", "mult-adds", "params"]
    assert shares[1][:3] == ["Conv", "1x1", "8"]
    assert "1,928,704 mult-adds, " in message
    assert "24.58 kB of activations at once" in message
    assert "trainable" not in message
    assert "not counted" not in message


def test_a_published_table_stands_beside_the_count():
    result = run("--table", "howard2017-2", "-q")
    assert result.exit_code == 0
    rows = {line.rpartition("  ")[0].strip(): line for line in result.stdout.splitlines()}
    (row,) = [line for line in rows.values() if line.startswith("Conv 3x3")]
    assert row.split()[2:] == ["1.19", "%", "1.91", "%", "0.02", "%", "0.02", "%"]
    assert "why: Conv 3x3: 1.19 is printed for 1.91" in result.stdout
    assert result.stdout.count("why:") == 1


def test_a_table_that_nobody_knows():
    message = refused("--table", "howard2017")
    assert "no published table named 'howard2017'" in message
    assert "did you mean howard2017-" in message


def test_the_best_of_a_budget():
    budget = ("--max-mult-adds", "150M", "--max-size", "2MB", "--min-top1", "60")
    result = run("--best", *budget)
    assert result.exit_code == 0
    header, first, *_, last = result.stdout.splitlines()
    assert header.split()[:4] == ["published", "alpha", "resolution", "top-1"]
    assert "~1." in first
    assert last.startswith("Next: `mobiledeploy ")
    data = json.loads(run("--best", *budget, "--json").stdout)
    assert data["record"] == "BudgetChoices"
    assert data["budget"] == {"mult_adds": 150_000_000, "size_bytes": 2_000_000, "top1": 0.6}
    assert data["choices"][0]["command"] in last


def test_a_budget_that_nothing_fits():
    assert "no published network fits this budget; the nearest is" in refused(
        "--best", "--max-mult-adds", "1M"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-size", "2MB"), "are for --best; add --best"),
        (("--best", "--arch", "mobilenet_v1"), "stand alone"),
        (("--table", "howard2017-6", "--res", "224"), "stand alone"),
        (("--table", "howard2017-6", "--best"), "stand alone"),
        (("--arch", "vgg16", "--alpha", "0.5"), "vgg16 has no alpha"),
        (("--arch", "mobilenet_v22"), "did you mean mobilenet_v2"),
        (("--best", "--min-top1", "0.65"), "say 65 for 65 %"),
    ],
)
def test_what_does_not_go_together(arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("150M", 150_000_000),
        ("1.5G", 1_500_000_000),
        ("500k", 500_000),
        ("2MB", 2_000_000),
        ("700kB", 700_000),
        ("1 GB", 10**9),
        ("42", 42),
        ("0.5m", 500_000),
    ],
)
def test_amounts_have_units(text, amount):
    assert Amount().convert(text, None, None) == amount


@pytest.mark.parametrize(
    "text", ["", "M", "-1M", "0", "1.5.2M", "10T", "1e6", "nan", "inf", "9" * 400]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not an amount such as 150M or 2MB"):
        Amount().convert(text, None, None)


def test_quantization_is_a_table_with_its_remedies(exported, tmp_path):
    path, _ = exported["int8_ptq", "onnx"], exported["float32", "tflite"]
    plot, nodes = tmp_path / "layers.svg", tmp_path / "nodes.json"
    result = run(path, "--quantization", "--plot", plot, "--model-explorer", nodes)
    assert result.exit_code == 0, result.output
    title, header, *rows = result.stdout.splitlines()
    assert title.startswith(f"{path} beside {path.parent / 'float32.tflite'}: 1 image (golden)")
    assert header.split()[:4] == ["layer", "kind", "SQNR", "own"]
    assert sum("CONV_2D" in row for row in rows) == 18
    assert any(row.startswith("logits: ") for row in rows)
    assert any(" of the error enters in " in row or "error is spread over" in row for row in rows)
    assert plot.read_text().startswith("<svg")
    shares = [x["value"] for x in json.loads(nodes.read_text())["results"].values()]
    assert sum(shares) == pytest.approx(100, abs=0.1)
    assert {x.name for x in tmp_path.iterdir()} == {
        *("layers.svg", "nodes.json", "nodes.own-sqnr.json", "nodes.sqnr.json")
    }
    known = {node.name for node in onnx.load(path).graph.node}
    for file in tmp_path.glob("nodes*.json"):
        assert set(json.loads(file.read_text())["results"]) <= known


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.1, 0.9], "most of the error enters in l1: 90.0 % of it, by rounding to its codes"),
        (
            [0.45, 0.05, 0.5],
            "most of the error enters in 2 of 3 layers: l2: 50.0 % of it, by rounding to its "
            "codes; l0: 45.0 % of it, by rounding to its codes",
        ),
        (
            [0.5] + [0.5 / 28] * 28,
            "the error is spread over 15 of 29 layers; its largest part is l0's: 50.0 % of it, by "
            "rounding to its codes",
        ),
    ],
)
def test_where_the_error_enters_is_said_once(shares, message):
    layers = tuple(
        LayerError(
            f"l{n}",
            "CONV_2D",
            (1, 4, 4, 8),
            (),
            20.0,
            30.0,
            25.0,
            share,
            0.99,
            0.0,
            1.0,
            0.0,
            1.0,
            8,
            0,
            0,
            0,
            0.5,
        )
        for n, share in enumerate(shares)
    )
    most = tuple(layer.name for layer in quantization.most(layers))
    facts = {"sqnr_db": 10.0, "agreement": 0.8}
    remedies = quantization.remedies(
        layers, **facts, recipe="int8_best", per_tensor=False, improved=True, known=("int8_qat",)
    )
    found = QuantizationDiagnosis(
        "a.tflite",
        "",
        "int8_best",
        (),
        "float32.tflite",
        "litert",
        "golden",
        4,
        **facts,
        enters=most[0],
        most=most,
        layers=layers,
        not_told=(),
        remedies=remedies,
    )
    assert _where(found) == message
    spread = [r.why for r in remedies if "spread" in r.why]
    assert bool(spread) == ("spread" in message)
    assert all(f"spread over {len(most)} of {len(layers)} layers" in why for why in spread)


def test_quantization_is_one_record(exported):
    path = exported["int8_ptq", "tflite"]
    result = run(path, "--quantization", "--json", "-q", "--input-range", "0,1")
    found = records.loads(QuantizationDiagnosis, result.stdout)
    assert found.artifact == str(path)
    assert found.enters in [layer.name for layer in found.layers]
    other = records.loads(QuantizationDiagnosis, run(path, "--quantization", "--json", "-q").stdout)
    assert other.sqnr_db != found.sqnr_db


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quantization",), "takes an artifact"),
        (("a.tflite", "--quantization", "--res", 96), "stands alone"),
        (("a.tflite", "--quantization", "--best"), "stands alone"),
        (("a.tflite", "--data", "demo"), "are for --quantization"),
        (("a.tflite", "--plot", "a.svg"), "are for --quantization"),
        (("a.tflite", "--input-range", "0,1"), "are for --quantization"),
        (("a.tflite", "--quantization", "--plot", "a.gif"), "neither .svg nor .png"),
        (("a.tflite", "--quantization", "--model-explorer", "a.txt"), "is not a .json"),
        (("--best", "--model-explorer", "a.json"), "goes with a file"),
        (("--device", "emulator"), "takes a file and stands alone"),
        (("a.tflite", "--device", "emulator", "--res", 96), "stands alone"),
        (("a.tflite", "--device", "emulator", "--quantization"), "stands alone"),
        (("a.h5", "--device", "emulator"), "takes a finished file"),
        (("a.tflite", "--device", "host"), "does not count instructions"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    assert message in refused(*arguments)


def test_people_see_where_the_distance_from_the_floor_is(emulator, exported, here):
    result = run(exported["int8_ptq", "tflite"], "--device", "emulator:cortex-a76")
    assert result.exit_code == 0, result.output
    message = result.stdout
    assert "counted on an emulated cortex-a76, litert" in message
    assert "not a time" in message
    rows = [re.split(r"  +", line.rstrip()) for line in message.splitlines()]
    total = next(row for row in rows if row[0] == "total")
    floor, instructions = (int(cell.replace(",", "")) for cell in total[-3:-1])
    assert float(total[-1]) == round(instructions / floor, 2) > 1
    above = instructions - floor
    where = next(line for line in message.splitlines() if f"of the {above:,} instructions" in line)
    assert "in 5 of 18 layers: " in where or re.search("in [1-4] of 18 layers: ", where)
    assert "of the instructions multiply" in message


@pytest.mark.slow
def test_onnx_has_a_total_and_no_layers(emulator, exported, here):
    result = run(exported["int8_ptq", "onnx"], "--device", "emulator:cortex-a53", "--json", "-q")
    found = records.loads(InstructionFloors, result.stdout)
    assert found.kind == "counted"
    assert found.ratio == found.instructions / found.floor > 1
    assert {layer.instructions for layer in found.layers} == {None}
    assert (found.kinds, found.most, found.other_instructions) == ((), (), None)
