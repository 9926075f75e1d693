"""The configuration: TOML into typed structs, checked as a whole before anything starts.

It holds no secret: credentials are named by file, API tokens by their SHA-256.
"""

from __future__ import annotations

import hashlib
import math
import pwd
import re
import tomllib
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mediaproxy import config_errors
from mediaproxy.errors import ConfigError

Side = Literal["trunk", "agent"]


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base: a key that is not known is an error."""


class SideConfig(Strict, kw_only=True, frozen=True):
    """One side of the box. `advertise`: the address peers are told, where it differs (cloud NAT)."""

    sip_listen: str
    sip_advertise: str = ""
    rtp_address: str
    rtp_advertise: str = ""


class MediaConfig(Strict, kw_only=True, frozen=True):
    """RTP ports (even to odd, both inclusive), workers (0: one a core), and what ends a call: no RTP for so long, or
    its age (0: neither)."""

    ports: str = "20000-23999"
    workers: int = 0
    rtp_timeout_seconds: float = 300.0
    max_call_seconds: float = 0.0
    memory_limit_mb: int = 2048
    """A worker that grows beyond this is restarted; its calls go on masked."""
    port_rest_seconds: float = 5.0
    max_calls: int = 500


class PeerConfig(Strict, kw_only=True, frozen=True):
    """A neighbour. `rtp`: whose RTP is believed: the address and port of its SDP (strict), its host (address), a
    network, or the first that comes (learn)."""

    name: str
    side: Side
    address: str
    sources: tuple[str, ...] = ()
    rtp: Literal["strict", "address", "network", "learn"] = "address"
    rtp_network: str = ""


class RouteConfig(Strict, kw_only=True, frozen=True, rename={"origin": "from", "target": "to"}):
    """Calls from a peer whose called number matches `users` (a regular expression) go to another peer."""

    name: str
    origin: str
    target: str
    users: str = ".*"
    mode: Literal["guarded", "passthrough"] = "guarded"
    gateway: str = ""
    fields: tuple[Literal["pan", "expiry", "cvv"], ...] = ("pan", "expiry", "cvv")
    show_last4: bool = True
    record: bool = False
    emergency: bool = False
    """Its calls are taken however busy the box is."""


class GatewayConfig(Strict, kw_only=True, frozen=True):
    """Where captured fields go: JSON over HTTPS."""

    name: str
    url: str
    ca_file: str = ""
    bearer_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    timeout_seconds: float = 10.0
    reference_server: bool = False
    """Accept the reference token server, which takes test cards only and keeps nothing."""


class TokenConfig(Strict, kw_only=True, frozen=True):
    """A bearer token of the agent API, by its SHA-256 in hex. `numbers`: the extensions it may see; empty: all."""

    name: str
    sha256: str
    role: Literal["agent", "supervisor"] = "agent"
    numbers: tuple[str, ...] = ()


class AgentConfig(Strict, kw_only=True, frozen=True):
    """The agent API and page."""

    listen: str = "127.0.0.1:8080"
    certificate: str = ""
    key: str = ""
    correlation_header: str = "X-Correlation-ID"
    tokens: tuple[TokenConfig, ...] = ()


class CaptureConfig(Strict, kw_only=True, frozen=True):
    """How long a caller may take."""

    field_seconds: float = 60.0
    total_seconds: float = 240.0
    auto_submit: bool = True
    """Submit when the last field is complete; else the agent does."""


class RecordingConfig(Strict, kw_only=True, frozen=True):
    """Where recordings of routes with `record = true` go."""

    directory: str = ""


class LogConfig(Strict, kw_only=True, frozen=True):
    """json: one object a line; console: for people."""

    form: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class StopConfig(Strict, kw_only=True, frozen=True):
    """How long running calls may go on after SIGTERM."""

    grace_seconds: float = 30.0


class Config(Strict, kw_only=True, frozen=True, rename={"peers": "peer", "routes": "route", "gateways": "gateway"}):
    """The whole file."""

    trunk: SideConfig
    agent: SideConfig
    peers: tuple[PeerConfig, ...]
    routes: tuple[RouteConfig, ...]
    gateways: tuple[GatewayConfig, ...] = ()
    media: MediaConfig = MediaConfig()
    api: AgentConfig = AgentConfig()
    capture: CaptureConfig = CaptureConfig()
    recording: RecordingConfig = RecordingConfig()
    log: LogConfig = LogConfig()
    stop: StopConfig = StopConfig()
    users: dict[Literal["signalling", "media", "vault", "agent", "recording"], str] = {}
    """The system user of each process; empty: the one that started flattone."""

    def side(self, name: str) -> SideConfig:
        return self.trunk if name == "trunk" else self.agent


def endpoint(text: str, where: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    try:
        ip_address(host)
    except ValueError:
        raise ConfigError(f"{where}: needs an IP address and a port, like 192.0.2.1:5060") from None
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{where}: needs a port from 1 to 65535 after the address")
    return host, int(port)


def port_range(config: MediaConfig) -> tuple[int, int]:
    """Return (first, last): an even first and an odd last port. Raises ConfigError."""
    low, dash, high = config.ports.partition("-")
    if not (dash and low.isdecimal() and high.isdecimal() and 1024 <= int(low) < int(high) <= 65535):
        raise ConfigError("media.ports: needs a range like 20000-23999 within 1024-65535")
    first, last = int(low) + int(low) % 2, int(high) - 1 + int(high) % 2
    if last - first < 3:
        raise ConfigError("media.ports: a call needs four ports")
    return first, last


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
    if config.trunk.sip_listen == config.agent.sip_listen:
        raise ConfigError("agent.sip_listen: must differ from trunk.sip_listen: the socket tells the side")
    port_range(config.media)
    _unique("route.name", [route.name for route in config.routes])
    _unique("gateway.name", [gateway.name for gateway in config.gateways])
    _unique("api.tokens.name", [token.name for token in config.api.tokens])
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
    gateways = _gateways(config)
    _routes(config, peers, gateways)
    endpoint(config.api.listen, "api.listen")
    if bool(config.api.certificate) != bool(config.api.key):
        raise ConfigError("api.certificate: goes with api.key, both or neither")
    if not config.api.certificate and not ip_address(endpoint(config.api.listen, "api.listen")[0]).is_loopback:
        raise ConfigError("api.listen: without api.certificate only a loopback address, like 127.0.0.1:8080")
    for token in config.api.tokens:
        if not re.fullmatch(r"[0-9a-f]{64}", token.sha256):
            raise ConfigError("api.tokens.sha256: 64 lower-case hex digits, as sha256sum prints them")
        if token.sha256 == hashlib.sha256(b"").hexdigest():
            raise ConfigError("api.tokens.sha256: is that of an empty token")
    if config.recording.directory and not Path(config.recording.directory).is_dir():
        raise ConfigError("recording.directory: is not a directory")


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
        ("stop.grace_seconds", config.stop.grace_seconds, 0.0),
        *(("gateway.timeout_seconds", gateway.timeout_seconds, 0.1) for gateway in config.gateways),
    ]
    for where, value, least in limits:
        if not (math.isfinite(value) and least <= value <= 86_400):
            raise ConfigError(f"{where}: needs {least:g} to 86400 seconds")


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url and "@" not in parts.netloc
    return plain and parts.scheme == "https" and bool(parts.hostname) and port != 0


def _peers(config: Config) -> dict[str, PeerConfig]:
    peers: dict[str, PeerConfig] = {}
    for peer in config.peers:
        if peer.name in peers:
            raise ConfigError("peer.name: each name once")
        peers[peer.name] = peer
        endpoint(peer.address, "peer.address")
        for source in peer.sources:
            _network(source, "peer.sources")
        for source in peer.sources or (endpoint(peer.address, "peer.address")[0],):
            for other in peers.values():
                rest = other.sources or (endpoint(other.address, "peer.address")[0],)
                if other is not peer and other.side == peer.side and any(_overlap(source, o) for o in rest):
                    raise ConfigError("peer.sources: two peers of one side share an address: who speaks is unclear")
        if (peer.rtp == "network") != bool(peer.rtp_network):
            raise ConfigError('peer.rtp_network: goes with rtp = "network"')
        if peer.rtp_network:
            _network(peer.rtp_network, "peer.rtp_network")
    return peers


def _overlap(left: str, right: str) -> bool:
    a, b = ip_network(left), ip_network(right)
    return a.version == b.version and a.overlaps(b)


def _network(text: str, where: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise ConfigError(f"{where}: needs networks like 192.0.2.0/24 or single addresses") from None


def _gateways(config: Config) -> dict[str, GatewayConfig]:
    gateways: dict[str, GatewayConfig] = {}
    for gateway in config.gateways:
        gateways[gateway.name] = gateway
        if not _is_https(gateway.url):
            raise ConfigError("gateway.url: needs https://host/path, with a port if not 443")
        if bool(gateway.client_certificate) != bool(gateway.client_key):
            raise ConfigError("gateway.client_certificate: goes with gateway.client_key, both or neither")
        if not gateway.bearer_file and not gateway.client_certificate:
            raise ConfigError("gateway.bearer_file: or client_certificate; the gateway must know who asks")
        for key in ("ca_file", "bearer_file", "client_certificate", "client_key"):
            path = getattr(gateway, key)
            if path and not Path(path).is_file():
                raise ConfigError(f"gateway.{key}: is not a file")
    return gateways


def _routes(config: Config, peers: dict[str, PeerConfig], gateways: dict[str, GatewayConfig]) -> None:
    for route in config.routes:
        for key, name in (("from", route.origin), ("to", route.target)):
            if name not in peers:
                raise ConfigError(f"route.{key}: names no peer; known: {', '.join(peers)}")
        if peers[route.origin].side == peers[route.target].side:
            raise ConfigError("route.to: must be a peer of the other side, or nothing is masked between them")
        if route.gateway and route.gateway not in gateways:
            raise ConfigError(f"route.gateway: names no gateway; known: {', '.join(gateways) or 'none'}")
        try:
            re.compile(route.users)
        except re.error:
            raise ConfigError("route.users: needs a regular expression") from None
        if len(set(route.fields)) != len(route.fields) or not route.fields:
            raise ConfigError("route.fields: each of pan, expiry, cvv at most once")
        if route.record and not config.recording.directory:
            raise ConfigError("route.record: needs recording.directory")
