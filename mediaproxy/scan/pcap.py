"""Packet captures: the UDP datagrams of pcap (the libpcap file format) and pcapng, one at a time.

The libraries that read these are GPL (scapy) or have not been kept up (dpkt, python-pcapng), and no more is needed
than this.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from typing import Final, NamedTuple

LARGEST: Final = 1 << 18
"""Octets of one packet: more is a damaged file."""
_UDP: Final = 17
_ETHERTYPES: Final = {0x0800: 4, 0x86DD: 6}
_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_EXTENSIONS: Final = (0, 43, 60)
"""IPv6: hop-by-hop, routing, destination options (RFC 8200 section 4.1)."""


class Damaged(Exception):
    """The capture goes on as none; the text says how."""


class Datagram(NamedTuple):
    """at: seconds since 1970; flow: (source address, port, destination address, port)."""

    at: float
    flow: tuple[bytes, int, bytes, int]
    payload: bytes
    whole: bool
    """False where the capture kept only its beginning."""


FRAGMENT: Final = "fragment(s) of IP, not put together"
LINK: Final = "packet(s) of a link layer that is not known"
TUNNEL: Final = "packet(s) in a tunnel, not looked into"


def datagrams(file: BufferedReader, unread: Counter[str]) -> Iterator[Datagram]:
    """The UDP datagrams of a capture; unread: counts what they may have been in and was not looked at.

    Raises Damaged where it ends or goes wrong in the middle.
    """
    head = _take(file, 4)
    for at, link, packet, size in _pcapng(file) if head == b"\x0a\x0d\x0d\x0a" else _pcap(file, head):
        if link not in _LINKS:
            unread[LINK] += 1
        found = _udp(_ip(link, packet), unread)
        if found is not None:
            flow, payload, length = found
            yield Datagram(at, flow, payload, len(packet) >= size and len(payload) >= length)


def _take(file: BufferedReader, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Damaged("cut short")
    return data


def _pcap(file: BufferedReader, magic: bytes) -> Iterator[tuple[float, int, bytes, int]]:
    order = "<" if magic[0] in (0xD4, 0x4D) else ">"
    fine = 1e-9 if b"\x3c" in magic else 1e-6
    _, _, link = struct.unpack(order + "12sII", _take(file, 20))
    record = struct.Struct(order + "IIII")
    while head := file.read(16):
        if len(head) < 16:
            raise Damaged("cut short")
        seconds, fraction, kept, size = record.unpack(head)
        if kept > LARGEST:
            raise Damaged("damaged: a packet larger than any")
        yield seconds + fraction * fine, link & 0xFFFF, _take(file, kept), size


def _pcapng(file: BufferedReader) -> Iterator[tuple[float, int, bytes, int]]:
    file.seek(0)
    order, links = "<", list[tuple[int, float]]()
    while head := file.read(8):
        if len(head) < 8:
            raise Damaged("cut short")
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            magic = _take(file, 4)
            order, links = "<" if magic == b"\x4d\x3c\x2b\x1a" else ">", []
            read = 4
        else:
            read = 0
        kind, size = struct.unpack(order + "II", head)
        if size % 4 or not 12 + read <= size <= LARGEST + 64:
            raise Damaged("damaged: a block of no possible size")
        body = _take(file, size - 8 - read)[:-4]
        if kind == 1 and len(body) >= 8:
            links.append((struct.unpack_from(order + "H", body)[0], _resolution(body[8:], order)))
        elif kind == 6 and len(body) >= 20:
            port, high, low, kept, full = struct.unpack_from(order + "IIIII", body)
            if port < len(links) and kept <= len(body) - 20:
                link, unit = links[port]
                yield (high << 32 | low) * unit, link, body[20 : 20 + kept], full
        elif kind == 3 and links and len(body) >= 4:
            full = struct.unpack_from(order + "I", body)[0]
            yield 0.0, links[0][0], body[4 : 4 + full], full


def _resolution(options: bytes, order: str) -> float:
    """Seconds a unit of time: option 9 of an interface (if_tsresol)."""
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, at)
        if code == 9 and size >= 1 and at + 4 < len(options):
            value = options[at + 4]
            return float(2.0 ** -(value & 127)) if value & 128 else float(10.0**-value)
        if code == 0:
            break
        at += 4 + size + (-size % 4)
    return 1e-6


def _ip(link: int, packet: bytes) -> bytes:
    """The IP packet in a frame of the link layers that captures of telephony have; nothing where there is none."""
    if link == 1:  # Ethernet
        at, kind = 14, int.from_bytes(packet[12:14])
        while kind in _TAGS:
            at, kind = at + 4, int.from_bytes(packet[at + 2 : at + 4])
        return packet[at:] if kind in _ETHERTYPES else b""
    if link == 113:  # Linux cooked
        return packet[16:] if int.from_bytes(packet[14:16]) in _ETHERTYPES else b""
    if link == 276:  # Linux cooked 2
        return packet[20:] if int.from_bytes(packet[:2]) in _ETHERTYPES else b""
    if link in (0, 108):  # BSD loopback
        return packet[4:]
    return packet if link in (12, 14, 101, 228, 229) else b""


_LINKS: Final = frozenset({0, 1, 12, 14, 101, 108, 113, 228, 229, 276})
_TUNNELS: Final = frozenset({4, 41, 47, 50})
"""IP in IP, IPv6 in IPv4, GRE, ESP."""


def _udp(packet: bytes, unread: Counter[str]) -> tuple[tuple[bytes, int, bytes, int], bytes, int] | None:
    """(flow, payload, the payload's length as sent) of an IP packet; None where it is no whole datagram."""
    if len(packet) < 28:
        return None
    if packet[0] >> 4 == 4:
        head = (packet[0] & 15) * 4
        fragment = bool(int.from_bytes(packet[6:8]) & 0x3FFF)
        unread[FRAGMENT] += fragment and packet[9] == _UDP
        unread[TUNNEL] += packet[9] in _TUNNELS
        if packet[9] != _UDP or fragment:
            return None
        source, target, rest = packet[12:16], packet[16:20], packet[head : int.from_bytes(packet[2:4]) or None]
    elif packet[0] >> 4 == 6 and len(packet) >= 48:
        source, target, following, at = packet[8:24], packet[24:40], packet[6], 40
        while following in _EXTENSIONS and at + 2 <= len(packet):
            following, at = packet[at], at + 8 + packet[at + 1] * 8
        unread[FRAGMENT] += following == 44
        unread[TUNNEL] += following in _TUNNELS
        if following != _UDP:
            return None
        rest = packet[at : 40 + int.from_bytes(packet[4:6])]
    else:
        return None
    if len(rest) < 8:
        return None
    here, there, length = struct.unpack_from("!HHH", rest)
    return (source, here, target, there), rest[8:length], length - 8
