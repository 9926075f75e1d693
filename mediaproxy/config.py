"""The configuration as typed structs; `config_file` reads and checks it.

It holds no secret: credentials are named by file, API tokens by their SHA-256.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Final, Literal

import msgspec

from mediaproxy.errors import ConfigError

Side = Literal["trunk", "agent"]
CARD_FIELDS: Final = ("pan", "expiry", "cvv")
"""The fields that are always there; all others are `[[field]]`."""
PLACE: Final = re.compile(r"\{([a-z][a-z0-9-]*(?:\.[a-z]+)?)\}")
"""A place for a field in the body of a request to a gateway."""
EXPIRY_PARTS: Final = ("month", "m", "year", "yy")
Reason = Literal["declined", "invalid-field", "gateway-unavailable", "not-configured"]
"""What a gateway's refusal can mean to an agent."""
Role = Literal["agent", "supervisor", "auditor"]
"""What a token lets its owner do: captures on own extensions; all calls, releases; read the audit log."""
EVERYTHING: Final = "*"
"""In a token: every extension, every tenant."""


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


class WebSocketConfig(Strict, kw_only=True, frozen=True):
    """SIP over secure WebSocket (RFC 7118), for the browsers of agents. `origins`: sites whose pages may connect;
    empty: any, since who registers has to show who it is."""

    listen: str
    advertise: str = ""
    certificate: str
    key: str
    origins: tuple[str, ...] = ()


class SideConfig(Strict, kw_only=True, frozen=True):
    """One side of the box. `advertise`: the address peers are told, where it differs (cloud NAT)."""

    sip_listen: str
    """UDP and, with `sip_tcp`, TCP."""
    sip_advertise: str = ""
    sip_tcp: bool = True
    tls: TlsConfig | None = None
    websocket: WebSocketConfig | None = None
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
    address: str = ""
    """IP address or name, with a port or without: a name without one is looked up by SRV (RFC 3263)."""
    registered: bool = False
    """It has no address: it is the browsers of agents, which register here over `websocket`."""
    tenant: str = ""
    """Whose agents they are."""
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
    srtp: Literal["off", "optional", "required", "dtls"] = "off"
    """dtls: as browsers speak, with ICE, DTLS-SRTP, and RTCP on the same port; what is registered always does."""
    codecs: tuple[Literal["opus", "pcmu", "pcma", "g722"], ...] = ()
    """What it may speak, best first. Opus and G.722 are coded here. Empty: PCMU and PCMA, of browsers Opus first."""
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
    tenant: str = ""
    """Whose calls they are."""
    header: str = ""
    header_matches: str = ".*"
    """Only calls with this header, whose value fits the regular expression."""
    mode: Literal["guarded", "passthrough"] = "guarded"
    guard_on: tuple[Literal["answer", "transfer"], ...] = ("transfer",)
    guard_header: str = ""
    guard_keys: int = 0
    """What ends passthrough, beside the API: an answer, a transfer, a header from the agent side, so many keys."""
    gateway: str = ""
    fields: tuple[str, ...] = CARD_FIELDS
    """What an agent may ask for, and what is asked for where nothing else is said."""
    templates: tuple[str, ...] = ()
    """Further lists of fields that an agent may ask for by name."""
    start: Literal["api", "answer"] = "api"
    """Who starts the (first) capture: the agent, or the answer to the call."""
    show_last4: bool = True
    webhook: str = ""
    """Where receipts go."""
    prompts: str = ""
    """What the caller is told between fields."""
    prompts_to_agent: bool = False
    """Whether the agent hears the prompts too."""
    speech: Literal["off", "muted", "announced"] = "off"
    """While a card number or security code is keyed the agent hears nothing of the caller but flat tones: people read
    digits aloud. announced: the caller is told so first, by the prompt `muted`."""
    mute_recording: bool = False
    """While that is keyed the recording is silent, both ways."""
    pause_recording: bool = False
    """From arming to the end of the capture the recording is silent, both ways."""
    record: bool = False
    emergency: bool = False
    """Its calls are taken however busy the box is."""


class PhoneConfig(Strict, kw_only=True, frozen=True):
    """An extension that may register by digest (SHA-256), beside those that come with a token of the agent API."""

    number: str
    password_file: str
    tenant: str = ""


