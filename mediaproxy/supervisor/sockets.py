"""Every socket that is listened on, bound before anything starts and kept while its process is restarted."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from mediaproxy.config import Config, SideConfig, endpoint
from mediaproxy.errors import ConfigError


class StartError(Exception):
    """Flattone could not start; the text says why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """setting: where it comes from; at: host:port, or a path; side: whose interface and class of service it has."""

    setting: str
    at: str
    kind: socket.SocketKind
    side: SideConfig | None = None


def wanted(config: Config) -> dict[str, Listener]:
    """All of them by name: side, side-tcp, side-tls, side-wss, trace, api."""
    found: dict[str, Listener] = {}
    for name in ("trunk", "agent"):
        side = config.side(name)
        found[name] = Listener(f"{name}.sip_listen", side.sip_listen, socket.SOCK_DGRAM, side)
        if side.sip_tcp:
            found[f"{name}-tcp"] = Listener(f"{name}.sip_listen", side.sip_listen, socket.SOCK_STREAM, side)
        if side.tls is not None:
            found[f"{name}-tls"] = Listener(f"{name}.tls.listen", side.tls.listen, socket.SOCK_STREAM, side)
        if side.websocket is not None:
            where = f"{name}.websocket.listen"
            found[f"{name}-wss"] = Listener(where, side.websocket.listen, socket.SOCK_STREAM, side)
    if config.trace.socket:
        found["trace"] = Listener("trace.socket", config.trace.socket, socket.SOCK_STREAM)
    found["api"] = Listener("api.listen", config.api.listen, socket.SOCK_STREAM)
    return found


def listen(config: Config) -> dict[str, socket.socket]:
    """Bind them all. Raises StartError that names the setting."""
    for setting, side in (("trunk", config.trunk), ("agent", config.agent)):
        host = side.rtp_address
        with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
            try:
                _dress(probe, side)
                probe.bind((host, 0))
            except OSError as error:
                raise StartError(f"{setting}.rtp_address: {host} cannot be bound ({error.strerror})") from None
    bound: dict[str, socket.socket] = {}
    try:
        for name, listener in wanted(config).items():
            bound[name] = _path(listener) if name == "trace" else _bind(listener)
    except StartError:
        for sock in bound.values():
            sock.close()
        raise
    return bound


def _bind(listener: Listener) -> socket.socket:
    try:
        at = endpoint(listener.at, listener.setting)
    except ConfigError as error:
        raise StartError(str(error)) from None
    sock = socket.socket(_family(at[0]), listener.kind)
    try:
        if listener.side is not None:
            _dress(sock, listener.side)
        if listener.kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        sock.bind(at)
        if listener.kind == socket.SOCK_STREAM:
            sock.listen(512)
    except OSError as error:
        sock.close()
        how = " for TCP" if listener.setting.endswith("sip_listen") and listener.kind == socket.SOCK_STREAM else ""
        raise StartError(f"{listener.setting}: {listener.at} cannot be bound{how} ({error.strerror})") from None
    return sock


def _dress(sock: socket.socket, side: SideConfig) -> None:
    """Interface and class of service of a side's signalling."""
    if side.interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, side.interface.encode())
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, side.sip_dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, side.sip_dscp << 2)


def _path(listener: Listener) -> socket.socket:
    """A socket in the file system that only its owner may open; what a former run left there is taken away."""
    path = Path(listener.at)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()
        before = os.umask(0o177)
        try:
            sock.bind(listener.at)
        finally:
            os.umask(before)
        sock.listen(8)
    except OSError as error:
        sock.close()
        raise StartError(f"{listener.setting}: {listener.at} cannot be bound ({error.strerror})") from None
    return sock


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
