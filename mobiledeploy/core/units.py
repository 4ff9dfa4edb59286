"""Base units to words for people; only the edge (cli, reports) formats."""

from __future__ import annotations


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
    value = ns
    for unit in ("ns", "us", "ms"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} s"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.9312 -> '93.1 %'; None -> an en dash."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def millions(value: int | None) -> str:
    """569000000 -> '569 M'; None -> an en dash."""
    return "–" if value is None else f"{value / 1e6:g} M"


def several(count: int, noun: str) -> str:
    """3, 'class' -> '3 classes'; 1, 'class' -> '1 class'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' * noun.endswith('s') or 's'}"


def changed(ratio: float, sure: bool) -> str:
    """What a ratio of times says; `sure`: its interval leaves out 1."""
    return "no change seen" if not sure else "slower" if ratio > 1 else "faster"


def whole(text: str) -> str:
    """Text that every file, table and terminal takes: halves of surrogate pairs are written out.

    Python uses such halves for the bytes of a file's name that are no text.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def network(model: str, weights: str, sha256: str) -> str:
    """A model and whose weights it has, for trainings of one network are of one name.

    'mobilenet_v1_0.25_96', 'run', '1f2e...' -> 'mobilenet_v1_0.25_96 run 1f2e3d4c'; what comes with
    mobiledeploy or with Keras is known by its name alone, and a model's own file by its hash.
    """
    if model and weights.rpartition(".")[0] == model:
        return f"{model} {sha256[:8]}".strip()
    if model and weights.startswith(f"{model}_"):
        # A training's folder has the model's name in its own, where nobody chose another.
        return f"{weights} {sha256[:8]}".strip()
    sure = weights in ("", "demo", "imagenet", "random")
    return " ".join(part for part in (model, weights, "" if sure else sha256[:8]) if part)


def ended(format_: str, io: str) -> str:
    """A format and what its file takes and gives, where that is not what `export` makes of itself.

    'tflite', 'uint8' -> 'tflite uint8'; int8, or '' of a recipe of floats -> 'tflite'.
    """
    return format_ if io in ("", "int8") else f"{format_} {io}"


def images(source: str, split: str, identity: str) -> str:
    """What a data set is told apart by: its name and the start of its identity; '' for none.

    The demo's are the same at every resolution, and have a name for each split.
    """
    if source == "demo":
        return f"demo {split}"
    name = source.rstrip("/").rpartition("/")[2]
    return f"{name} {identity[:8]}".strip()


def gain(value: float, low: float, high: float, tie: bool) -> str:
    """0.01, -0.02, 0.04, True -> '+1.0 points (-2.0 to +4.0), a tie'."""
    said = f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{said}, a tie" if tie else said


def one_line(text: str) -> str:
    """Text on one line and without control characters: names of files may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
