"""A simulated phone: the device's side of the adb protocol, with faults on request.

adb's protocol: https://android.googlesource.com/platform/packages/modules/adb/+/HEAD/protocol.txt
and docs/dev/sync.md beside it. The stock adb client speaks with it. Commands run in /bin/sh of this
machine; `root` stands for the phone's file system, and its paths are put below it on the way in and
taken off on the way out. Tools of Android (getprop, dumpsys, cmd, taskset) are scripts in
`root`/system/bin.

Faults are files in `root`/faults, looked at when they matter:
    unplug-push N   the link breaks after N bytes of a pushed file
    unplug-run      the link breaks when the file's content is seen in what a command prints
    refuse          connections are closed at once (unplugged, until the file is gone)
    unauthorized    authentication never succeeds
    hang            a command whose text holds the file's content never starts nor ends
    full            writing a pushed file fails: no space left on device
    corrupt         one bit of a pushed file changes
    slow N          pushed files are taken at N bytes a second
    wrong           a runner's answers are those of a delegate that computes something else; with
                    TEXT only those of commands without it
    nameless        its banner does not tell its model
    garble          a runner's answers lose a bit on their way
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
import struct
import sys
import zlib
from pathlib import Path

CNXN, OPEN, OKAY, CLSE, WRTE, AUTH = (
    int.from_bytes(word, "little")
    for word in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE", b"AUTH")
)
MAX_PAYLOAD = 256 * 1024
FEATURES = "shell_v2,cmd,stat_v2,fixed_push_mkdir"
PLACES = ("/data/local/tmp", "/sys/")
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


class Unplugged(Exception):
    """A planted fault: the link is gone."""


class Stream:
    """One of the streams that run over a connection."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.connection = connection
        self.local, self.remote = local, remote
        self.coming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.acknowledged = asyncio.Event()
        self.lock = asyncio.Lock()
        self.rest = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        async with self.lock:
            for start in range(0, len(data), self.connection.payload):
                if self.closed:
                    return
                self.acknowledged.clear()
                chunk = data[start : start + self.connection.payload]
                self.connection.send(WRTE, self.local, self.remote, chunk)
                await self.acknowledged.wait()

    async def read(self) -> bytes:
        """What comes next; EOFError at its end."""
        data = await self.coming.get()
        if data is None:
            raise EOFError
        self.connection.send(OKAY, self.local, self.remote)
        return data

    async def exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            self.rest += await self.read()
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.connection.send(CLSE, self.local, self.remote)
            self.connection.streams.pop(self.local, None)


