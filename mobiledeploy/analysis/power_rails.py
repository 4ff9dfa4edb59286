"""The power rails of a Pixel in a trace of Android's perfetto: the few fields that are needed.

A trace is a protobuf message Trace: packets (1) with PowerRails (40), these with EnergyData (2):
index of the rail (1), time in ms (2), energy since the start of the phone in uWs (3).
https://github.com/google/perfetto/blob/main/protos/perfetto/trace/power/power_rails.proto
The wire format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_PACKET, _POWER_RAILS, _ENERGY_DATA = 1, 40, 2
_INDEX, _TIME, _ENERGY = 1, 2, 3
_VARINT, _BYTES = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_LONGEST_VARINT = 10


class RailReading(NamedTuple):
    """All rails at one moment: seconds since the start of the phone, and joules since then."""

    seconds: float
    joules: float


def readings(trace: bytes) -> tuple[RailReading, ...]:
    """A reading for each packet that has all rails, in their order in time.

    ValueError if `trace` is no protobuf message.
    """
    packets = [
        energies
        for packet in _messages(trace, _PACKET)
        for rails in _messages(packet, _POWER_RAILS)
        if (energies := dict(_energies(rails)))
    ]
    every = set().union(*packets)
    return tuple(
        sorted(
            RailReading(
                max(milliseconds for milliseconds, _ in energies.values()) / 1e3,
                sum(micro for _, micro in energies.values()) / 1e6,
            )
            for energies in packets
            if energies.keys() == every
        )
    )


def _energies(rails: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """(index, (ms, uWs)) of each rail; a field that is absent is 0."""
    for data in _messages(rails, _ENERGY_DATA):
        values = {number: value for number, value in _fields(data) if isinstance(value, int)}
        yield values.get(_INDEX, 0), (values.get(_TIME, 0), values.get(_ENERGY, 0))


def _messages(data: bytes, field: int) -> Iterator[bytes]:
    return (
        value for number, value in _fields(data) if number == field and isinstance(value, bytes)
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number, and an integer or bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError("a field of an unknown kind")
        if place + size > len(data):
            raise ValueError("a field beyond the end")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    value = 0
    for count, byte in enumerate(data[place : place + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError("a number without an end")
