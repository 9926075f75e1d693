"""The part of a configuration's check that is about browsers as phones: WebSocket, registration, codecs."""

from __future__ import annotations

import re
from pathlib import Path

from mediaproxy.config import Config, PeerConfig, SideConfig, endpoint
from mediaproxy.config_api import origins
from mediaproxy.config_tls import fits
from mediaproxy.errors import ConfigError


def websocket(side: SideConfig, name: str) -> None:
    """Raises ConfigError that names the key and what is allowed."""
    where = f"{name}.websocket"
    if side.websocket is None:
        return
    if name != "agent":
        raise ConfigError(f"{where}: goes on the agent side only: browsers are agents'")
    at = endpoint(side.websocket.listen, f"{where}.listen")
    taken = [endpoint(side.sip_listen, "agent.sip_listen")] if side.sip_tcp else []
    taken += [endpoint(side.tls.listen, "agent.tls.listen")] if side.tls is not None else []
    if at in taken:
        raise ConfigError(f"{where}.listen: must differ from where SIP over TCP and TLS is spoken")
    if side.websocket.advertise:
        endpoint(side.websocket.advertise, f"{where}.advertise")
    for key, path in (("certificate", side.websocket.certificate), ("key", side.websocket.key)):
        if not Path(path).is_file():
            raise ConfigError(f"{where}.{key}: is not a file")
    fits(side.websocket.certificate, side.websocket.key, f"{where}.key")
    origins(side.websocket.origins, f"{where}.origins")


def check(config: Config) -> None:
    """Raises ConfigError that names the key and what is allowed."""
    tenants = {"", *(tenant.name for tenant in config.tenants)}
    registered = [peer for peer in config.peers if peer.registered]
    for peer in config.peers:
        _peer(peer, config)
        if peer.tenant not in tenants:
            raise ConfigError("peer.tenant: names no [[tenant]]")
        if len([other for other in registered if other.tenant == peer.tenant]) > 1 and peer.registered:
            raise ConfigError("peer.registered: one peer a tenant: who registers would be in two places")
    if config.agent.websocket is not None and not registered:
        raise ConfigError("agent.websocket: needs a peer with registered = true, for who registers there")
    if config.api.phone_script:
        if config.agent.websocket is None:
            raise ConfigError("api.phone_script: needs [agent.websocket]")
        if not Path(config.api.phone_script).is_file():
            raise ConfigError("api.phone_script: is not a file")
    if config.api.phone_url and not re.fullmatch(
        r"wss://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?", config.api.phone_url
    ):
        raise ConfigError("api.phone_url: needs wss://host, with a port or a path or without")
    seen: set[tuple[str, str]] = set()
    for phone in config.phones:
        if not phone.number.isprintable() or not phone.number or set(phone.number) & set(' "<>/@:;'):
            raise ConfigError("phone.number: an extension as it stands in SIP addresses")
        if (phone.tenant, phone.number) in seen:
            raise ConfigError("phone.number: each once: of two passwords nobody could say which holds")
        seen.add((phone.tenant, phone.number))
        if phone.tenant not in tenants:
            raise ConfigError("phone.tenant: names no [[tenant]]")
        if not registered:
            raise ConfigError("phone: needs a peer with registered = true")
        if not Path(phone.password_file).is_file():
            raise ConfigError("phone.password_file: is not a file")
        if not 8 <= len(Path(phone.password_file).read_text("utf-8", "replace").rstrip("\r\n")) <= 256:
            raise ConfigError("phone.password_file: needs a password of 8 to 256 characters")


def _peer(peer: PeerConfig, config: Config) -> None:
    if peer.registered:
        if peer.address or peer.backups or peer.sources or peer.username:
            raise ConfigError("peer.registered: goes without address, backups, sources and username")
        if peer.side != "agent" or config.agent.websocket is None:
            raise ConfigError('peer.registered: needs side = "agent" and [agent.websocket]')
        if peer.srtp not in ("off", "dtls"):
            raise ConfigError("peer.srtp: what is registered speaks dtls, and need not say so")
    elif not peer.address:
        raise ConfigError("peer.address: needs an IP address or a name, or registered = true")
    if len(set(peer.codecs)) != len(peer.codecs):
        raise ConfigError("peer.codecs: each once, best first")
    if peer.tenant and not peer.registered:
        raise ConfigError("peer.tenant: goes with registered = true; else the route says whose calls they are")