class FieldConfig(Strict, kw_only=True, frozen=True):
    """A field of digits that a caller may key, beside `pan`, `expiry` and `cvv`."""

    name: str
    least: int
    most: int
    """Length, both inclusive; a field of one length ends by itself, another with `#` or a pause."""
    check: Literal["none", "luhn", "mod97"] = "none"
    """Check digits: ISO/IEC 7812-1 Annex B, or ISO/IEC 7064 MOD 97-10."""
    mute: bool = False
    """Whether the route's speech policy holds for it as for `pan` and `cvv`."""
    seconds: float = 0.0
    """How long it may take; 0: `capture.field_seconds`."""


class TemplateConfig(Strict, kw_only=True, frozen=True):
    """A list of fields by name, with a gateway of its own or the route's."""

    name: str
    fields: tuple[str, ...]
    gateway: str = ""


class GatewayConfig(Strict, kw_only=True, frozen=True):
    """Where captured fields go, over HTTPS. Credentials are files, read anew for each request."""

    name: str
    kind: Literal["rest", "stripe", "vgs", "basis-theory"] = "rest"
    url: str
    ca_file: str = ""
    bearer_file: str = ""
    basic_file: str = ""
    """`user:password`."""
    header_files: dict[str, str] = {}
    """Headers whose values are secrets, by file."""
    client_certificate: str = ""
    client_key: str = ""
    connect_seconds: float = 3.0
    timeout_seconds: float = 10.0
    """For a token in all, with every further try and the standby."""
    retries: int = 1
    """Further tries, where it is safe: nothing was sent, or the gateway knows the idempotency key."""
    idempotent: bool | None = None
    """Whether it keeps an idempotency key, so that a repeated request makes no second token. Default: as its kind."""
    idempotency_header: str = ""
    """Default: as its kind, `Idempotency-Key` where there is no other."""
    standby: str = ""
    """The gateway to ask where this one certainly took nothing."""
    reference_server: bool = False
    """Accept the reference token server, which takes test cards only and keeps nothing."""
    encoding: Literal["json", "form"] = "json"
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    """kind = "rest": the body; `{NAME}` in a string stands for a field, `{expiry.month}` `{expiry.m}` (no leading zero)
    `{expiry.year}` (four digits) `{expiry.yy}` for its parts; `"int:{NAME}"` makes a number. What names a field that
    the capture does not have is left out. Empty: every field by its name."""
    token: str = "token"
    """kind = "rest": where the answer has the token, like `data.0.id`."""
    error: str = ""
    """kind = "rest": where a refusal has its code."""
    errors: dict[str, Reason] = {}
    """kind = "rest": what the codes mean, or the statuses, like `409`."""
    alias_format: str = "UUID"
    """kind = "vgs"."""


class WebhookConfig(Strict, kw_only=True, frozen=True):
    """Where a receipt goes when a capture has ended with a token: signed, never with a digit but the last four."""

    name: str
    url: str
    secret_file: str
    ca_file: str = ""
    timeout_seconds: float = 10.0
    keep_seconds: float = 3600.0
    """How long it is tried again."""


class TokenConfig(Strict, kw_only=True, frozen=True):
    """A bearer token of the agent API, by its SHA-256 in hex, for sites without an identity provider."""

    name: str
    sha256: str
    role: Role = "agent"
    tenant: str = ""
    """Whose calls it may see; `*`: every tenant's."""
    numbers: tuple[str, ...] = ()
    """An agent's extensions; `*`: all of the tenant's, for a CRM's server that acts for its agents."""


class IssuerConfig(Strict, kw_only=True, frozen=True):
    """An identity provider (OpenID Connect) whose signed tokens (JWT) the agent API takes."""

    name: str
    issuer: str
    """What `iss` must be, and where discovery begins unless `jwks_url` is said."""
    audience: str
    jwks_url: str = ""
    ca_file: str = ""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...] = ("RS256", "ES256")
    scope_claim: str = "scope"
    """A string of words or a list that holds the roles; dots lead into objects, like `realm_access.roles`."""
    number_claim: str = "extension"
    """The agent's extension, or a list of them."""
    name_claim: str = "sub"
    """Who it is, for the audit log."""
    tenant: str = ""
    tenant_claim: str = ""
    """Whose calls its tokens may see: always `tenant`, or what the claim says."""
    leeway_seconds: float = 30.0
    """By how much clocks may differ."""
    client_id: str = ""
    """As which (public) client this server's own pages send people there to sign in; none: they do not."""
    login_scope: str = "openid"
    """What is asked for then."""
    keys_seconds: float = 300.0
    """How long its keys are taken for fresh; a token of an unknown key asks for them at once."""


