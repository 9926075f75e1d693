"""RTCP that this box makes and reads for itself (RFC 3550 section 6): reports, source description and goodbye."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_UNIX_TO_NTP: Final = 2_208_988_800
_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_PARTS: Final = 16
"""Packets of a compound that are read: three are usual, and a datagram could hold five hundred."""
_SENDER: Final = struct.Struct("!BBHIIIIII")


@dataclass(frozen=True, slots=True)
class Block:
    """A report block (section 6.4.1). fraction: of 256; delay: seconds since the sender report `last_report`."""

    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    last_report: int
    delay: float


@dataclass(frozen=True, slots=True)
class SenderReport:
    """What a peer says of its clocks. ntp: 64 bits, 2**-32 seconds since 1900, at RTP time `timestamp`."""

    ssrc: int
    ntp: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """These sources have ended."""

    ssrcs: tuple[int, ...]


def sender_report(
    ssrc: int, cname: str, wall: float, timestamp: int, packets: int, octets: int, block: Block | None = None
) -> bytes:
    """A compound packet: SR, SDES with CNAME. `wall`: seconds since 1970 at RTP time `timestamp`."""
    seconds = int(wall)
    report = _SENDER.pack(
        0x80 | (block is not None), _SR, 12 if block else 6, ssrc,
        seconds + _UNIX_TO_NTP & 0xFFFFFFFF, int((wall - seconds) * 2**32),
        timestamp & 0xFFFFFFFF, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF,
    )  # fmt: skip
    return report + _block(block) + _description(ssrc, cname)


def receiver_report(ssrc: int, cname: str, block: Block | None = None) -> bytes:
    """A compound packet of one that has sent nothing: RR, SDES with CNAME."""
    head = struct.pack("!BBHI", 0x80 | (block is not None), _RR, 7 if block else 1, ssrc)
    return head + _block(block) + _description(ssrc, cname)


def goodbye(ssrc: int, cname: str) -> bytes:
    """A compound packet that ends `ssrc`: RR, SDES, BYE (section 6.6)."""
    return receiver_report(ssrc, cname) + struct.pack("!BBHI", 0x81, _BYE, 1, ssrc)


def _block(block: Block | None) -> bytes:
    if block is None:
        return b""
    lost = max(-0x800000, min(block.lost, 0x7FFFFF)) & 0xFFFFFF
    delay = int(block.delay * 65536) if block.last_report else 0
    return struct.pack(
        "!IIIIII", block.ssrc, block.fraction << 24 | lost, block.highest & 0xFFFFFFFF, block.jitter & 0xFFFFFFFF,
        block.last_report, min(delay, 0xFFFFFFFF),
    )  # fmt: skip


def _description(ssrc: int, cname: str) -> bytes:
    item = bytes((1, len(cname))) + cname.encode("ascii")
    chunk = struct.pack("!I", ssrc) + item
    chunk += bytes(4 - len(chunk) % 4)
    return struct.pack("!BBH", 0x81, _SDES, len(chunk) // 4) + chunk


def parse(data: bytes) -> list[SenderReport | Goodbye] | None:
    """What a compound packet says that this box uses; None where it is none. Never raises."""
    found: list[SenderReport | Goodbye] = []
    at = 0
    for _ in range(_PARTS):
        if at >= len(data):
            break
        if at + 4 > len(data) or data[at] >> 6 != 2:
            return None
        kind, end = data[at + 1], at + 4 + 4 * int.from_bytes(data[at + 2 : at + 4])
        if end > len(data) or not 192 <= kind <= 223:
            return None
        if kind == _SR and end - at >= 28:
            ssrc, high, low, timestamp = struct.unpack_from("!IIII", data, at + 4)
            found.append(SenderReport(ssrc, high << 32 | low, timestamp))
        elif kind == _BYE:
            count = min(data[at] & 31, (end - at - 4) // 4)
            found.append(Goodbye(struct.unpack_from(f"!{count}I", data, at + 4)))
        at = end
    return found if data else None
