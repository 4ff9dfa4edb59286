from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import quantization
from mobiledeploy.analysis.quantization import CodeGrid, LayerError, Scaling, Tally

GRID = CodeGrid(0.1, -28, -128, 127)  # -10 to 15.5
RANDOM = np.random.default_rng(0)


@given(st.floats(1e-6, 1e3), st.integers(-128, 127), st.integers(-128, 127))
def test_a_code_is_the_code_of_what_it_stands_for(scale: float, zero: int, code: int) -> None:
    grid = CodeGrid(scale, zero, -128, 127)
    assert grid.codes(grid.real(np.array([code]))).tolist() == [code]
    assert not grid.beyond(grid.real(np.array([code]))).any()


@given(st.floats(-100, 100))
def test_a_value_within_the_range_is_off_by_half_a_step_at_most(value: float) -> None:
    real = np.array([value])
    off = abs(GRID.real(GRID.codes(real)) - real)[0]
    assert (off <= 0.05 + 1e-9) != bool(GRID.beyond(real)[0])


def test_decibels_are_bounded() -> None:
    assert quantization.decibels(100.0, 1.0) == pytest.approx(20)
    assert quantization.decibels(0.0, 0.0) == quantization.decibels(1.0, 0.0) == 200
    assert quantization.decibels(0.0, 1.0) == -200


def tally(exact, delivered=None, own=None, reference=None, grid=GRID, factor=1.0) -> LayerError:
    """One image's row; missing arguments are the exact values, rounded to codes."""
    result = Tally(grid, np.full(exact.shape[-1], factor))
    rounded = grid.codes(exact * factor).astype(np.int8)
    delivered, own = (rounded if x is None else x for x in (delivered, own))
    result.add(exact, delivered, own, exact if reference is None else reference)
    return result.error("layer", "CONV_2D", exact.shape, (), alone=1.0, power=100.0, share=0.5)


def test_an_error_is_divided_by_cause() -> None:
    exact = RANDOM.uniform(-9, 15, (1, 8, 8, 4))
    row = tally(exact)
    assert (row.cause, row.coded, row.clipped, row.weighted) == ("codes", 1.0, 0.0, 0.0)
    assert row.alone_sqnr_db == pytest.approx(20)
    # A step of 0.1: its rounding has a power of 0.01 / 12.
    power = (exact**2).mean()
    assert row.own_sqnr_db == pytest.approx(10 * np.log10(power / (0.01 / 12)), abs=0.5)
    far = exact.copy()
    far[..., 1] += 40
    row = tally(far)
    assert row.cause == "clipped"
    assert row.saturated == 1
    off = (GRID.codes(exact) + 5).astype(np.int8)
    assert tally(exact, own=off).cause == "weights"


def test_values_that_no_reader_tells_apart_are_no_error() -> None:
    exact = RANDOM.uniform(-30, 15, (1, 8, 8, 4))
    clipped = np.maximum(exact, -3)
    far = GRID.codes(exact).astype(np.int8)
    near = GRID.codes(clipped).astype(np.int8)
    for codes in (far, near):
        result = Tally(GRID, np.ones(4), (-3.0, np.inf))
        error = result.add(exact, codes, codes, exact)
        assert np.abs(error).max() <= 0.05 + 1e-9
        row = result.error("layer", "CONV_2D", exact.shape, (), alone=1, power=100, share=0.5)
        assert (row.cause, row.clipped, row.saturated) == ("codes", 0.0, 0)
    assert tally(exact).cause == "clipped"


def test_inherited_error_is_not_the_layers_own() -> None:
    exact = GRID.real(RANDOM.integers(-100, 100, (1, 4, 4, 8)))
    codes = GRID.codes(exact).astype(np.int8)
    row = tally(exact, delivered=codes + 20)
    assert row.own_sqnr_db == 200
    assert row.cause is None
    assert row.sqnr_db < 15


