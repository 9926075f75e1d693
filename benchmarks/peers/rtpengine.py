"""rtpengine 10.5 (Debian `rtpengine-daemon`) in userspace on one core: plain, and with in-band DTMF-security.

`block DTMF` with DTMF-security=tone makes it decode, scan and encode the caller's audio; without a delay buffer it
masks nothing, and 60 ms is the least that leaves no tone (measured with keys of 100/100 ms).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TypeAlias

Address = tuple[str, int]
Value: TypeAlias = "str | int | list[Value] | dict[str, Value]"

PROGRAM = shutil.which("rtpengine") or "/usr/sbin/rtpengine"
LOCAL = "127.0.0.1"
DELAY_MS = 60  # the masked caller's audio waits this long, so that a detected key can be replaced from its start


def available() -> bool:
    """Whether the daemon and taskset are installed."""
    return Path(PROGRAM).exists() and shutil.which("taskset") is not None


def encode(value: Value) -> bytes:
    """Bencode a string, an integer, a list or a dictionary."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        data = value.encode()
        return b"%d:%s" % (len(data), data)
    if isinstance(value, list):
        return b"l" + b"".join(encode(item) for item in value) + b"e"
    return b"d" + b"".join(encode(key) + encode(item) for key, item in value.items()) + b"e"


