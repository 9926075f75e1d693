"""RTCP that this box sends for itself (RFC 3550 sections 6.4.1 and 6.5.1): sender report and CNAME."""

from __future__ import annotations

import struct

_UNIX_TO_NTP = 2_208_988_800
_SR, _SDES = 200, 202


def sender_report(ssrc: int, cname: str, wall: float, timestamp: int, packets: int, octets: int) -> bytes:
    """A compound packet: SR without report blocks, SDES with CNAME. `wall`: seconds since 1970 at `timestamp`."""
    seconds = int(wall)
    fraction = int((wall - seconds) * 2**32)
    report = struct.pack(
        "!BBHIIIIII",
        0x80, _SR, 6, ssrc, seconds + _UNIX_TO_NTP & 0xFFFFFFFF, fraction,
        timestamp & 0xFFFFFFFF, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF,
    )  # fmt: skip
    item = bytes((1, len(cname))) + cname.encode("ascii")
    chunk = struct.pack("!I", ssrc) + item
    chunk += bytes(4 - len(chunk) % 4)
    return report + struct.pack("!BBH", 0x81, _SDES, len(chunk) // 4) + chunk
