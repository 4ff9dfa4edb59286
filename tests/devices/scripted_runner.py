#!/usr/bin/env python3
"""A runner that speaks PROTOCOL.md, on a phone of the tests' own: its clock does as it is told.

$PHONE/pace is JSON: nanoseconds of a run by the model's file name ("" for any other); "noise", its
relative spread; "drift", by which fraction the phone slows down over "span" seconds of its own
time; "delegated", nodes of 31; "load_ua", what the battery tells of
its current meanwhile. $PHONE/faults/garbage, killed: what is printed first, and dying in
mid-run. With --cold it runs once, one nanosecond longer at each start; $PHONE/faults/old: it knows
nothing of loading.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

phone = Path(os.environ["PHONE"])
arguments = [argument for argument in sys.argv[2:] if argument != "--cold"]
given = dict(zip(arguments[::2], arguments[1::2], strict=True))
pace = json.loads((phone / "pace").read_text())
lived = phone / "lived"
Path(given["--model"]).read_bytes()


def say(record, **fields):
    print(json.dumps({"schema_version": 1, "record": record} | fields), flush=True)


def now():
    """Seconds that this phone has computed for."""
    return float(lived.read_text()) if lived.exists() else 0.0


tensor = {
    "name": "",
    "shape": [],
    "dtype": "",
    "scale": [],
    "zero_point": [],
    "axis": None,
    "constant": False,
}
if (phone / "faults" / "garbage").exists():
    print((phone / "faults" / "garbage").read_text(), flush=True)
say(
    "Ready",
    protocol=1,
    runtime="litert",
    version="2.3.0",
    input=tensor,
    output=tensor,
    delegate=given.get("--delegate", "xnnpack"),
    delegated_nodes=pace.get("delegated", 31),
    total_nodes=31,
    threads=int(given["--threads"]),
    cpu="aarch64",
)
if "--cold" in sys.argv:
    if not (phone / "faults" / "old").exists():
        say("Loaded", library_ns=5_000_000, load_ns=None, prepare_ns=2_000_000)
    starts = phone / "starts"
    starts.write_text(f"{starts.read_text() if starts.exists() else ''}.")
    say("Timed", samples_ns=[1_000_000 + len(starts.read_text())])
    say("Done", peak_rss_bytes=12_000_000)
    sys.exit()
current = phone / "sys/class/power_supply/battery/current_now"
idle = current.read_text() if "load_ua" in pace else ""
if idle:
    current.write_text(f"{pace['load_ua']}\n")
name = Path(given["--model"]).name
per_run = pace.get(name, pace.get("", 2e6))
seconds = now()
dice = random.Random(f"{name} {seconds}")
told = 0
while not (select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.read(1)):
    samples = []
    for _ in range(25):
        slower = 1 + pace.get("drift", 0.0) * seconds / pace.get("span", 1.0)
        samples.append(round(per_run * slower * dice.lognormvariate(0, pace.get("noise", 0.002))))
        seconds += samples[-1] / 1e9
    say("Timed", samples_ns=samples)
    told += 1
    if told == 3 and (phone / "faults" / "killed").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.005)
lived.write_text(str(seconds))
if idle:
    current.write_text(idle)
say("Done", peak_rss_bytes=12_000_000)