def test_channels_are_counted() -> None:
    exact = RANDOM.uniform(1, 15, (1, 8, 8, 6))
    exact[..., 0] = 0  # dead
    exact[..., 1] *= 1e-3  # within one code: lost
    exact[..., 2] *= 4  # beyond the range
    row = tally(exact)
    assert (row.channels, row.dead, row.lost, row.saturated) == (6, 1, 1, 1)
    extent = exact.max(axis=(0, 1, 2))
    assert row.range_ratio == pytest.approx(extent[2] / extent[1])
    assert row.codes_used == len(np.unique(GRID.codes(exact))) / 256


def test_channels_scaled_by_equalization_are_compared_with_their_own_values() -> None:
    exact = RANDOM.uniform(0, 1, (1, 16, 16, 5))
    factor = np.array([1.0, 2.0, 5.0, 10.0, 1.0])
    scaling = Scaling()
    rounded = GRID.codes(exact * factor)
    for _ in range(2):
        scaling.add(exact, GRID.real(rounded))
    np.testing.assert_allclose(scaling.factor(), factor, rtol=0.01)
    result = Tally(GRID, scaling.factor())
    error = result.add(exact, rounded, rounded, exact)
    assert np.abs(error[..., 3]).max() < np.abs(error[..., 0]).max() / 5
    plain = Scaling()
    plain.add(exact, GRID.real(GRID.codes(exact * 0.5)))
    # What came out too small is an error, and what is dead has no factor.
    assert plain.factor().tolist() == [1.0] * 5
    assert Scaling(np.zeros(1), np.zeros(1)).factor().tolist() == [1.0]


def layer(
    name: str, share: float, cause: str = "codes", ratio: float = 2.0, reads: tuple[str, ...] = ()
) -> LayerError:
    parts = {"clipped": 0.0, "codes": 0.0, "weights": 0.0} | {cause: 1.0}
    return LayerError(
        name,
        "CONV_2D",
        (1, 4, 4, 8),
        reads,
        20.0,
        30.0,
        25.0,
        share,
        0.99,
        parts["clipped"],
        parts["codes"],
        parts["weights"],
        ratio,
        8,
        0,
        0,
        0,
        0.5,
    )


SPREAD = [layer(f"l{n}", 0.05) for n in range(20)]
KNOWN = ("int8_ptq", "int8_best", "int8_qat", "int16x8_ptq")


def names(layers, **changes):
    facts = {
        "sqnr_db": 10.0,
        "agreement": 0.8,
        "recipe": "int8_ptq",
        "per_tensor": False,
        "improved": False,
        "known": KNOWN,
    }
    return [remedy.name for remedy in quantization.remedies(layers, **(facts | changes))]


def test_a_good_model_needs_no_remedy() -> None:
    assert names(SPREAD, sqnr_db=35.0, agreement=1.0) == []
    assert names(SPREAD, sqnr_db=35.0, agreement=0.9) != []


@pytest.mark.parametrize(
    ("layers", "facts", "expected"),
    [
        (
            [layer("a", 0.9, "clipped"), *SPREAD[:2]],
            {},
            ["calibration", "int8_best", "keep-float", "int16x8_ptq"],
        ),
        ([layer(f"w{n}", 0.05, "weights") for n in range(20)], {}, ["int8_best"]),
        (
            [layer(f"w{n}", 0.05, "weights") for n in range(20)],
            {"per_tensor": True},
            ["per-channel", "int8_best"],
        ),
        ([layer(f"u{n}", 0.05, ratio=900) for n in range(20)], {}, ["int8_best", "int16x8_ptq"]),
        (
            [layer("a", 0.4, "weights"), layer("b", 0.3, "weights"), layer("c", 0.3, "weights")],
            {"improved": True, "recipe": "int8_best"},
            ["keep-float"],
        ),
        (SPREAD, {"improved": True, "recipe": "int8_best"}, ["int8_qat", "int16x8_ptq"]),
        (SPREAD, {"improved": True, "recipe": "int8_qat"}, ["int16x8_ptq"]),
        # An unknown recipe is not named.
        (SPREAD, {"improved": True, "recipe": "int8_best", "known": ("int8_ptq",)}, []),
        ([], {}, []),
    ],
)
def test_the_remedy_fits_the_cause(layers, facts, expected) -> None:
    assert names(layers, **facts) == expected


