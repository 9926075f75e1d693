"""The configuration as typed structs; `config_file` reads and checks it.

It holds no secret: credentials are named by file, API tokens by their SHA-256.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Literal

import msgspec

from mediaproxy.errors import ConfigError

Side = Literal["trunk", "agent"]


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base: a key that is not known is an error."""


class CertificateConfig(Strict, kw_only=True, frozen=True):
    """A certificate chain and its key, PEM files."""

    certificate: str
    key: str


class TlsConfig(Strict, kw_only=True, frozen=True):
    """SIP over TLS on one side. `others`: more certificates, chosen by the name that a client asks for (SNI).
    `clients`: whether a client has to show a certificate that `ca_file` (default: the system's) vouches for."""

    listen: str
    advertise: str = ""
    certificate: str
    key: str
    ca_file: str = ""
    clients: Literal["required", "optional", "none"] = "required"
    others: tuple[CertificateConfig, ...] = ()


class SideConfig(Strict, kw_only=True, frozen=True):
    """One side of the box. `advertise`: the address peers are told, where it differs (cloud NAT)."""

    sip_listen: str
    """UDP and, with `sip_tcp`, TCP."""
    sip_advertise: str = ""
    sip_tcp: bool = True
    tls: TlsConfig | None = None
    rtp_address: str
    rtp_advertise: str = ""
    interface: str = ""
    """Only what comes by it, and nothing by another (SO_BINDTODEVICE)."""
    sip_dscp: int = 24
    rtp_dscp: int = 46
    """Class of the packets sent: CS3 and EF (RFC 4594)."""
    strangers: Literal["drop", "refuse"] = "drop"
    """What a request from no known peer gets: nothing, or 403."""


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


class HeaderConfig(Strict, kw_only=True, frozen=True):
    """A rule for header `name` of messages to a peer: strip it, set it to `value`, or rewrite what `matches` finds."""

    action: Literal["strip", "set", "rewrite"]
    name: str
    value: str = ""
    matches: str = ""


class PeerConfig(Strict, kw_only=True, frozen=True):
    """A neighbour. `rtp`: whose RTP is believed: the address and port of its SDP (strict), its host (address), a
    network, or the first that comes (learn)."""

    name: str
    side: Side
    address: str
    """IP address or name, with a port or without: a name without one is looked up by SRV (RFC 3263)."""
    backups: tuple[str, ...] = ()
    """Further next hops, in order, for when those before do not answer."""
    sources: tuple[str, ...] = ()
    """Where its own requests may come from, beside these addresses."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """How it is spoken to. tls: nothing else is believed of it either."""
    certificate_names: tuple[str, ...] = ()
    """Names of which its certificate must hold one (TLS)."""
    username: str = ""
    password_file: str = ""
    """Digest credentials for when it asks (401, 407)."""
    srtp: Literal["off", "optional", "required"] = "off"
    refer: Literal["execute", "pass", "refuse"] = "execute"
    """A REFER from it: carried out here, handed to the other side, or refused."""
    options_seconds: float = 0.0
    """OPTIONS to each next hop so often, to know which ones answer; 0: never."""
    failover_seconds: float = 4.0
    """How long a next hop may say nothing before the next one is tried."""
    session_seconds: int = 1800
    least_session_seconds: int = 90
    """Session timer asked for (0: only if the peer does), and the shortest one granted (RFC 4028)."""
    requests_a_second: float = 0.0
    """New calls and other requests outside a dialog that are taken; beyond it 503. 0: no limit."""
    hide_topology: bool = False
    """Addresses of other machines in From, To, P-Asserted-Identity, Diversion, History-Info are not shown to it."""
    other_media: Literal["remove", "refuse"] = "remove"
    """Video, text, fax and second audio beside the audio: answered with port 0, or the whole offer refused."""
    headers: tuple[HeaderConfig, ...] = ()
    rtp: Literal["strict", "address", "network", "learn"] = "address"
    rtp_network: str = ""


class RouteConfig(Strict, kw_only=True, frozen=True, rename={"origin": "from", "target": "to"}):
    """Calls from a peer whose called number matches `users` (a regular expression) go to another peer."""

    name: str
    origin: str
    target: str
    users: str = ".*"
    header: str = ""
    header_matches: str = ".*"
    """Only calls with this header, whose value fits the regular expression."""
    mode: Literal["guarded", "passthrough"] = "guarded"
    guard_on: tuple[Literal["answer", "transfer"], ...] = ("transfer",)
    guard_header: str = ""
    guard_keys: int = 0
    """What ends passthrough, beside the API: an answer, a transfer, a header from the agent side, so many keys."""
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


class TraceConfig(Strict, kw_only=True, frozen=True):
    """Where `flattone trace` finds the signalling process: a socket that only the system's user may open."""

    socket: str = ""


class DnsConfig(Strict, kw_only=True, frozen=True):
    """Servers, as address:port, for the names of peers; none: the system's."""

    servers: tuple[str, ...] = ()


class CdrConfig(Strict, kw_only=True, frozen=True):
    """Call records: one line of JSON a call."""

    file: str = ""


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
    trace: TraceConfig = TraceConfig()
    cdr: CdrConfig = CdrConfig()
    dns: DnsConfig = DnsConfig()
    stop: StopConfig = StopConfig()
    users: dict[Literal["signalling", "media", "vault", "agent", "recording"], str] = {}
    """The system user of each process; empty: the one that started flattone."""

    def side(self, name: str) -> SideConfig:
        return self.trunk if name == "trunk" else self.agent


def endpoint(text: str, where: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        raise ConfigError(f"{where}: needs an IP address and a port, like 192.0.2.1:5060") from None
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{where}: needs a port from 1 to 65535 after the address")
    return host, int(port)


def next_hop(text: str, where: str) -> tuple[str, int]:
    """(host, port) of an address or name; port 0 where none is said. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and not (":" in host and not host.startswith("[")):
        if not 0 < int(port) < 65536:
            raise ConfigError(f"{where}: needs a port from 1 to 65535")
    else:
        host, port = text, "0"
    host = host.removeprefix("[").removesuffix("]")
    if not is_address(host) and not re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?", host):
        raise ConfigError(f"{where}: needs an IP address or a name, with a port or without")
    return host, int(port)


def is_address(host: str) -> bool:
    """Whether `host` is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def port_range(config: MediaConfig) -> tuple[int, int]:
    """Return (first, last): an even first and an odd last port. Raises ConfigError."""
    low, dash, high = config.ports.partition("-")
    if not (dash and low.isdecimal() and high.isdecimal() and 1024 <= int(low) < int(high) <= 65535):
        raise ConfigError("media.ports: needs a range like 20000-23999 within 1024-65535")
    first, last = int(low) + int(low) % 2, int(high) - 1 + int(high) % 2
    if last - first < 3:
        raise ConfigError("media.ports: a call needs four ports")
    return first, last
