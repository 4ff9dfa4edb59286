import dataclasses

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.preprocessing import (
    alike,
    between,
    extent,
    from_output,
    on_codes,
    prepare,
    to_input,
    validate,
)
from mobiledeploy.core.types import Preprocessing, Tensor

SYMMETRIC = Preprocessing((-1.0, 1.0))
IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))
SCALES = st.floats(1e-5, 10.0)


def tensor(dtype, shape, scale=(), zero_point=()):
    return Tensor("image", shape, dtype, scale, zero_point)


@given(IMAGES)
def test_range_is_applied_to_every_pixel(image):
    height, width = image.shape[:2]
    result = prepare(image, SYMMETRIC, (height, width))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, image / 127.5 - 1, atol=1e-7)


def test_zero_to_one_is_exactly_division_by_255():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    result = prepare(image, Preprocessing((0.0, 1.0)), (16, 16))
    np.testing.assert_array_equal(result, image.astype(np.float32) / np.float32(255))


def test_zero_to_255_keeps_the_pixels():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(prepare(image, Preprocessing((0.0, 255.0)), (16, 16)), image)


def test_mean_and_std_follow_the_models_channel_order():
    image = np.broadcast_to(np.array([10, 20, 30], np.uint8), (4, 4, 3))
    preprocessing = Preprocessing(
        (0.0, 255.0), mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0), channels="bgr"
    )
    assert prepare(image, preprocessing, (4, 4))[0, 0].tolist() == [29.0, 9.0, 1.75]


@given(IMAGES, st.floats(0.01, 1.0), st.integers(1, 50), st.integers(1, 50))
def test_any_crop_and_resolution_gives_the_resolution_within_the_range(image, crop, height, width):
    preprocessing = dataclasses.replace(SYMMETRIC, crop=crop, resize="bicubic")
    result = prepare(image, preprocessing, (height, width))
    assert result.shape == (height, width, 3)
    assert result.min() >= -1
    assert result.max() <= 1


def test_the_crop_is_central():
    image = np.zeros((64, 32, 3), np.uint8)
    image[4:60, 2:30] = 255
    preprocessing = Preprocessing((0.0, 1.0), crop=0.875)
    assert (prepare(image, preprocessing, (56, 28)) == 1).all()
    wider = dataclasses.replace(preprocessing, crop=0.9)
    assert (prepare(image, wider, (58, 30)) == 0).any()


def test_resize_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    for name, kind in (("bilinear", 2), ("bicubic", 3)):
        expected = np.asarray(Image.fromarray(image).resize((20, 10), kind))
        result = prepare(image, Preprocessing((0.0, 255.0), resize=name), (10, 20))
        np.testing.assert_array_equal(result, expected)


def test_the_image_itself_is_left_alone():
    image = np.full((8, 8, 3), 7, np.uint8)
    image.setflags(write=False)
    prepare(image, dataclasses.replace(SYMMETRIC, channels="bgr"), (8, 8))
    assert (image == 7).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_an_image_that_is_not_rgb_is_refused(image):
    with pytest.raises(InputError, match=r"not uint8"):
        prepare(image, SYMMETRIC, (8, 8))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_range", (1.0, 1.0)),
        ("input_range", (0.0, float("nan"))),
        ("mean", (0.0, float("inf"), 0.0)),
        ("std", (1.0, 0.0, 1.0)),
        ("crop", 0.0),
        ("crop", 1.01),
        ("resize", "nearest"),
        ("channels", "gbr"),
    ],
)
def test_an_invalid_setting_is_named(field, value):
    with pytest.raises(UsageError, match=field.split("_")[-1]):
        validate(dataclasses.replace(SYMMETRIC, **{field: value}))


@given(
    hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767)]),
    SCALES,
    st.data(),
)
def test_quantized_values_come_back_within_half_a_step_or_saturate(x, kind, scale, data):
    dtype, low, high = kind
    zero_point = data.draw(st.integers(low, high))
    codes = to_input(x, tensor(dtype, (1, 2, 3, 3), (scale,), (zero_point,)), "NHWC")
    assert codes.dtype == dtype
    real = (codes[0].astype(np.float64) - zero_point) * scale
    inside = (x >= (low - zero_point) * scale) & (x <= (high - zero_point) * scale)
    # What is about a half is rounded up in uint8.
    tolerance = scale * (0.501 if dtype == "uint8" else 0.5) + 2e-7 * np.abs(x)
    assert (np.abs(real - x) <= tolerance)[inside].all()
    assert np.isin(codes[0][~inside], [low, high]).all()


