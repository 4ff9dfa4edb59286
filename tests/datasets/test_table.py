import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.datasets import table


def written(path, columns, *values, text=None):
    """A table of images `sub/0.png`, ... and their values."""
    (path / "sub").mkdir(exist_ok=True)
    for number in range(len(values) or 3):
        Image.new("L", (4, 6), number).save(path / "sub" / f"{number}.png")
    rows = [f"sub/{number}.png,{value}" for number, value in enumerate(values)]
    file = path / "targets.csv"
    file.write_text("\n".join([f"image,{columns}", *rows, ""]) if text is None else text)
    return file


def opened(path, split="all", labels=()):
    return table.open(str(path), split, resolution=(96, 96), labels=labels)


def annotations(path, labels=()):
    samples = opened(path, labels=labels)
    return [samples.annotation(index) for index in range(len(samples))]


def test_names_of_classes_are_labels(tmp_path):
    file = written(tmp_path, "label", "dog", "cat", "great tit", "cat")
    samples = opened(file)
    assert samples.classes == ("cat", "dog", "great tit")
    assert annotations(file) == [Annotation(1), Annotation(0), Annotation(2), Annotation(0)]
    assert samples.id(1) == "sub/1.png"
    assert samples.label(2) == 2
    assert samples.image(1).shape == (6, 4, 3)
    labels = ("great tit", "dog", "fox", "cat")
    assert [truth.label for truth in annotations(file, labels)] == [1, 3, 0, 3]
    with pytest.raises(InputError, match=r"'cat' of .* is none of the 2 labels"):
        opened(file, labels=("dog", "great tit"))


def test_whole_numbers_are_the_places_of_classes(tmp_path):
    file = written(tmp_path, "label", "2", "10", "0")
    assert [truth.label for truth in annotations(file)] == [2, 10, 0]
    assert opened(file).classes == tuple(map(str, range(11)))
    assert opened(file, labels=tuple("abcdefghijk")).classes == tuple("abcdefghijk")
    with pytest.raises(InputError, match=r"label 10, but there are 10 labels"):
        opened(file, labels=tuple("abcdefghij"))
    with pytest.raises(InputError, match=r"has label 999999999, but there are at most 100000"):
        opened(written(tmp_path, "label", "9" * 5000))


def test_numbers_that_are_names_in_another_order_are_not_guessed(tmp_path):
    file = written(tmp_path, "label", "0", "2", "1")
    assert [truth.label for truth in annotations(file, ("0", "1", "2"))] == [0, 2, 1]
    with pytest.raises(InputError, match=r"the names of classes are other numbers"):
        opened(file, labels=("2", "1", "0"))
    # These are no places: 01 is a name.
    assert opened(written(tmp_path, "label", "01", "02")).classes == ("01", "02")


def test_numbers_are_values_with_the_names_of_their_columns(tmp_path):
    file = written(tmp_path, "age,height", "30,1.8", "-1e1,2", "0,1")
    samples = opened(file)
    assert samples.classes == ("age", "height")
    assert annotations(file) == [
        Annotation(values=(30.0, 1.8)),
        Annotation(values=(-10.0, 2.0)),
        Annotation(values=(0.0, 1.0)),
    ]
    assert annotations(file, ("height", "age"))[0].values == (1.8, 30.0)
    with pytest.raises(InputError, match=r"has no column 'weight'"):
        opened(file, labels=("height", "weight", "age"))
    with pytest.raises(InputError, match=r"'height' of .* is none of"):
        opened(file, labels=("age", "weight"))


def test_marks_of_classes_are_labels_and_values(tmp_path):
    file = written(tmp_path, "cat,dog", "1,0", "1,1", "0,0.0")
    assert annotations(file) == [
        Annotation(0, (0,), values=(1.0, 0.0)),
        Annotation(-1, (0, 1), values=(1.0, 1.0)),
        Annotation(-1, (), values=(0.0, 0.0)),
    ]
    assert annotations(file, ("dog", "cat"))[0] == Annotation(1, (1,), values=(0.0, 1.0))


