"""Rounding of widths by the authors of MobileNet v2 and later."""


def divisible(channels: float, by: int = 8) -> int:
    """`channels` rounded to the nearest multiple of `by`, at least one, and up rather than by 10 %.

    TF-slim's `make_divisible`, https://github.com/tensorflow/models/blob/master/research/slim/nets/
    mobilenet/mobilenet.py
    """
    multiple = max(by, int(channels + by / 2) // by * by)
    return multiple + by if multiple < 0.9 * channels else multiple