def decode(data: bytes, at: int = 0) -> tuple[Value, int]:
    """The bencoded value that starts at `at`, and where it ends."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items: list[Value] = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = decode(data, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return {str(key): item for key, item in zip(items[::2], items[1::2], strict=True)}, at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end].decode(), end


def free_port() -> int:
    """A UDP port free just now (the kernel's choice)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def media(remote: Address, name: str) -> str:
    """An SDP body for one two-way PCMU stream received at `remote`."""
    host, port = remote
    return (
        f"v=0\r\no={name} 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n"
    )


def media_port(answer: dict[str, Value]) -> int:
    """The audio port in the SDP that rtpengine wrote."""
    found = re.search(r"^m=audio (\d+) ", str(answer["sdp"]), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"rtpengine: no audio port in {answer['sdp']!r}")
    return int(found[1])


class RtpEngine:
    """The daemon, all its threads on `core`, relaying on the ports first_port to last_port (four for a call)."""

    def __init__(
        self, core: int, first_port: int, last_port: int, *, learning: str = "off", log_level: int = 4, threads: int = 1
    ) -> None:
        self._options = [
            "--config-file=none", "--table=-1", "--foreground", "--log-stderr", f"--log-level={log_level}",
            f"--interface={LOCAL}", f"--port-min={first_port}", f"--port-max={last_port}",
            f"--num-threads={threads}", "--media-num-threads=1", f"--endpoint-learning={learning}",
            "--timeout=86400", "--silent-timeout=86400", "--offer-timeout=86400", "--delete-delay=0",
        ]  # fmt: skip
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._log: IO[bytes] | None = None
        self._sent = 0

    def __enter__(self) -> RtpEngine:
        port = free_port()
        self._log = tempfile.TemporaryFile()
        command = ["taskset", "-c", str(self._core), PROGRAM, *self._options, f"--listen-ng={LOCAL}:{port}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((LOCAL, port))
        self._socket.settimeout(0.2)
        try:
            for _ in range(50):
                try:
                    self.request({"command": "ping"})
                    return self
                except OSError:  # not listening yet
                    time.sleep(0.1)
                    if self._process.poll() is not None:
                        break
            raise RuntimeError(f"rtpengine did not start: {self.log()[-2000:]}")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()

    @property
    def pid(self) -> int:
        """The daemon's process id (taskset execs it, so it is the child's)."""
        if self._process is None:
            raise RuntimeError("rtpengine is not running")
        return self._process.pid

    def log(self) -> str:
        """What the daemon wrote so far."""
        if self._log is None:
            return ""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def cpu_ns(self) -> int:
        """CPU time all threads have used, in nanoseconds."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def request(self, message: dict[str, Value]) -> dict[str, Value]:
        """Send one ng command and return its answer; raise RuntimeError when it is refused."""
        if self._socket is None:
            raise RuntimeError("rtpengine is not running")
        self._sent += 1
        cookie = b"%d_%d" % (os.getpid(), self._sent)
        packet = cookie + b" " + encode(message)
        for _ in range(10):  # a repeated cookie is answered from the daemon's cache, never done twice
            self._socket.send(packet)
            try:
                reply = self._socket.recv(65536)
                while not reply.startswith(cookie + b" "):  # the answer to an earlier repeat
                    reply = self._socket.recv(65536)
            except TimeoutError:
                continue
            answer, _ = decode(reply, len(cookie) + 1)
            if not isinstance(answer, dict) or answer.get("result") not in ("ok", "pong"):
                raise RuntimeError(f"rtpengine: {message['command']}: {answer}")
            return answer
        raise OSError(f"rtpengine: no answer to {message['command']}")

    def call(self, number: int, trunk_remote: Address, agent_remote: Address, mask: bool) -> tuple[int, int]:
        """Set up call `number`; return the local ports for the caller's (trunk) and the agent's RTP.

        What arrives at the trunk port is sent to agent_remote and the reverse. With `mask`, in-band keys from the
        caller are replaced with a 400 Hz tone (the caller's audio is decoded, scanned, delayed and encoded again).
        """
        ids: dict[str, Value] = {"call-id": f"call-{number}", "from-tag": "trunk"}
        common: dict[str, Value] = {
            "ICE": "remove", "rtcp-mux": ["demux"], "replace": ["origin", "session-connection"],
            "flags": ["trust-address"],
        }  # fmt: skip
        offer = self.request({"command": "offer", **ids, **common, "sdp": media(trunk_remote, "trunk")})
        agent_port = media_port(offer)
        answer = self.request(
            {"command": "answer", **ids, "to-tag": "agent", **common, "sdp": media(agent_remote, "agent")}
        )
        if mask:
            self.request(
                {"command": "block DTMF", **ids, "DTMF-security": "tone", "delay-buffer": DELAY_MS,
                 "flags": ["detect-DTMF"]}
            )  # fmt: skip
        return media_port(answer), agent_port

    def transcoded(self, number: int, trunk_remote: Address, agent_remote: Address, key: str) -> tuple[int, int, str]:
        """Set up a call whose agent speaks Opus under SRTP; the local ports for trunk and agent, and its own key.

        key: the agent's, of a crypto line (RFC 4568). Opus as a browser has it; nothing is masked.
        """
        ids: dict[str, Value] = {"call-id": f"call-{number}", "from-tag": "trunk"}
        common: dict[str, Value] = {"ICE": "remove", "replace": ["origin"], "flags": ["trust-address"]}
        offer = self.request(
            {"command": "offer", **ids, **common, "sdp": media(trunk_remote, "trunk"), "transport-protocol": "RTP/SAVP",
             "DTLS": "off", "SDES": ["only-AES_CM_128_HMAC_SHA1_80"],
             "codec": {"strip": ["PCMU"], "transcode": ["opus/48000/2"]}}
        )  # fmt: skip
        said = str(offer["sdp"])
        own = re.search(r"^a=crypto:(\d+) AES_CM_128_HMAC_SHA1_80 inline:(\S+)", said, re.MULTILINE)
        opus = re.search(r"^a=rtpmap:(\d+) opus/48000", said, re.MULTILINE)
        if own is None or opus is None:
            raise RuntimeError(f"rtpengine offers no Opus under SRTP: {said!r}")
        host, port = agent_remote
        body = (
            f"v=0\r\no=agent 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/SAVP {opus[1]}\r\na=rtpmap:{opus[1]} opus/48000/2\r\n"
            f"a=fmtp:{opus[1]} useinbandfec=1\r\na=ptime:20\r\na=sendrecv\r\n"
            f"a=crypto:{own[1]} AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
        )
        answer = self.request({"command": "answer", **ids, "to-tag": "agent", **common, "sdp": body})
        return media_port(answer), media_port(offer), own[2]

    def end(self, number: int) -> None:
        """Delete call `number` and free its ports."""
        self.request({"command": "delete", "call-id": f"call-{number}", "from-tag": "trunk", "flags": []})