@pytest.mark.parametrize("columns", ["target", "Target_x", "targets"])
def test_a_target_is_a_value_whatever_it_holds(tmp_path, columns):
    assert annotations(written(tmp_path, columns, "1", "0")) == [
        Annotation(values=(1.0,)),
        Annotation(values=(0.0,)),
    ]


def test_as_spreadsheets_write_it(tmp_path):
    file = written(tmp_path, "label", "a", "b")
    file.write_bytes(b'\xef\xbb\xbfimage,label\r\n"sub/0.png","a, b"\r\n\r\n sub/1.png , c \r\n')
    assert opened(file).classes == ("a, b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty; its first line names the columns"),
        ("image,label\n", r"names no image"),
        ("image\nsub/0.png\n", r"has one column only; the second one"),
        (
            "image;label\nsub/0.png;a\n",
            r"one column only, 'image;label'; separate columns by commas",
        ),
        ("image,a,a\nsub/0.png,1,2\n", r"do not have different names: image, a, a"),
        ("image,a,\nsub/0.png,1,2\n", r"do not have different names"),
        ("image,a\nsub/0.png,1\nsub/1.png\n", r"line 3 of .* fills 1 of 2 columns"),
        ("image,a\nsub/0.png,1,2\n", r"line 2 of .* fills 3 of 2 columns"),
        ("image,a\nsub/0.png, \n", r"line 2 of .* fills 1 of 2 columns"),
        ('image,a\nsub/0.png,"1\n', r"line 2 of .* is not CSV"),
        ("image,a\nsub/0.png,cat\n", r"has 'cat' as a value of sub/0.png.*called label"),
        ("image,a\nsub/0.png,nan\n", r"has 'nan' as a value"),
        ("image,a\nsub/0.png,1_0\n", r"has '1_0' as a value"),
        ("image,label,age\nsub/0.png,cat,3\n", r"columns of different kinds: label, age"),
        ("image,target,cat\nsub/0.png,1,1\n", r"columns of different kinds: target, cat"),
        ("image,a\nsub/0.png,1\nsub/0.png,2\n", r"names 'sub/0.png' twice"),
        ("image,a\nsub/7.png,1\n", r"none of the 1 images"),
        ("image,a\n../0.png,1\n", r"names the image '../0.png', which is not a path"),
        ("image,a\n/0.png,1\n", r"names the image '/0.png', which is not a path"),
        ("image,label\nsub/0.png,a\0\n", r"cannot be printed|NUL"),
        ("image,a\0\nsub/0.png,1\n", r"cannot be printed|NUL"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        opened(written(tmp_path, "", text=text))


def test_what_is_no_text_is_refused(tmp_path):
    file = written(tmp_path, "label", "a", "b")
    file.write_bytes(b"image,label\n\xff\xfe,a\n")
    with pytest.raises(InputError, match=r"not UTF-8"):
        opened(file)


def test_a_missing_image_counts_as_broken(tmp_path):
    file = written(tmp_path, "age", "1", "2", "3")
    (tmp_path / "sub" / "1.png").unlink()
    samples = opened(file)
    with pytest.raises(BrokenImage, match=r"1.png"):
        samples.image(1)
    assert samples.image(2).shape == (6, 4, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet='image,label01.-\n"\r\t;é\0/target', max_size=60)
    | st.lists(st.sampled_from(["sub/0.png", "label", "target", "1", "0", "a"]), max_size=12).map(
        lambda words: "".join(f"{w}{',' if n % 2 == 0 else chr(10)}" for n, w in enumerate(words))
    )
)
def test_any_text_is_read_or_refused(tmp_path, text):
    if not (tmp_path / "sub").exists():
        written(tmp_path, "label", "a", "b")
    (tmp_path / "any.csv").write_text(text)
    try:
        samples = opened(tmp_path / "any.csv")
    except InputError:
        return
    for index in range(len(samples)):
        assert -1 <= samples.label(index) < len(samples.classes)
