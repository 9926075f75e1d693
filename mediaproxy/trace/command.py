"""Watch a call through the running process's socket."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from mediaproxy.errors import ConfigError
from mediaproxy.ipc.step import Step, Wish
from mediaproxy.trace import pcap


def run(path: str, whom: str, text: str, capture: str, full: bool, seconds: float) -> int:
    """Print until interrupted, or for `seconds`. Returns the exit code: 1 where nothing was seen.

    Raises ConfigError."""
    until = time.monotonic() + seconds if seconds else None
    seen = 0
    with contextlib.ExitStack() as stack:
        to_text = stack.enter_context(_create(text, "w")) if text else None
        to_pcap = stack.enter_context(_create(capture, "wb")) if capture else None
        if to_pcap is not None:
            to_pcap.write(pcap.HEADER)
            to_pcap.flush()
        try:
            for step in _steps(path, whom, until):
                seen += 1
                _print(arrow(step))
                if full:
                    _print("".join(f"    {line}\n" for line in step.text.splitlines()))
                if to_text is not None:
                    to_text.write(f"{arrow(step)}\n{step.text}\n")
                    to_text.flush()
                if to_pcap is not None:
                    source, target = (step.peer, step.own) if step.way == "in" else (step.own, step.peer)
                    to_pcap.write(pcap.packet(step.at, source, target, step.text.encode()))
                    to_pcap.flush()
        except KeyboardInterrupt:
            pass
    if not seen:
        sys.stderr.write(f"nothing seen of {whom}\n")
    return 0 if seen else 1


def arrow(step: Step) -> str:
    """One rung of the ladder: trunk to the left, agent to the right."""
    stamp = time.strftime("%H:%M:%S", time.localtime(step.at)) + f".{int(step.at % 1 * 1000):03d}"
    first = step.text.partition("\r\n")[0]
    what = first.removeprefix("SIP/2.0 ").removesuffix(" SIP/2.0")
    place = f"{step.peer[0]}:{step.peer[1]}"
    left, right = (place, "flattone") if step.side == "trunk" else ("flattone", place)
    to_the_right = (step.side == "trunk") == (step.way == "in")
    arrow = "──▶" if to_the_right else "◀──"
    return f"{stamp}  {step.call[:8]:8}  {step.side:5}  {left} {arrow} {right}  {step.transport}  {what}"


def _print(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def _create(path: str, mode: str) -> IO:  # type: ignore[type-arg]
    try:
        return Path(path).open(mode)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None


def _steps(path: str, whom: str, until: float | None) -> Iterator[Step]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        try:
            wire.connect(path)
        except OSError as error:
            raise ConfigError(f"{path}: flattone does not answer there ({error.strerror})") from None
        wire.sendall(msgspec.json.encode(Wish(whom)) + b"\n")
        rest = b""
        while True:
            wire.settimeout(max(0.01, until - time.monotonic()) if until is not None else None)
            try:
                data = wire.recv(1 << 16)
            except TimeoutError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if len(line) > 2:
                    yield msgspec.json.decode(line, type=Step)
