"""Reading a configuration file: checked as a whole before anything starts, every mistake told by file, line and key."""

from __future__ import annotations

import math
import pwd
import re
import tomllib
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import msgspec

from mediaproxy import config_api, config_capture, config_errors, config_phones, config_recording
from mediaproxy.config import Config, PeerConfig, SideConfig, endpoint, is_address, next_hop, port_range
from mediaproxy.config_tls import authority, fits
from mediaproxy.errors import ConfigError


def load(path: str) -> Config:
    """Read and check a configuration file. Raises ConfigError that names file and key."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    try:
        config = msgspec.convert(tomllib.loads(text), Config)
        check(config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {config_errors.without_values(str(error))}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}{config_errors.line(text, str(error))}: {config_errors.plain(str(error))}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}{config_errors.line(text, str(error))}: {error}") from None
    return config


def check(config: Config) -> None:
    """Check what types cannot. Raises ConfigError that names the key and what is allowed."""
    for name in ("trunk", "agent"):
        side = config.side(name)
        host, port = endpoint(side.sip_listen, f"{name}.sip_listen")
        _address(host, f"{name}.sip_listen")
        first, last = port_range(config.media)
        if host == side.rtp_address and first <= port <= last:
            raise ConfigError(f"media.ports: must not hold the port of {name}.sip_listen")
        if side.sip_advertise:
            endpoint(side.sip_advertise, f"{name}.sip_advertise")
        for key, value in (("rtp_address", side.rtp_address), ("rtp_advertise", side.rtp_advertise)):
            if value or key == "rtp_address":
                _address(value, f"{name}.{key}")
        _tls(side, name)
        config_phones.websocket(side, name)
        for key, number in (("sip_dscp", side.sip_dscp), ("rtp_dscp", side.rtp_dscp)):
            if not 0 <= number <= 63:
                raise ConfigError(f"{name}.{key}: 0 to 63")
    if config.trunk.sip_listen == config.agent.sip_listen:
        raise ConfigError("agent.sip_listen: must differ from trunk.sip_listen: the socket tells the side")
    port_range(config.media)
    _unique("route.name", [route.name for route in config.routes])
    _unique("gateway.name", [gateway.name for gateway in config.gateways])
    _unique("field.name", [field.name for field in config.fields])
    _unique("template.name", [template.name for template in config.templates])
    _unique("webhook.name", [webhook.name for webhook in config.webhooks])
    _unique("tenant.name", [tenant.name for tenant in config.tenants])
    _unique("api.tokens.name", [token.name for token in config.api.tokens])
    _unique("api.issuers.name", [issuer.name for issuer in config.api.issuers])
    _unique("api.issuers.issuer", [issuer.issuer for issuer in config.api.issuers])
    _unique("api.tokens.sha256", [token.sha256 for token in config.api.tokens])
    _seconds(config)
    for user in config.users.values():
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise ConfigError("users: names a user that this system does not know") from None
    if not 0 <= config.media.workers <= 64:
        raise ConfigError("media.workers: 0 (one a core) to 64")
    if not 1 <= config.media.max_calls <= 2000:
        raise ConfigError("media.max_calls: 1 to 2000 a worker")
    if not 64 <= config.media.memory_limit_mb <= 1 << 20:
        raise ConfigError("media.memory_limit_mb: 64 to 1048576")
    peers = _peers(config)
    config_phones.check(config)
    _routes(config, peers)
    config_capture.check(config)
    for server in config.dns.servers:
        endpoint(server, "dns.servers")
    config_api.check(config)
    for where, name in (("trace.socket", config.trace.socket), ("cdr.file", config.cdr.file)):
        if name and not Path(name).parent.is_dir():
            raise ConfigError(f"{where}: its directory does not exist")
        if len(name.encode()) > 100:  # a socket's path has 107 octets at most (unix(7))
            raise ConfigError(f"{where}: a path of at most 100 octets")
    if config.cdr.file and Path(config.cdr.file).exists() and not Path(config.cdr.file).is_file():
        raise ConfigError("cdr.file: is not a file")
    config_recording.check(config)


def _address(text: str, where: str) -> None:
    try:
        address = ip_address(text)
        if address.is_unspecified:
            raise ConfigError(f"{where}: needs one address of this machine, not all of them")
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            raise ConfigError(f"{where}: write an IPv4 address as such")
    except ValueError:
        raise ConfigError(f"{where}: needs an IP address") from None


def _unique(where: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: each once: of two alike nobody could say which holds")


def _seconds(config: Config) -> None:
    """Times that are no finite number of seconds would never come."""
    limits = [
        ("media.rtp_timeout_seconds", config.media.rtp_timeout_seconds, 0.0),
        ("media.max_call_seconds", config.media.max_call_seconds, 0.0),
        ("media.port_rest_seconds", config.media.port_rest_seconds, 0.0),
        ("capture.field_seconds", config.capture.field_seconds, 1.0),
        ("capture.total_seconds", config.capture.total_seconds, 1.0),
        ("capture.pause_seconds", config.capture.pause_seconds, 0.5),
        ("stop.grace_seconds", config.stop.grace_seconds, 0.0),
        *(("field.seconds", field.seconds, 0.0) for field in config.fields),
        *(("gateway.connect_seconds", gateway.connect_seconds, 0.1) for gateway in config.gateways),
        *(("webhook.timeout_seconds", webhook.timeout_seconds, 0.1) for webhook in config.webhooks),
        *(("webhook.keep_seconds", webhook.keep_seconds, 0.0) for webhook in config.webhooks),
        *(("gateway.timeout_seconds", gateway.timeout_seconds, 0.1) for gateway in config.gateways),
    ]
    for where, value, least in limits:
        if not (math.isfinite(value) and least <= value <= 86_400):
            raise ConfigError(f"{where}: needs {least:g} to 86400 seconds")


def _peers(config: Config) -> dict[str, PeerConfig]:
    peers: dict[str, PeerConfig] = {}
    for peer in config.peers:
        if peer.name in peers:
            raise ConfigError("peer.name: each name once")
        peers[peer.name] = peer
        for source in peer.sources:
            _network(source, "peer.sources")
        _sources(peer)
        for other in peers.values():
            if other is peer or other.side != peer.side or (peer.certificate_names and other.certificate_names):
                continue
            if any(_overlap(a, b) for a in _sources(peer) for b in _sources(other)):
                raise ConfigError("peer.sources: two peers of one side share an address: who speaks is unclear")
        _speech(peer, config.side(peer.side))
        if (peer.rtp == "network") != bool(peer.rtp_network):
            raise ConfigError('peer.rtp_network: goes with rtp = "network"')
        if peer.rtp_network:
            _network(peer.rtp_network, "peer.rtp_network")
    return peers


def _sources(peer: PeerConfig) -> list[str]:
    """Where a peer may speak from, as far as the file says."""
    if peer.registered or not peer.address:  # what must be there is checked with the browsers
        return []
    hops = [next_hop(peer.address, "peer.address")[0], *(next_hop(b, "peer.backups")[0] for b in peer.backups)]
    return [*peer.sources, *(host for host in hops if is_address(host))]


def _speech(peer: PeerConfig, side: SideConfig) -> None:
    """How a peer is spoken to."""
    if peer.transport == "tls" and side.tls is None:
        raise ConfigError(f"peer.transport: tls needs [{peer.side}.tls]")
    if peer.transport == "tcp" and not side.sip_tcp:
        raise ConfigError(f"peer.transport: tcp needs {peer.side}.sip_tcp")
    if peer.certificate_names and (peer.transport != "tls" or side.tls is None or side.tls.clients == "none"):
        raise ConfigError('peer.certificate_names: goes with transport = "tls" and certificates asked of clients')
    if bool(peer.username) != bool(peer.password_file):
        raise ConfigError("peer.username: goes with peer.password_file, both or neither")
    if peer.password_file and not Path(peer.password_file).is_file():
        raise ConfigError("peer.password_file: is not a file")
    if peer.session_seconds and not 90 <= peer.session_seconds <= 86_400:
        raise ConfigError("peer.session_seconds: 0 for none, or 90 to 86400")
    if not 90 <= peer.least_session_seconds <= 86_400:
        raise ConfigError("peer.least_session_seconds: 90 to 86400")
    for where, value in (
        ("peer.options_seconds", peer.options_seconds), ("peer.failover_seconds", peer.failover_seconds),
        ("peer.requests_a_second", peer.requests_a_second),
    ):  # fmt: skip
        if not (math.isfinite(value) and 0 <= value <= 86_400):
            raise ConfigError(f"{where}: 0 to 86400")
    if peer.failover_seconds < 0.5:
        raise ConfigError("peer.failover_seconds: at least 0.5")
    for header in peer.headers:
        if not re.fullmatch(r"[A-Za-z0-9.!%*_+`'~-]+", header.name) or not header.value.isprintable():
            raise ConfigError("peer.headers: needs a header's name, and a value of one line")
        if header.name.lower() in _STRUCTURE:
            raise ConfigError(f"peer.headers: {header.name} is the box's own; a rule would break the call")
        if (header.action == "rewrite") != bool(header.matches):
            raise ConfigError('peer.headers: matches goes with action = "rewrite"')
        _pattern(header.matches, "peer.headers.matches")


_STRUCTURE = frozenset(
    {
        "via", "v", "from", "f", "to", "t", "call-id", "i", "cseq", "contact", "m", "route", "record-route",
        "max-forwards", "content-length", "l", "content-type", "c", "require", "supported", "k", "rseq", "rack",
    }
)  # fmt: skip


def _pattern(text: str, where: str) -> None:
    try:
        re.compile(text)
    except re.error:
        raise ConfigError(f"{where}: needs a regular expression") from None


def _tls(side: SideConfig, name: str) -> None:
    if side.tls is None:
        return
    tls = side.tls
    _address(endpoint(tls.listen, f"{name}.tls.listen")[0], f"{name}.tls.listen")
    if side.sip_tcp and tls.listen == side.sip_listen:
        raise ConfigError(f"{name}.tls.listen: must differ from {name}.sip_listen, where TCP is spoken")
    if tls.advertise:
        endpoint(tls.advertise, f"{name}.tls.advertise")
    pairs = [("", tls.certificate, tls.key), *((".others", o.certificate, o.key) for o in tls.others)]
    for where, certificate, key in pairs:
        for what, path in (("certificate", certificate), ("key", key)):
            if not Path(path).is_file():
                raise ConfigError(f"{name}.tls{where}.{what}: is not a file")
    for where, certificate, key in pairs:
        fits(certificate, key, f"{name}.tls{where}.key")
    if tls.ca_file:
        authority(tls.ca_file, f"{name}.tls.ca_file")


def _overlap(left: str, right: str) -> bool:
    a, b = ip_network(left), ip_network(right)
    return a.version == b.version and a.overlaps(b)


def _network(text: str, where: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise ConfigError(f"{where}: needs networks like 192.0.2.0/24 or single addresses") from None


def _routes(config: Config, peers: dict[str, PeerConfig]) -> None:
    for route in config.routes:
        for key, name in (("from", route.origin), ("to", route.target)):
            if name not in peers:
                raise ConfigError(f"route.{key}: names no peer; known: {', '.join(peers)}")
        if peers[route.origin].side == peers[route.target].side:
            raise ConfigError("route.to: must be a peer of the other side, or nothing is masked between them")
        _pattern(route.users, "route.users")
        _pattern(route.header_matches, "route.header_matches")
        if not 0 <= route.guard_keys <= 1000:
            raise ConfigError("route.guard_keys: 0 to 1000")
        if route.mode != "passthrough" and (route.guard_header or route.guard_keys):
            raise ConfigError('route.guard_header, route.guard_keys: go with mode = "passthrough"')
        if route.record and not config.recording.directory:
            raise ConfigError("route.record: needs recording.directory")
