from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.cli.bench import command
from mobiledeploy.core import artifacts, device_cards, records
from mobiledeploy.core.device_cards import (
    DeviceCard,
    EmulatedCore,
    Point,
    Reference,
    Series,
    Workload,
)
from mobiledeploy.core.errors import DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.types import Counted, Estimated
from mobiledeploy.steps import bench_figures, estimate, resolve
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import calibrate, sweep
from mobiledeploy.verbs.bench import bench

NS = {"dense": 0.02, "activations": 0.8, "kernels": 0.5}
BARS = {("pixel-3", "float32"): 0.06, ("pixel-3", "int8"): 0.09, ("pixel-1", "float32"): 0.06}


def points(work: Workload, count: int, speed: float = 1.0) -> tuple[dict, tuple[Point, ...]]:
    """Networks like `work`, smaller and larger, and what they take on a device of that speed."""
    networks, found = {}, []
    for index in range(count):
        size = 0.5 + 0.15 * index
        amounts = {
            field.name: max(1, int(getattr(work, field.name) * (size + 0.05 * (index * place % 3))))
            for place, field in enumerate(dataclasses.fields(Workload)[1:], start=1)
        }
        networks[f"n{index}"] = Workload(work.family, **amounts)
        latency = speed * sum(ns * amounts[name] for name, ns in NS.items())
        found.append(Point(f"n{index}", round(latency), "own"))
    return networks, tuple(found)


def write(
    name: str,
    work: Workload,
    *series: Series,
    count: int = 10,
    speed: float = 1.0,
    emulate: tuple[str, ...] = (),
) -> None:
    networks, found = points(work, count, speed)
    full = tuple(dataclasses.replace(one, points=found) for one in series)
    card = DeviceCard(
        name,
        f"The {name}",
        "Chip",
        (EmulatedCore("Cortex-A53", 4, 10**9),),
        {"own": Reference("measured")},
        full,
        emulate=emulate,
        networks=networks,
    )
    folder = device_cards.user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(calibrate.toml(card))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def path(exported) -> Path:
    return exported["float32", "tflite"]


@pytest.fixture
def work(path) -> Workload:
    return estimate.read(path, "mobilenet_v1")[1]


FLOAT = Series("tflite", "float32", 4, (), year=2020)
INT8 = dataclasses.replace(FLOAT, precision="int8", caveat="the points are of a special kind")


def test_an_estimate_is_of_the_files_own_layers(config, path, work, heard) -> None:
    write("phone", work, FLOAT)
    (made,) = estimate.estimate([path], device="phone", reporter=heard)
    truth = sum(ns * getattr(work, name) for name, ns in NS.items())
    assert made.latency_ns == pytest.approx(truth, rel=1e-3)
    low, high = made.interval_ns
    assert low < made.latency_ns < high < 1.02 * low
    assert made.kind == "estimated"
    assert made.artifact_sha256 == artifacts.load(path).sha256
    assert (made.target.device, made.target.runtime, made.target.threads) == ("phone", "tflite", 4)
    assert (made.fit.points, made.fit.borrowed, made.fit.held_out) == (10, (), "points")
    assert made.fit.terms.keys() == NS.keys()
    assert made.fit.sources == ("measured",)
    assert made.warnings == ()


def test_a_card_stands_in_for_what_is_not_connected(config, path, work, here) -> None:
    write("phone-1", work, FLOAT)
    assert resolve.stand_in("phone").name == resolve.stand_in("phone-1").name == "phone-1"
    assert resolve.stand_in("host") is resolve.stand_in("emulator:cortex-a76") is None
    assert resolve.stand_in("phone", "adb") is resolve.stand_in("other") is None
    with pytest.raises(DeviceError, match="no phone phone is connected"):
        bench([path], device="phone", via="adb")


def test_an_estimate_is_kept_and_survives_the_round_trip(config, path, work, here) -> None:
    write("phone", work, FLOAT)
    benched = bench([path], device="phone")
    assert benched.paths == (str(path),)
    with Store.open() as store:
        assert store.measurements_of(artifacts.load(path).sha256) == benched.measurements
    assert isinstance(benched.measurements[0], Estimated)
    assert records.loads(bench_figures.BenchResult, records.dumps(benched)) == benched


@pytest.mark.parametrize(
    ("core", "like"),
    [("cortex-a53", "its own core"), ("cortex-a72", "in place of its Cortex-A53")],
)
def test_an_emulated_core_counts_beside_the_estimate(
    config, emulator, path, work, here, heard, core, like
) -> None:
    write("phone", work, FLOAT, emulate=("no-core", core))
    benched = bench([path], device="phone", reporter=heard)
    assert heard.said == [
        "estimated, not measured: The phone, Chip, from the card phone; "
        f"counted, no time: on an emulated {core}, {like}"
    ]
    assert benched.paths == (str(path),) * 2
    estimated, counted = benched.measurements
    assert isinstance(estimated, Estimated)
    assert isinstance(counted, Counted)
    assert (counted.core, counted.target.threads) == (core, 1)
    with Store.open() as store:
        kept = store.measurements_of(estimated.artifact_sha256)
    assert kept == (counted, estimated)
    assert bench([path], device="phone", via="emulator") == bench_figures.BenchResult(
        (str(path),), (counted,)
    )