def test_a_remedy_names_its_layers() -> None:
    layers = [layer("a", 0.6, ratio=900), layer("b", 0.4, "weights")]
    best, keep, _ = quantization.remedies(
        layers,
        sqnr_db=10.0,
        agreement=0.8,
        recipe="int8_ptq",
        per_tensor=False,
        improved=False,
        known=KNOWN,
    )
    assert best.layers == ("a", "b")
    assert "a differ 900-fold" in best.why
    assert keep.command == "export with --keep-float a --keep-float b"
    assert quantization.most(layers) == tuple(layers)


def test_weights_after_uneven_channels_are_not_a_matter_of_rounding() -> None:
    layers = [layer("a", 0.1, ratio=900), layer("b", 0.9, "weights", reads=("a", "image"))]
    best, _ = quantization.remedies(
        layers,
        sqnr_db=10.0,
        agreement=0.8,
        recipe="int8_ptq",
        per_tensor=False,
        improved=False,
        known=KNOWN,
    )
    assert best.why.startswith("channels of a differ 900-fold")
    assert "rounding by answers" not in best.why
    assert best.layers == ("b", "a")


def test_without_an_error_no_layer_is_named() -> None:
    assert quantization.most([layer("a", 0.0)]) == ()


def test_the_fewest_layers_that_make_most_of_the_error() -> None:
    layers = [layer("a", 0.1), layer("b", 0.5), layer("c", 0.0), layer("d", 0.25), layer("e", 0.15)]
    assert [x.name for x in quantization.most(layers)] == ["b", "d"]


# One layer has half of the error, and 28 share the rest.
HALF = [layer("half", 0.5), *(layer(f"l{n}", 0.5 / 28) for n in range(28)), layer("none", 0.0)]


def test_spread_is_over_the_layers_that_make_most_of_the_error() -> None:
    assert len(quantization.most(HALF)) == 15
    remedies = quantization.remedies(
        HALF,
        sqnr_db=10.0,
        agreement=0.8,
        recipe="int8_best",
        per_tensor=False,
        improved=True,
        known=KNOWN,
    )
    assert "keep-float" not in [remedy.name for remedy in remedies]
    qat = next(remedy for remedy in remedies if remedy.name == "int8_qat")
    assert "the error is spread over 15 of 30 layers" in qat.why


@pytest.mark.parametrize("shape", [(6, 84, 800), (6, 800, 84), (6, 4, 4, 84), (6, 84)])
def test_channels_are_the_last_axis_or_the_shorter_of_two(shape):
    values = np.random.default_rng(0).random(shape)
    assert not quantization.has_unlike_channels(values)
    axis = shape.index(84)
    scale = np.ones(84)
    scale[:4] = 640
    unlike = values * scale.reshape([84 if side == axis else 1 for side in range(len(shape))])
    assert quantization.has_unlike_channels(unlike)
    # A channel that says nothing needs no codes.
    constant = np.moveaxis(values.copy(), axis, -1)
    constant[..., 0] = 0.5
    assert not quantization.has_unlike_channels(np.moveaxis(constant, -1, axis))


def test_an_output_of_several_units_is_named_even_if_all_else_is_well() -> None:
    facts = {"sqnr_db": 60.0, "agreement": 1.0, "per_tensor": False, "improved": False}
    known = ("int8_ptq", "int8_best")
    (one,) = quantization.remedies(
        (), recipe="int8_ptq", known=known, unlike_output="measures", **facts
    )
    assert (one.name, one.layers) == ("float-output", ("measures",))
    assert "int8_best" in one.command
    (one,) = quantization.remedies(
        (), recipe="int8_best", known=known, unlike_output="measures", **facts
    )
    assert one.command == "export with --keep-float measures"
    assert quantization.remedies((), recipe="int8_ptq", known=known, **facts) == ()
