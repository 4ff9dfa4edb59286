"""Joules of an inference on a phone or board, which tells its own power: `bench --energy`."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mobiledeploy.analysis import cores, energy, stats, validity
from mobiledeploy.analysis.energy import PowerReading
from mobiledeploy.core import artifacts, protocol
from mobiledeploy.core.errors import DeviceError, UsageError, VoidError
from mobiledeploy.core.plugins import RUNNERS
from mobiledeploy.core.ports import Process, Session
from mobiledeploy.core.types import EnergyFigure
from mobiledeploy.steps import golden_inputs, shell_output, timings
from mobiledeploy.steps.resolve import ResolvedDevice

ROUNDS = stats.FEWEST
"""Rounds of a block of idleness and one of load: the fewest that have an interval."""

BLOCK_SECONDS = {"battery": 30.0, "pmic": 10.0, "rails": 20.0}
"""The length of a block by its source: gauges of batteries tell a new value every few seconds."""

SETTLE_SECONDS = {"battery": 10.0, "pmic": 2.0, "rails": 4.0}
"""The begin of a block that is left out: clocks rise, and gauges average over the past."""

PERIOD_SECONDS = {"battery": 1.0, "pmic": 0.2}
"""The time between two readings; perfetto has its own."""

_SUPPLY = " ".join(
    f"/sys/class/power_supply/*/{name}"
    for name in (
        *("type", "online", "status", "power_now", "current_now", "voltage_now"),
        *("charge_counter", "charge_now"),
    )
)
# It holds no text of the user's, so nothing needs quoting. What a machine has not is silent.
_SAMPLER = f"""
i=0; while [ $i -lt "$1" ]; do i=$((i+1)); read -r up rest < /proc/uptime; echo "=reading $up"
vcgencmd pmic_read_adc 2>/dev/null || /opt/vc/bin/vcgencmd pmic_read_adc 2>/dev/null
grep -H . {_SUPPLY} 2>/dev/null
dumpsys battery 2>/dev/null | grep -E "^ *((Charge counter|voltage|status): |.* powered: true)"
sleep "$2"; done
"""
# A trace of the rails' energies each 250 ms, as text: the way there takes lines.
_TRACER = """
printf 'buffers { size_kb: 4096 } duration_ms: %s data_sources { config { name: "android.power"
android_power_config { battery_poll_ms: 250 collect_power_rails: true } } }' "$1" \\
| timeout "$2" perfetto --txt -c - -o - 2>/dev/null | base64
"""
_PROBE_SECONDS = 1.5
_TRACE_GRACE_SECONDS = 10
_UNPLUG = (
    "unplug it; a phone is then reached over Wi-Fi: adb tcpip 5555, adb connect ADDRESS, --device "
    "adb:ADDRESS:5555"
)


def sampler(count: int, period_s: float) -> tuple[str, ...]:
    """The command that prints `count` readings for `analysis.energy`, one every `period_s`."""
    return ("sh", "-c", _SAMPLER, "sh", str(count), f"{period_s:g}")


def need_device(place: ResolvedDevice, runner: str) -> None:
    """UsageError for a device or a runner that no energy is measured of."""
    if not (place.phone or place.is_recording):
        raise UsageError(
            f"--energy is for phones and boards, not for {place.name}",
            "--device adb or ssh:HOST",
        )
    if runner == "benchmark_model":
        raise UsageError(
            "benchmark_model pauses between its starts, so its load is not constant",
            "--runner native",
        )


def need_source(session: Session) -> energy.Source:
    """What the machine tells its power by; DeviceError if it does not, with the reason."""
    first = next(iter(_read(session, 1, 0.0)), None)
    has_pmic = first is not None and first.source == "pmic"
    if not has_pmic and len(_trace(session, _PROBE_SECONDS)) > 1:
        # They tell what the phone takes, charged or not.
        return "rails"
    if first is None:
        raise DeviceError("no energy: its shell prints no reading", "measure another machine")
    source, reason = first.source, energy.reason_without(first)
    if source is None:
        raise DeviceError(f"no energy: {reason}", "measure another machine")
    if reason:
        raise DeviceError(f"no energy: {reason}", _UNPLUG)
    return source


def measure(session: Session, timing: timings.Timing, source: energy.Source) -> EnergyFigure:
    """Blocks of idleness and of load in turns (I L L I), and what an inference takes above idle.

    Raises:
        DeviceError: as for a timing.
        VoidError: the machine changed meanwhile, or its readings do not tell the energy.
    """
    path, target, reporter = timing.path, timing.target, timing.reporter
    is_recording = timing.is_recording
    driver = RUNNERS.load(target.runner)
    # A recording that is played back needs no runner, so its files may be missing.
    machine = session.facts().get("machine", "")
    parts = {} if is_recording else driver.files(machine, target.runtime, target.delegate)
    files = {role: session.push(file) for role, file in parts.items()}
    idle: list[Sequence[PowerReading]] = []
    load: list[Sequence[PowerReading]] = []
    run_ns: list[float] = []
    with artifacts.scratch() as folder:
        model = session.push(path)
        sample = golden_inputs.sample(path, timing.artifact, folder)
        remote = None if sample is None else session.push(sample)
        argv = () if is_recording else driver.bench(model, target, remote, files)
        before = session.facts()
        argv = cores.placed(argv, before, target.threads)
        for number in range(2 * ROUNDS):
            reporter.progress(f"energy of {path.name}", number, 2 * ROUNDS)
            # I L, L I, I L, ...: a drift of the machine cancels.
            if number % 4 in (1, 2):
                process = driver.hear(session.run(argv), target)
                block, mean_ns = _loaded(session, process, path.name, source)
                load.append(block)
                run_ns.append(mean_ns)
            else:
                idle.append(_block(session, source))
        after = session.facts()
    reporter.progress(f"energy of {path.name}", 2 * ROUNDS, 2 * ROUNDS)
    if against := validity.state_disturbances(before, after):
        raise VoidError(
            f"void: energy of {path.name}: {'; '.join(against)}",
            "let it cool down, leave it alone meanwhile, and measure again",
        )
    try:
        blocks = energy.powers(idle, load, SETTLE_SECONDS[source])
        joules, low, high = energy.per_inference(blocks, run_ns)
    except ValueError as error:
        longer = "a longer inference, more --threads, or another machine may tell it"
        remedy = _UNPLUG if isinstance(error, energy.ChargedError) else longer
        raise VoidError(f"void: energy of {path.name}: {error}", remedy) from error
    whole = [watts * ns / 1e9 for watts, ns in zip(blocks.load_w, run_ns, strict=True)]
    return EnergyFigure(
        source=blocks.source,
        method=blocks.method,
        idle_w=blocks.idle_w,
        load_w=blocks.load_w,
        run_ns=tuple(run_ns),
        above_idle_j=joules,
        interval_j=(low, high),
        whole_j=stats.median_interval(whole)[0],
    )


def _loaded(
    session: Session, process: Process, name: str, source: energy.Source
) -> tuple[Sequence[PowerReading], float]:
    """The readings while a runner runs without pause, and the mean time of its runs."""
    samples: list[int] = []
    try:
        kinds = protocol.Ready, protocol.Timed, protocol.RawAnswer
        events = protocol.listen(process, name, timings.PATIENCE_S, *kinds)
        first = next(events)
        if not isinstance(first, protocol.Ready):
            raise protocol.untimely(first)
        block = _block(session, source)
        process.stop()
        for event in events:
            if isinstance(event, protocol.Timed):
                samples += event.samples_ns
    finally:
        process.kill()
    if not samples:
        raise DeviceError(f"the runner of {name} did not run it", "measure again")
    return block, sum(samples) / len(samples)


def _block(session: Session, source: energy.Source) -> Sequence[PowerReading]:
    seconds = SETTLE_SECONDS[source] + BLOCK_SECONDS[source]
    if source == "rails":
        return _trace(session, seconds)
    period = PERIOD_SECONDS[source]
    return _read(session, round(seconds / period), period)


def _trace(session: Session, seconds: float) -> Sequence[PowerReading]:
    """The readings of a perfetto trace of `seconds`; () for a machine without."""
    argv = (
        *("sh", "-c", _TRACER, "sh"),
        *(str(round(1000 * seconds)), str(round(seconds + _TRACE_GRACE_SECONDS))),
    )
    try:
        limit = shell_output.LIMIT_S + seconds + _TRACE_GRACE_SECONDS
        text = "".join(shell_output.lines(session, argv, limit_s=limit))
        return energy.rail_readings(base64.b64decode(text, validate=True))
    except ValueError:
        return ()


def _read(session: Session, count: int, period_s: float) -> Sequence[PowerReading]:
    """`count` readings, one every `period_s` seconds."""
    # Each reading takes a while of its own.
    limit = shell_output.LIMIT_S + count * (period_s + 1)
    return energy.readings(shell_output.lines(session, sampler(count, period_s), limit_s=limit))