def test_without_an_emulated_core_it_says_what_would_count(
    config, path, work, here, heard, tmp_path, monkeypatch
) -> None:
    def not_counted(via: resolve.Via = "auto") -> str:
        (made,) = bench([path], device="phone", via=via, reporter=heard).measurements
        assert isinstance(made, Estimated)
        return heard.said[-1].partition("; ")[2]

    write("phone", work, FLOAT)
    assert not_counted() == (
        "not counted: the card phone names no emulated core that is like its own; "
        "--device emulator:CORE counts on one of your choice"
    )
    with pytest.raises(DeviceError, match="the card phone names no emulated core"):
        not_counted("emulator")
    write("phone", work, FLOAT, emulate=("no-core",))
    assert not_counted().startswith("not counted: the emulator here has no no-core; it has cortex-")
    write("phone", work, FLOAT, emulate=("cortex-a53",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not_counted() == (
        "not counted: no emulated core is here yet; mobiledeploy doctor --emulator"
    )
    with pytest.raises(MissingError, match="doctor --emulator"):
        not_counted("emulator")


def test_a_sweep_takes_the_estimate_alone(config, emulator, path, work, here, heard) -> None:
    write("phone", work, FLOAT, emulate=("cortex-a53",))
    sha = artifacts.load(path).sha256
    assert sweep._figures({str(path): sha}, ["phone"], heard) == []
    with Store.open() as store:
        assert [one.kind for one in store.measurements_of(sha)] == ["estimated"]


def test_a_core_counts_nothing_of_a_gpu(config, emulator, path, work, here, heard) -> None:
    gpu = dataclasses.replace(FLOAT, delegate="gpu")
    write("phone", work, gpu, emulate=("cortex-a53",))
    made = bench([path], device="phone", delegate="gpu", reporter=heard).measurements
    assert [one.kind for one in made] == ["estimated"]
    assert heard.said[0].endswith("; not counted: no core is a gpu")


def test_each_precision_has_its_own_points(config, exported, work, heard) -> None:
    write("phone", work, FLOAT)
    quantized = exported["int8_ptq", "onnx"]
    with pytest.raises(UsageError, match="phone has no points of int8; it has tflite 2020, float"):
        estimate.estimate([quantized], device="phone")
    write("phone", work, FLOAT, INT8)
    (made,) = estimate.estimate([quantized], device="phone", reporter=heard)
    names = [warning.name for warning in heard.warnings]
    assert names == ["other-runtime", "points"]
    assert list(made.warnings) == heard.warnings
    (half,) = estimate.estimate([exported["float16", "tflite"]], device="phone")
    assert [warning.name for warning in half.warnings] == ["computed-in-float32"]
    for file in (("float16", "onnx"), ("float16_full", "tflite")):
        with pytest.raises(InputError, match=r"computes (with|in) float16.* and points are"):
            estimate.estimate([exported[file]], device="phone")
    with pytest.raises(InputError, match="computes with float32 and int8"):
        estimate.estimate([exported["dynamic_int8", "tflite"]], device="phone")


def test_points_are_chosen_by_runtime_threads_and_delegate(config, path, work) -> None:
    ncnn = dataclasses.replace(FLOAT, runtime="ncnn", threads=1)
    gpu = dataclasses.replace(FLOAT, delegate="gpu", threads=1)
    write("phone", work, ncnn, FLOAT, gpu)

    def target(**given):
        (made,) = estimate.estimate([path], device="phone", **given)
        return made.target.runtime, made.target.threads, made.target.delegate

    assert target() == ("tflite", 4, "none")
    assert target(threads=1) == ("ncnn", 1, "none")
    assert target(runtime="ncnn") == ("ncnn", 1, "none")
    assert target(delegate="gpu") == ("tflite", 1, "gpu")
    with pytest.raises(UsageError, match="no points of float32, 3 threads"):
        target(threads=3)


def a_hundred_times(work: Workload) -> Workload:
    fields = dataclasses.fields(Workload)[1:]
    return dataclasses.replace(work, **{f.name: getattr(work, f.name) * 100 for f in fields})


def test_outside_the_range_is_counted_where_it_can_be(
    config, emulator, path, work, here, heard
) -> None:
    write("phone", a_hundred_times(work), FLOAT, emulate=("cortex-a53",))
    benched = bench([path], device="phone", reporter=heard)
    assert [m.kind for m in benched.measurements] == ["counted"]
    assert benched.paths == (str(path),)
    (warning,) = [d for d in heard.warnings if d.name == "no-estimate"]
    assert "outside the range of phone's points" in warning.message


def test_outside_the_range_is_refused(config, path, work) -> None:
    write("phone", a_hundred_times(work), FLOAT)
    with pytest.raises(InputError, match="outside the range of phone's points: 3.3 M mult-adds"):
        estimate.estimate([path], device="phone")


def test_a_file_that_the_card_says_nothing_of_leaves_the_others_theirs(
    config, exported, path, work, here
) -> None:
    write("phone", work, FLOAT)
    int8, gone = exported["int8_ptq", "tflite"], here / "gone.tflite"
    result = bench([int8, gone, path], device="phone")
    assert result.paths == (str(path),)
    assert [m.kind for m in result.measurements] == ["estimated"]
    assert [(f.what, f.exit_code) for f in result.failed] == [(str(int8), 2), (str(gone), 7)]
    output = CliRunner().invoke(command, [str(int8), str(path), "--device", "phone"])
    assert output.exit_code == 2
    assert "estimated" in output.stdout
    (error,) = [line for line in output.stderr.splitlines() if line.startswith("error: ")]
    assert "has no points of int8" in error
    # Of the card's range.
    write("phone", a_hundred_times(work), FLOAT)
    result = bench([path, gone], device="phone")
    assert [f.exit_code for f in result.failed] == [7, 7]
    assert "outside the range" in result.failed[0].message


def test_a_few_points_borrow_their_shape_and_say_so(config, path, work, heard) -> None:
    write("phone", work, FLOAT)
    write("slow", work, FLOAT, count=2, speed=3.0)
    (one,) = estimate.estimate([path], device="phone")
    (made,) = estimate.estimate([path], device="slow", reporter=heard)
    assert made.latency_ns == pytest.approx(3 * one.latency_ns, rel=1e-2)
    assert (made.fit.points, made.fit.borrowed, made.fit.held_out) == (2, ("phone",), "devices")
    (warning,) = made.warnings
    assert warning.name == "borrowed-shape"
    assert "slow has 2 of the 8 points" in warning.message

    def width(estimated: Estimated) -> float:
        low, high = estimated.interval_ns
        return high / low

    assert width(made) > 1.5 > width(one)


def test_a_few_points_without_like_devices_are_refused(config, path, work) -> None:
    write("slow", work, FLOAT, count=2)
    # Not of its runtime, year, precision, threads or delegate: never pooled.
    for name, change in enumerate(
        (
            {"runtime": "ncnn"},
            {"year": 2021},
            {"precision": "int8"},
            {"threads": 1},
            {"delegate": "xnnpack"},
        )
    ):
        write(f"other-{name}", work, dataclasses.replace(FLOAT, **change))
    with pytest.raises(DeviceError, match=re.escape("it has 2 points of tflite 2020, float32")):
        estimate.estimate([path], device="slow")


def test_another_family_is_judged_by_families_left_out(config, path, work, heard) -> None:
    write("phone", dataclasses.replace(work, family="other_net"), FLOAT)
    (made,) = estimate.estimate([path], device="phone", reporter=heard)
    assert made.fit.held_out == "families"
    assert [warning.name for warning in made.warnings] == ["other-family"]
    low, high = made.interval_ns
    assert high > 1.5 * low


def test_operators_that_cannot_be_counted_are_refused(config, tmp_path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"odd")
    with pytest.raises(InputError, match="is not a finished model"):
        estimate.read(tmp_path / "odd.bin", "odd")
    with pytest.raises(InputError, match=r"cannot be read"):
        estimate.read(tmp_path / "absent.tflite", "odd")
    (tmp_path / "odd.tflite").write_bytes(b"oddoddoddodd")
    with pytest.raises(InputError, match="TFLite"):
        estimate.read(tmp_path / "odd.tflite", "odd")


def test_an_unknown_device_is_refused(config, path) -> None:
    with pytest.raises(UsageError, match="no device card named 'pixel3'; did you mean pixel-3"):
        estimate.estimate([path], device="pixel3")
    with pytest.raises(UsageError, match="nothing is timed, and --runs is for timings"):
        bench([path], device="pixel-3", runs=10)


# The shipped cards.


def test_the_published_grids_are_met() -> None:
    errors = {}
    for name in {card for card, _ in BARS}:
        for choice in estimate.choices(device_cards.load(name)):
            if choice.enough and choice.series.delegate == "none":
                own, rule = (
                    model.rmspe(model.leave_one_out(choice.own, choice.like, by=by))
                    for by in (model.fit, model.rule)
                )
                errors[name, choice.series.precision] = own
                assert own < rule / 2
    assert errors.keys() == BARS.keys()
    for key, bar in BARS.items():
        assert errors[key] <= bar, key


def test_ready_cards_answer_for_their_own_networks(monkeypatch) -> None:
    ready = [c for card in device_cards.all_() for c in estimate.choices(card) if c.enough]
    assert len({choice.card.name for choice in ready}) >= 10
    for choice in ready:
        fitted = model.fit(choice.own, choice.like)
        for sample in choice.own:
            assert not fitted.beyond(sample.workload), choice.what
    for choice in ready:
        if len(choice.own) < model.FEWEST_POINTS:
            held, kind = estimate.held_out(choice, "mobilenet_v1")
            assert held
            assert kind == ("points" if len(choice.own) >= estimate.FEWEST_ERRORS else "devices")