def test_halves_round_to_even():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32).reshape(1, 2, 3)
    codes = to_input(x, tensor("int8", (1, 1, 2, 3), (1.0,), (0,)), "NHWC")
    assert codes.ravel().tolist() == [0, 2, 2, 0, -2, -2]


@given(hnp.arrays(np.float32, (4, 5, 3), elements=st.floats(-1, 1, width=32)))
def test_nchw_is_nhwc_transposed(x):
    nhwc = to_input(x, tensor("float32", (1, 4, 5, 3)), "NHWC")
    nchw = to_input(x, tensor("float32", (1, 3, 4, 5)), "NCHW")
    np.testing.assert_array_equal(nhwc.transpose(0, 3, 1, 2), nchw)
    assert nchw.flags.c_contiguous


def test_the_default_int8_input_is_the_pixel_less_128():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for preprocessing, scale, zero_point in (
        (Preprocessing((0.0, 1.0)), 1 / 255, -128),
        (SYMMETRIC, 2 / 255, 0),
    ):
        codes = to_input(
            prepare(image, preprocessing, (16, 16)),
            tensor("int8", (1, 16, 16, 3), (scale,), (zero_point,)),
            "NHWC",
        )
        assert np.abs(codes[0].astype(int) + 128 - image).max() <= (zero_point == 0)


def test_an_input_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\[1, 8, 8, 3\].*\[1, 4, 4, 3\]"):
        to_input(np.zeros((4, 4, 3), np.float32), tensor("float32", (1, 8, 8, 3)), "NHWC")


@pytest.mark.parametrize("scale", [(), (0.1, 0.2), (0.0,)])
def test_an_integer_tensor_without_one_scale_is_refused(scale):
    wrong = tensor("int8", (1, 2, 2, 3), scale, (0,) * len(scale))
    with pytest.raises(InputError, match=r"without one scale"):
        to_input(np.zeros((2, 2, 3), np.float32), wrong, "NHWC")
    with pytest.raises(InputError, match=r"without one scale"):
        from_output(np.zeros((1, 5), np.int8), wrong)


@given(hnp.arrays(np.int8, (1, 7)), SCALES, st.integers(-128, 127))
def test_output_is_dequantized(raw, scale, zero_point):
    scores = from_output(raw, tensor("int8", (1, 7), (scale,), (zero_point,)))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, (raw[0].astype(float) - zero_point) * scale, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(1, 6), (1, 1, 1, 6), (1, 2, 3), (1,)])
def test_an_output_loses_its_batch(shape, dtype):
    raw = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    values = from_output(raw, tensor(dtype, shape))
    assert (values.dtype, values.shape) == (np.float32, shape[1:])
    np.testing.assert_array_equal(values, raw[0].astype(np.float32))


def test_an_output_with_channels_first_comes_back_with_them_last():
    raw = np.arange(24, dtype=np.int8).reshape(1, 2, 3, 4)
    values = from_output(raw, tensor("int8", raw.shape, (0.5,), (3,)), "NCHW")
    np.testing.assert_array_equal(values, (raw[0].transpose(1, 2, 0) - 3.0) * 0.5)


@pytest.mark.parametrize("shape", [(2, 3), (0,), ()])
def test_an_output_without_a_batch_of_one_is_refused(shape):
    with pytest.raises(InputError, match=r"not \[1, \.\.\.\]"):
        from_output(np.zeros(shape, np.float32), tensor("float32", shape))


