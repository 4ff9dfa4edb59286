"""Formats base units for people; only cli and reports call this."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mobiledeploy.core import builtin_data

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")


def size(bytes_: int) -> str:
    """1234567 -> '1.23 MB' (decimal, as stores and data sheets count)."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def duration(ns: float) -> str:
    """1234567 ns -> '1.23 ms', three digits."""
    return _scaled(ns, ("ns", "us", "ms", "s"))


def durations(ns: Sequence[float]) -> tuple[str, ...]:
    """Several of them that are read together, in the unit of the largest: '0.766 ms', '1.06 ms'."""
    largest = max(ns, default=0.0)
    units = {"s": 1e9, "ms": 1e6, "us": 1e3}
    unit = next((name for name, scale in units.items() if largest >= scale), "ns")
    return tuple(f"{three_digits(value / units.get(unit, 1.0))} {unit}" for value in ns)


def time_left(seconds: float) -> str:
    """What a wait takes, roughly: '95 s left', '12 min left', '5.3 h left'."""
    if seconds < 2 * 60:
        return f"{seconds:.0f} s left"
    minutes = seconds / 60
    return f"{minutes:.0f} min left" if minutes < 2 * 60 else f"{minutes / 60:.1f} h left"


def energy(joules: float) -> str:
    """0.001234 J -> '1.23 mJ', three digits."""
    return _scaled(joules * 1e9, ("nJ", "uJ", "mJ", "J"))


def _scaled(value: float, units: Sequence[str]) -> str:
    """A value of the first unit, in the unit that shows it below 1000; they grow by 1000."""
    *smaller, largest = units
    for unit in smaller:
        # 999.7 us has three digits as 1 ms.
        if abs(value) < 999.5:
            return f"{three_digits(value)} {unit}"
        value /= 1000
    return f"{three_digits(value)} {largest}"


def three_digits(value: float) -> str:
    """Three significant digits, without an exponent: '1200', '0.0123'."""
    text = f"{value:.3g}"
    return f"{float(text):.12f}".rstrip("0").rstrip(".") if "e" in text else text


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.9312 -> '93.1 %'; None -> an en dash."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def signed_percent(fraction: float, digits: int = 1) -> str:
    """-0.103 -> '-10.3 %'."""
    return f"{100 * fraction:+.{digits}f} %"


def metric(value: float | None, unit: str, digits: int = 1) -> str:
    """0.9312, 'share' -> '93.1 %'; 25.31, 'dB' -> '25.3 dB'; 0.01234, '' -> '0.0123'."""
    if value is None or value != value:
        return "–"
    if unit == "share":
        return percent(value, digits)
    return f"{value:.1f} {unit}" if unit else f"{value:.3g}"


def millions(value: int | None) -> str:
    """569000000 -> '569 M'; None -> an en dash."""
    return "–" if value is None else f"{value / 1e6:g} M"


def several(count: int, noun: str) -> str:
    """3, 'class' -> '3 classes'; 1, 'class' -> '1 class'."""
    return (
        f"{count} {noun}"
        if count == 1
        else f"{count} {noun}{'es' * noun.endswith(('s', 'x')) or 's'}"
    )


def change_word(ratio: float, sure: bool) -> str:
    """A ratio of times in words; `sure`: its interval excludes 1."""
    return "no change seen" if not sure else "slower" if ratio > 1 else "faster"


def whole(text: str) -> str:
    """Text that every file, table and terminal accepts: halves of surrogate pairs are escaped.

    Python uses such halves for the bytes of a file's name that are not text.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def network(model: str, weights: str, sha256: str) -> str:
    """A model with its weights, since all trainings of one network have the same model name.

    'mobilenet_v1_0.25_96', 'run', '1f2e...' -> 'mobilenet_v1_0.25_96 run 1f2e3d4c'; weights that
    come with mobiledeploy or Keras are shown by name alone, a user's model file by its hash.
    """
    if model and weights.rpartition(".")[0] == model:
        return f"{model} {sha256[:8]}".strip()
    if model and weights.startswith(f"{model}_"):
        # By default the name of a training's folder starts with the model's name.
        return f"{weights} {sha256[:8]}".strip()
    is_known = weights in ("", "demo", "imagenet", "random")
    return " ".join(part for part in (model, weights, "" if is_known else sha256[:8]) if part)


def format_name(format_: str, io: str) -> str:
    """A format, and the type of its inputs and outputs if that is not the default of `export`.

    'tflite', 'uint8' -> 'tflite uint8'; int8, or '' for a float recipe -> 'tflite'.
    """
    return format_ if io in ("", "int8") else f"{format_} {io}"


def images(source: str, split: str, identity: str) -> str:
    """A data set's name and the start of its identity; '' for none.

    The demo data are the same at every resolution, so their split is given instead.
    """
    if source in builtin_data.NAMES:
        return f"{source} {split}"
    name = source.rstrip("/").rpartition("/")[2]
    return f"{name} {identity[:8]}".strip()


def gain(value: float, low: float, high: float, tie: bool) -> str:
    """0.01, -0.02, 0.04, True -> '+1.0 points (-2.0 to +4.0), a tie'."""
    points = f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{points}, a tie" if tie else points


def one_line(text: str) -> str:
    """Text on one line and without control characters, since names of files may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def shortened(text: str, most: int, head: int | None = None) -> str:
    """The ends of a text of more than `most` characters: names of layers differ at both.

    `head` characters of its start remain; the default is half of what remains.
    """
    if len(text) <= most:
        return text
    kept = max(most - 1, 1)
    head = kept // 2 if head is None else head
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


def markdown(text: str) -> str:
    """`text` as it stands, on one line: names are the user's and may hold Markdown's signs."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))
