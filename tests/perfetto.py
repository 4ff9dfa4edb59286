"""Traces of perfetto with power rails, written by Google's own protobuf from perfetto's fields."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
# Message -> (field, number, kind or message, repeated), as in perfetto's protos/perfetto/trace.
_MESSAGES = {
    "EnergyData": [
        ("index", 1, "UINT32", 0),
        ("timestamp_ms", 2, "UINT64", 0),
        ("energy", 3, "UINT64", 0),
    ],
    "RailDescriptor": [("index", 1, "UINT32", 0), ("rail_name", 2, "STRING", 0)],
    "PowerRails": [
        ("rail_descriptor", 1, "RailDescriptor", 1),
        ("energy_data", 2, "EnergyData", 1),
    ],
    "TracePacket": [("timestamp", 8, "UINT64", 0), ("power_rails", 40, "PowerRails", 0)],
    "Trace": [("packet", 1, "TracePacket", 1)],
}


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="trace.proto", package="p", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            one = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in _MESSAGES:
                one.type, one.type_name = _FIELD.TYPE_MESSAGE, f".p.{kind}"
            else:
                one.type = getattr(_FIELD, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Trace"))


def trace(watts: list[float], moments: int, period_ms: int = 250, start_ms: int = 5000) -> bytes:
    """A trace in which each rail takes its `watts`, with a packet each `period_ms`."""
    message = _classes()()
    described = message.packet.add(timestamp=1)
    for index, _ in enumerate(watts):
        described.power_rails.rail_descriptor.add(index=index, rail_name=f"S{index}M_VDD")
    for number in range(moments):
        packet = message.packet.add(timestamp=number)
        at = start_ms + number * period_ms
        for index, own in enumerate(watts):
            packet.power_rails.energy_data.add(
                index=index, timestamp_ms=at, energy=round(own * 1000 * at)
            )
    return message.SerializeToString()