@given(hnp.arrays(np.uint8, (5, 7)))
def test_a_gray_image_is_its_own_luma(pixels):
    """ITU-R 601 gives the value of a pixel whose channels are equal."""
    gray = Preprocessing((0.0, 255.0), mean=(1.0, 9.0, 9.0), std=(2.0, 9.0, 9.0), channels="gray")
    x = prepare(np.repeat(pixels[..., None], 3, axis=2), gray, (5, 7))
    np.testing.assert_array_equal(x, (pixels[..., None].astype(np.float32) - 1) / 2)


def test_gray_weighs_red_green_and_blue():
    image = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]]], np.uint8)
    x = prepare(image, Preprocessing((0.0, 255.0), channels="gray"), (1, 3))
    np.testing.assert_allclose(x[0, :, 0], [0.299 * 200, 0.587 * 200, 0.114 * 200], atol=0.5)


@pytest.mark.parametrize(
    ("pre", "scale", "zero"),
    [
        (SYMMETRIC, 2 / 255, 127),
        (Preprocessing((0.0, 1.0)), 1 / 255, 0),
        (Preprocessing((0.0, 255.0)), 1.0, 0),
        (Preprocessing((0.0, 1.0), (0.5,) * 3, (0.25,) * 3), 4 / 255, 127),
    ],
)
def test_a_uint8_input_takes_pixels_as_they_are(pre, scale, zero):
    row = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    codes = to_input(
        prepare(row, pre, (1, 256)), tensor("uint8", (1, 1, 256, 3), (scale,), (zero,)), "NHWC"
    )
    np.testing.assert_array_equal(codes[0], row)


def test_the_extent_is_that_of_all_pixels_of_all_channels():
    assert extent(SYMMETRIC) == (-1.0, 1.0)
    assert extent(Preprocessing((0.0, 1.0), (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))) == (-1.0, 1.5)


@pytest.mark.parametrize(("dtype", "zero", "first"), [("int8", -1, -128), ("uint8", 127, 0)])
def test_each_of_the_256_pixels_has_a_code_of_its_own(dtype, zero, first):
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    how = on_codes(SYMMETRIC)
    assert (how.input_range, how.mean, how.std) == ((0.0, 255.0), (127.0,) * 3, (127.5,) * 3)
    end = tensor(dtype, (1, 16, 16, 3), (2 / 255,), (zero,))
    codes = to_input(prepare(pixels, how, (16, 16)), end, "NHWC")
    np.testing.assert_array_equal(codes[0].astype(int), pixels.astype(int) + first)
    # What a client computes by the record's numbers, by any rule for halves.
    values = (pixels.astype(np.float32) - np.float32(127)) / np.float32(127.5)
    steps = values / np.float32(2 / 255)
    assert np.abs(steps - np.rint(steps)).max() < 0.01


def test_a_symmetric_range_alone_leaves_191_codes():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    end = tensor("int8", (1, 16, 16, 3), (2 / 255,), (-1,))
    assert len(np.unique(to_input(prepare(pixels, SYMMETRIC, (16, 16)), end, "NHWC"))) == 191


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.0, 255.0), (-127 / 127.5, 128 / 127.5)])
def test_a_range_with_a_code_for_each_pixel_stays(ends):
    assert on_codes(Preprocessing(ends)) is None
    assert on_codes(dataclasses.replace(on_codes(SYMMETRIC), crop=0.5)) is None


@given(
    st.tuples(st.floats(-2, 0), st.floats(0.1, 2)),
    st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    st.tuples(*[st.floats(0.1, 2)] * 3),
    st.sampled_from(["rgb", "bgr", "gray"]),
)
def test_values_are_told_by_those_on_codes(ends, mean, std, channels):
    own = Preprocessing(ends, mean, std, channels)
    how = on_codes(own)
    if how is None:
        return
    assert alike(own, how)
    assert alike(how, own)
    assert on_codes(how) is None
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    ratio, change = between(own, how)
    expected = prepare(pixels, own, (16, 16))
    there = ratio * prepare(pixels, how, (16, 16)) + change
    np.testing.assert_allclose(there, expected, atol=1e-4 * np.abs(expected).max())


def test_other_ranges_are_not_alike():
    assert not alike(SYMMETRIC, Preprocessing((0.0, 1.0)))
    assert not alike(dataclasses.replace(SYMMETRIC, crop=0.5), on_codes(SYMMETRIC))
