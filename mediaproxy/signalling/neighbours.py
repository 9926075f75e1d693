"""The B2BUA as the configuration has it: peers, routes, and where this box is."""

from __future__ import annotations

import re
import secrets
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from mediaproxy.config import Config, PeerConfig, RouteConfig, endpoint
from sip.b2bua.core import Site
from sip.b2bua.pair import B2bua
from sip.b2bua.peers import AGENT, TRUNK, HeaderRule, Peer, Route
from sip.digest import Credentials
from sip.hop import TCP, TLS, UDP, WSS, Endpoint
from sip.offer_answer import DTLS, G722, KEY_BYTES, OPUS, PLAIN


def b2bua(config: Config) -> B2bua:
    """The B2BUA of a configuration; next hops come from `names` later."""
    own: dict[tuple[str, str], Endpoint] = {}
    for side in (TRUNK, AGENT):
        settings = config.side(side)
        at = endpoint(settings.sip_advertise or settings.sip_listen, f"{side}.sip_listen")
        own[side, UDP] = at
        if settings.sip_tcp:
            own[side, TCP] = at
        if settings.tls is not None:
            own[side, TLS] = endpoint(settings.tls.advertise or settings.tls.listen, f"{side}.tls.listen")
        if settings.websocket is not None:
            where = settings.websocket.advertise or settings.websocket.listen
            own[side, WSS] = endpoint(where, f"{side}.websocket.listen")
    site = Site(own, config.api.correlation_header, lambda: secrets.token_bytes(KEY_BYTES))
    strangers = frozenset(side for side in (TRUNK, AGENT) if config.side(side).strangers == "refuse")
    peers, routes = tuple(map(_peer, config.peers)), tuple(map(_route, config.routes))
    return B2bua(peers, routes, site, _Ids(), strangers)


class _Ids:
    """Unguessable tokens of 128 bits, the system's randomness drawn 64 at a time."""

    def __init__(self) -> None:
        self._left: list[str] = []

    def __call__(self) -> str:
        if not self._left:
            drawn = secrets.token_hex(16 * 64)
            self._left = [drawn[i : i + 32] for i in range(0, len(drawn), 32)]
        return self._left.pop()


_CODECS: Final = {"opus": OPUS, "g722": G722, "pcmu": PLAIN[0], "pcma": PLAIN[1]}


def _peer(config: PeerConfig) -> Peer:
    srtp = DTLS if config.registered else config.srtp
    codecs = tuple(_CODECS[name] for name in config.codecs) or ((OPUS, *PLAIN) if srtp == DTLS else PLAIN)
    return Peer(
        config.name,
        config.side,
        [],
        tuple(ip_network(source) for source in config.sources),
        config.transport.upper(),
        frozenset(name.lower() for name in config.certificate_names),
        _credentials(config),
        srtp,
        codecs,
        config.refer,
        config.options_seconds,
        config.failover_seconds,
        config.session_seconds,
        config.least_session_seconds,
        config.requests_a_second,
        config.hide_topology,
        config.other_media == "refuse",
        config.registered,
        config.tenant,
        tuple(
            HeaderRule(rule.action, rule.name, rule.value, re.compile(rule.matches) if rule.matches else None)
            for rule in config.headers
        ),
    )


def _credentials(config: PeerConfig) -> Credentials | None:
    if not config.username:
        return None
    return Credentials(config.username, Path(config.password_file).read_text("utf-8").rstrip("\r\n"))


def _route(config: RouteConfig) -> Route:
    return Route(
        config.name,
        config.origin,
        config.target,
        re.compile(config.users),
        config.header,
        re.compile(config.header_matches),
        config.mode,
        frozenset(config.guard_on),
        config.guard_header,
        config.guard_keys,
    )