class Connection:
    """One adb server that is connected to the phone."""

    def __init__(
        self, phone: Phone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.phone = phone
        self.reader, self.writer = reader, writer
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.payload = 4096

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = (command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        self.writer.write(struct.pack("<6I", *head) + data)

    async def serve(self) -> None:
        try:
            while self.phone.fault("refuse") is None:
                head = await self.reader.readexactly(24)
                command, first, second, size, _, _ = struct.unpack("<6I", head)
                data = await self.reader.readexactly(size) if size else b""
                self.answer(command, first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        for stream in list(self.streams.values()):
            stream.closed = True
            stream.acknowledged.set()
            stream.coming.put_nowait(None)
        self.streams.clear()
        self.writer.transport.abort()

    def answer(self, command: int, first: int, second: int, data: bytes) -> None:
        stream = self.streams.get(second)
        if command in (CNXN, AUTH):
            if self.phone.fault("unauthorized") is not None:
                # Signatures are answered by another token, a public key (3) by whoever looks at the
                # screen: nobody does.
                if (command, first) != (AUTH, 3):
                    self.send(AUTH, 1, 0, bytes(20))
                return
            self.payload = min(second, MAX_PAYLOAD) if command == CNXN else self.payload
            self.send(CNXN, 0x01000000, MAX_PAYLOAD, self.phone.banner())
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + self.phone.number(), first)
            self.streams[stream.local] = stream
            task = asyncio.ensure_future(self.service(stream, data.rstrip(b"\0").decode()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif stream is None:
            if command != CLSE:
                self.send(CLSE, 0, first)
        elif command == OKAY:
            stream.acknowledged.set()
        elif command == WRTE:
            stream.coming.put_nowait(data)
        elif command == CLSE:
            stream.closed = True
            stream.acknowledged.set()
            stream.coming.put_nowait(None)
            del self.streams[second]

    async def service(self, stream: Stream, name: str) -> None:
        head, _, argument = name.partition(":")
        self.send(OKAY, stream.local, stream.remote)
        try:
            if head == "sync":
                await Sync(self.phone, stream).serve()
            elif head.split(",")[0] == "shell":
                await shell(self.phone, stream, argument)
        except EOFError:
            pass
        except Unplugged:
            (self.phone.root / "faults" / "refuse").touch()
            self.drop()
            return
        stream.close()


async def shell(phone: Phone, stream: Stream, command: str) -> None:
    """One command, in the framing of shell v2."""
    held = phone.fault("hang")
    if held is not None and held in command:
        await asyncio.Event().wait()
    with phone.commands.open("a") as log:
        log.write(json.dumps(command) + "\n")
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        phone.inside(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env=phone.environment(),
        start_new_session=True,
    )
    assert process.stdin and process.stdout and process.stderr

    async def pump(source: asyncio.StreamReader, number: int) -> None:
        while line := await source.readline():
            told = phone.outside(phone.answer(line, command))
            await stream.write(struct.pack("<BI", number, len(told)) + told)
            broken = phone.fault("unplug-run")
            if broken is not None and broken.encode() in told:
                raise Unplugged

    async def feed() -> None:
        assert process.stdin
        try:
            while True:
                number, size = struct.unpack("<BI", await stream.exactly(5))
                data = await stream.exactly(size)
                if number == CLOSE_STDIN:
                    process.stdin.close()
                elif number == STDIN:
                    process.stdin.write(data)
                    await process.stdin.drain()
        except (EOFError, ConnectionError):
            # The client is gone: adbd closes the pipes, and a runner sees its input end.
            process.stdin.close()

    feeding = asyncio.ensure_future(feed())
    try:
        await asyncio.gather(pump(process.stdout, STDOUT), pump(process.stderr, STDERR))
        status = await process.wait()
    finally:
        feeding.cancel()
        if process.returncode is None:
            process.stdin.close()
    code = status if status >= 0 else 128 - status
    await stream.write(struct.pack("<BI", EXIT, 1) + bytes([code]))


class Sync:
    """Pushing, pulling and asking after files."""

    def __init__(self, phone: Phone, stream: Stream) -> None:
        self.phone, self.stream = phone, stream

    async def serve(self) -> None:
        while True:
            name, size = struct.unpack("<4sI", await self.stream.exactly(8))
            if name == b"QUIT":
                return
            argument = (await self.stream.exactly(size)).decode()
            answers = {
                b"STAT": self.stat,
                b"LST2": self.stat2,
                b"STA2": self.stat2,
                b"RECV": self.receive,
                b"SEND": self.send,
            }
            if name not in answers:
                await self.fail(f"unsupported {name!r}")
                return
            await answers[name](name, argument)

    def path(self, text: str) -> Path:
        return self.phone.root / text.lstrip("/")

    async def stat(self, name: bytes, text: str) -> None:
        try:
            found = self.path(text).lstat()
            fields = (found.st_mode, found.st_size, int(found.st_mtime))
        except OSError:
            fields = (0, 0, 0)
        await self.stream.write(struct.pack("<4sIII", name, *fields))

    async def stat2(self, name: bytes, text: str) -> None:
        try:
            s = self.path(text).lstat()
            fields = (
                0,
                s.st_dev,
                s.st_ino,
                s.st_mode,
                s.st_nlink,
                s.st_uid,
                s.st_gid,
                s.st_size,
                int(s.st_atime),
                int(s.st_mtime),
                int(s.st_ctime),
            )
        except OSError as error:
            fields = (error.errno or 0, *(0,) * 10)
        await self.stream.write(struct.pack("<4sIQQIIIIQqqq", name, *fields))

    async def receive(self, name: bytes, text: str) -> None:
        try:
            content = self.path(text).read_bytes()
        except OSError as error:
            await self.fail(error.strerror or "")
            return
        for start in range(0, len(content), 65536):
            chunk = content[start : start + 65536]
            await self.stream.write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
        await self.stream.write(struct.pack("<4sI", b"DONE", 0))

    async def send(self, name: bytes, text: str) -> None:
        place, _, mode = text.rpartition(",")
        path = self.path(place)
        content = b""
        while True:
            kind, size = struct.unpack("<4sI", await self.stream.exactly(8))
            if kind == b"DONE":
                break
            content += await self.stream.exactly(size)
            if (least := self.phone.fault("unplug-push")) and len(content) >= int(least):
                path.write_bytes(content)
                raise Unplugged
            if (rate := self.phone.fault("slow")) is not None:
                await asyncio.sleep(size / int(rate))
        if self.phone.fault("full") is not None:
            await self.fail("couldn't write file: No space left on device")
            return
        if self.phone.fault("corrupt") is not None and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        try:
            path.write_bytes(content)
            path.chmod(stat.S_IMODE(int(mode)) | 0o600)
        except OSError as error:
            await self.fail(error.strerror or "")
            return
        await self.stream.write(struct.pack("<4sI", b"OKAY", 0))

    async def fail(self, reason: str) -> None:
        text = reason.encode()
        await self.stream.write(struct.pack("<4sI", b"FAIL", len(text)) + text)


class Phone:
    """What the connections share."""

    def __init__(self, root: Path, model: str) -> None:
        self.root, self.model = root, model
        self.commands = root / "commands"
        self._number = 0

    def number(self) -> int:
        self._number += 1000
        return self._number

    def banner(self) -> bytes:
        model = "" if self.fault("nameless") is not None else f"ro.product.model={self.model};"
        return f"device::{model}features={FEATURES}".encode()

    def fault(self, name: str) -> str | None:
        try:
            return (self.root / "faults" / name).read_text().strip()
        except FileNotFoundError:
            return None

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.root}/system/bin:/usr/bin:/bin", "PHONE": str(self.root)}

    def answer(self, line: bytes, command: str) -> bytes:
        """A line that a command printed, with the faults of answers."""
        fault, garbled = self.fault("wrong"), self.fault("garble") is not None
        wrong = fault is not None and (not fault or fault not in command)
        if b'"RawAnswer"' not in line or not (wrong or garbled):
            return line
        event = json.loads(line)
        raw = base64.b64decode(event["raw"])
        raw = bytes(255 - byte for byte in raw) if wrong else bytes([raw[0] ^ 1]) + raw[1:]
        event["raw"] = base64.b64encode(raw).decode()
        if wrong:
            event["crc32"] = zlib.crc32(raw)
        return json.dumps(event).encode() + b"\n"

    def inside(self, command: str) -> str:
        for place in PLACES:
            command = command.replace(place, f"{self.root}{place}")
        return command

    def outside(self, line: bytes) -> bytes:
        return line.replace(str(self.root).encode(), b"")


async def main() -> None:
    root, model, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    phone = Phone(root, model)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(phone, reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
