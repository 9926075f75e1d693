"""Packets for a capture file: raw IP, with the SIP messages in UDP whatever they came by."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

Place = tuple[str, int]
HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
"""The file's first octets: microseconds, link type raw IP."""


def packet(at: float, source: Place, target: Place, payload: bytes) -> bytes:
    """A record of the file: one datagram of at most 64 kB."""
    payload = payload[:65_000]
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(payload), 0) + payload
    left, right = ip_address(source[0]), ip_address(target[0])
    if left.version == 4 and right.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + left.packed + right.packed
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    else:
        wide = [a.packed if a.version == 6 else b"\0" * 10 + b"\xff\xff" + a.packed for a in (left, right)]
        head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + wide[0] + wide[1]
    data = head + udp
    return struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(data), len(data)) + data