class AgentConfig(Strict, kw_only=True, frozen=True):
    """The agent API and pages."""

    listen: str = "127.0.0.1:8080"
    certificate: str = ""
    key: str = ""
    correlation_header: str = "X-Correlation-ID"
    tokens: tuple[TokenConfig, ...] = ()
    issuers: tuple[IssuerConfig, ...] = ()
    origins: tuple[str, ...] = ()
    """Web sites, like https://crm.example.com, whose pages may embed the payment bar and call the API; of tenants:
    `tenant.origins`."""
    requests_a_second: float = 20.0
    """Of one token, five times as many in a burst; one for all extensions has no limit."""
    streams: int = 5000
    """Event streams at once."""
    phone_script: str = ""
    """File with JsSIP, for the phone on the desk page; none: the page has no phone. It needs `agent.websocket`."""
    phone_url: str = ""
    """Where browsers reach `agent.websocket`, like wss://phones.example.com; default: at its address."""


class TenantConfig(Strict, kw_only=True, frozen=True):
    """Whose routes, tokens and audit log are apart from everyone else's."""

    name: str
    origins: tuple[str, ...] = ()


class AuditConfig(Strict, kw_only=True, frozen=True):
    """Who did what, in chained files (`flattone verify`): one a tenant, and `audit.jsonl`."""

    directory: str = ""
    """Where they go; without, the lines are in the log only."""
    syslog: str = ""
    """Where each line's number and hash go as well, so that this host alone cannot change them: host:port (UDP), or a
    path like /dev/log."""


class CaptureConfig(Strict, kw_only=True, frozen=True):
    """How long a caller may take, and how things are keyed."""

    field_seconds: float = 60.0
    total_seconds: float = 240.0
    pause_seconds: float = 3.0
    """A rest that ends a field of open length which may be whole."""
    tries: int = 5
    """How often a field may be keyed wrong before the capture fails."""
    auto_submit: bool = True
    """Submit when the last field is complete; else the agent does."""
    expiry: Literal["MMYY", "YYMM", "MMYYYY"] = "MMYY"
    long_cards: bool = False
    """Whether card numbers longer or shorter than their brand's usual length are taken (a Visa of 19 digits): all
    numbers of such brands then end with `#` or a pause."""


class RecordingConfig(Strict, kw_only=True, frozen=True):
    """Where recordings of routes with `record = true` go."""

    directory: str = ""
    format: Literal["wav", "wav-ulaw", "opus", "mp3"] = "wav"
    """Stereo of 8000 Hz: WAV of 16 bits or µ-law, Opus in Ogg, MP3."""
    kbits: int = 0
    """Of Opus and MP3, both channels together; 0: 32 and 48."""
    name: str = "{date}T{time}-{call}"
    """What files are called, without the ending: {call}, and {route} {date} {time} {year} {month} {day}; / makes
    folders."""
    signing_key: str = ""
    """PEM file with the Ed25519 private key that signs manifests and tombstones."""
    syslog: str = ""
    """Where the end of the journal goes after each line, as in [audit]: a socket's path, or address:port."""
    retention_days: float = 0.0
    """What is older is deleted, and a signed tombstone written; 0: nothing is."""


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


class Config(
    Strict,
    kw_only=True,
    frozen=True,
    rename={
        "peers": "peer",
        "routes": "route",
        "gateways": "gateway",
        "fields": "field",
        "templates": "template",
        "webhooks": "webhook",
        "tenants": "tenant",
        "phones": "phone",
    },
):
    """The whole file."""

    trunk: SideConfig
    agent: SideConfig
    peers: tuple[PeerConfig, ...]
    routes: tuple[RouteConfig, ...]
    gateways: tuple[GatewayConfig, ...] = ()
    fields: tuple[FieldConfig, ...] = ()
    templates: tuple[TemplateConfig, ...] = ()
    webhooks: tuple[WebhookConfig, ...] = ()
    tenants: tuple[TenantConfig, ...] = ()
    phones: tuple[PhoneConfig, ...] = ()
    prompts: dict[str, dict[str, str]] = {}
    """Sets of prompts by name (a language): WAV files, mono 8 kHz, by what they ask for: a field's name, `invalid`
    (before a field that has to be keyed again), `muted`, `done`, `failed`."""
    media: MediaConfig = MediaConfig()
    api: AgentConfig = AgentConfig()
    audit: AuditConfig = AuditConfig()
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
