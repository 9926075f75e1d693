"""Strangers turned away by the kernel: a classic BPF filter on a socket whose peer is known.

A flood from somebody else then neither fills the peer's place in the buffer nor costs the worker time; the socket
counts what was dropped. Where the filter cannot be set, every datagram is still compared in user space.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

_ATTACH, _DETACH, _MEMINFO = 26, 27, 55
"""SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO (linux/asm-generic/socket.h)."""
_DROPS: Final = 8
"""Index of SK_MEMINFO_DROPS (linux/sock_diag.h)."""
_LOAD_WORD, _LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06
_NETWORK_HEADER: Final = 0xFFF00000
"""SKF_NET_OFF: offsets from here are within the IP header; small ones within the UDP header."""
_SOURCE: Final = {4: 12, 6: 8}
"""Where the source address is in an IP header."""
_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def accept_only(sock: socket.socket, host: str, port: int | None) -> bool:
    """Drop what does not come from `host` (and `port`, unless None); False where the kernel will not."""
    instructions = _program(host, port)
    code = ctypes.create_string_buffer(instructions)
    try:
        program = bytes(_Program(len(instructions) // 8, ctypes.addressof(code)))
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH, program)
    except OSError:
        return False
    return True


@lru_cache(1024)
def _program(host: str, port: int | None) -> bytes:
    """The filter, eight octets an instruction."""
    address = ip_address(host)
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    wanted = [(_LOAD_WORD, _NETWORK_HEADER + _SOURCE[address.version] + 4 * i, word) for i, word in enumerate(words)]
    if port is not None:
        wanted.append((_LOAD_HALF, 0, port))
    program: list[_Instruction] = []
    for i, (load, place, value) in enumerate(wanted):
        left = 2 * (len(wanted) - i - 1)
        program += [(load, 0, 0, place), (_JUMP_EQUAL, 0, left + 1, value)]
    program += [(_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def accept_all(sock: socket.socket) -> None:
    """Take the filter off."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
    except OSError:  # there was none
        return


def drops(sock: socket.socket) -> int:
    """Datagrams that the kernel has dropped: of strangers, or since the buffer was full."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, _MEMINFO, 4 * (_DROPS + 1))
    except OSError:
        return 0
    return int(struct.unpack_from("=I", found, 4 * _DROPS)[0]) if len(found) > 4 * _DROPS else 0
