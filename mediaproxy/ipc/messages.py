"""Every message between processes. None has a field that could hold a key, a card number or part of one, but for
`last4` of a finished capture; keys travel as records (`ipc.key`) on channels of their own."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, tag=True, frozen=True, forbid_unknown_fields=True):
    """Base of all messages; the class name is the tag."""


# Life of a process (supervisor <-> everyone)


class Hello(Message, frozen=True):
    """A process has (re)started at the other end of this channel: what it knew before is gone."""

    role: str


class Told(Message, frozen=True):
    """To the agent process: that was everything it did not know."""


class Ready(Message, frozen=True):
    """Everything is open; the process does its work."""


class Stop(Message, frozen=True):
    """Finish: no new calls, running ones to their end or for `grace` seconds."""

    grace: float


class Reload(Message, frozen=True):
    """Read certificates again; connections that stand keep theirs."""


class Ping(Message, frozen=True):
    """Are you there?"""


class Timing(msgspec.Struct, frozen=True):
    """A histogram of how long something took: counts up to each bound and beyond the last, in seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float


class Pong(Message, frozen=True):
    """Yes. `counters` for the metrics page."""

    counters: dict[str, float]
    timings: dict[str, Timing] = {}


class Counters(Message, frozen=True):
    """Supervisor -> agent: what each process counts, by role, and how often it was restarted."""

    roles: dict[str, dict[str, float]]
    restarts: dict[str, int]
    timings: dict[str, dict[str, Timing]] = {}


# Media (signalling <-> media worker)


class LegSetup(Message, frozen=True):
    """One leg: where to bind, whom to believe. `peer_rule`: strict, address, network, learn."""

    side: str
    bind: str
    peer_rule: str
    peer_network: str
    port: int = 0
    """0: any free pair; else this very port, after a worker's restart."""
    ice: tuple[str, str] = ("", "")
    """This box's ufrag and password, where the leg is a browser's."""

    def __repr__(self) -> str:
        return f"LegSetup({self.side!r}, {self.bind!r})"


class OpenCall(Message, frozen=True):
    """Open a port pair a leg, in this order."""

    call: str
    legs: tuple[LegSetup, LegSetup]
    mode: str
    record: bool
    emergency: bool = False
    """Taken however busy the worker is."""
    guard_keys: int = 0
    """Keys after which passthrough ends; 0: never."""
    route: str = ""


class Opened(Message, frozen=True):
    """The ports, in the order asked for; fingerprint: SHA-256 of the certificate that browsers see."""

    call: str
    ports: tuple[int, int]
    fingerprint: str = ""


class OpenFailed(Message, frozen=True):
    """The call cannot be taken. `reason`: full, overload, no-ports, no-descriptors."""

    call: str
    reason: str


class Coding(msgspec.Struct, frozen=True):
    """How a leg speaks whose audio is not G.711. audio, events: payload types in which it comes and goes, -1: none;
    parameters: what the peer asks of who codes for it."""

    encoding: str
    audio: tuple[int, int]
    events: tuple[int, int]
    parameters: dict[str, int] = {}


class Browser(msgspec.Struct, frozen=True):
    """A browser's transport. ice: this box's ufrag and password; ufrag, fingerprint (hash, value): the peer's; active:
    the handshake begins here."""

    ice: tuple[str, str]
    ufrag: str = ""
    fingerprint: tuple[str, str] = ("", "")
    active: bool = False

    def __repr__(self) -> str:
        return f"Browser({self.fingerprint[1][:8]!r})"


class LegMedia(Message, frozen=True):
    """Where a leg's audio goes and in which payload types it comes and goes."""

    host: str
    port: int
    receive: dict[int, str]
    send: dict[str, int]
    ptime: int
    control_port: int
    suite: str = ""
    own_key: bytes = b""
    peer_key: bytes = b""
    """SRTP: suite and master keys with salts (RFC 4568); none where the leg is plain, or a browser's."""
    coding: Coding | None = None
    browser: Browser | None = None

    def __repr__(self) -> str:
        return f"LegMedia({self.host!r}, {self.port})"


class UpdateCall(Message, frozen=True):
    """What offer and answer agreed on, legs in the order of OpenCall."""

    call: str
    legs: tuple[LegMedia, LegMedia]


class SetMode(Message, frozen=True):
    """Put the trunk leg into `mode`; `capture` is the number of the running capture, 0 for none. `route`: by whose
    speech policy the leg begins, until the first cue says what is keyed."""

    call: str
    mode: str
    capture: int = 0
    route: str = ""


class ModeSet(Message, frozen=True):
    """The worker's leg is in `mode` from the next packet on. `reason` where it changed by itself."""

    call: str
    mode: str
    capture: int = 0
    reason: str = ""


class CloseCall(Message, frozen=True):
    """Close both legs; their ports rest before they are used again."""

    call: str


class Interrupted(Message, frozen=True):
    """Some of the caller's audio was never heard while a capture ran: what is being keyed must be keyed again."""

    call: str
    capture: int
    reason: str


class CallOver(Message, frozen=True):
    """The call should end. `reason`: rtp-timeout, max-duration."""

    call: str
    reason: str


# Calls (signalling <-> agent)


class CallState(Message, frozen=True):
    """A live call as the agent API shows it. `state`: opening, ringing, answered, ended."""

    call: str
    state: str
    mode: str
    direction: str
    number: str
    correlation: str
    sip_call_ids: tuple[str, str]
    route: str
    began: float
    capture: int = 0
    captures: int = 0
    """How many there have been."""


class Arm(Message, frozen=True):
    """Start capturing on a call."""

    call: str
    capture: int


class Armed(Message, frozen=True):
    """Whether the leg is armed now."""

    call: str
    capture: int
    ok: bool


class Vouch(Message, frozen=True):
    """Signalling -> agent: whose bearer token is this?"""

    question: int
    token: str

    def __repr__(self) -> str:
        return f"Vouch({self.question})"


class Vouched(Message, frozen=True):
    """The answer. status: 200, or that of a refusal; numbers: the extensions that it may register; until: seconds since
    1970, 0 for no end."""

    question: int
    status: int
    tenant: str = ""
    numbers: tuple[str, ...] = ()
    until: float = 0.0


class Happened(Message, frozen=True):
    """Signalling -> agent, for the audit log: something that nobody ordered by the API. `action`: passthrough,
    passthrough-ended, trace, trace-ended, reloaded; `who`: a user of this system, or nobody."""

    action: str
    call: str = ""
    route: str = ""
    who: str = ""
    reason: str = ""


class Guard(Message, frozen=True):
    """End passthrough, or unseal: the call goes on guarded. `release`: also from sealed."""

    call: str
    release: bool


# Captures (agent <-> vault, vault -> signalling)


class BeginCapture(Message, frozen=True):
    """Start a capture of `fields`, or of those of `template`, on behalf of a call that took `route`."""

    capture: int
    fields: tuple[str, ...]
    route: str
    template: str = ""
    call: str = ""
    number: str = ""
    correlation: str = ""


class Act(Message, frozen=True):
    """An agent's action: reset (with `field`), cancel, submit; or what signalling has seen: armed, interrupted,
    call-ended, not-armed, sealed."""

    capture: int
    action: str
    field: str = ""


class FieldState(Message, frozen=True):
    """One field: waiting, filling, complete or invalid; how many keys so far."""

    name: str
    state: str
    digits_received: int
    reason: str = ""


class CaptureState(Message, frozen=True):
    """All that anyone outside the vault may know of a capture."""

    capture: int
    state: str
    fields: tuple[FieldState, ...]
    reason: str = ""
    token: str = ""
    brand: str = ""
    last4: str = ""
    speech: str = "off"
    """off, muted, announced: whether the caller's speech is kept from the agent now."""
    route: str = ""
    call: str = ""
    number: str = ""
    correlation: str = ""
    began: float = 0.0
    """When, on the machine's monotonic clock."""


class Cue(Message, frozen=True):
    """Vault -> signalling, which fills in call and route, -> media: play these prompts to the caller, in turn, in place
    of what is playing; `muted`: keep the caller's speech from the agent, or from the recording, as the route says."""

    capture: int
    play: tuple[str, ...]
    muted: bool
    call: str = ""
    route: str = ""


class CaptureEnded(Message, frozen=True):
    """Vault -> signalling: the leg may go back to guarded."""

    capture: int


# Recording (media -> recording)


class StartRecording(Message, frozen=True):
    """A call's audio follows under `number`."""

    call: str
    number: int
    at: float
    route: str = ""
    mode: str = "guarded"


class RecordingMode(Message, frozen=True):
    """From `at` the caller's leg is in `mode`; `alarm`: what is wrong, if something is."""

    number: int
    at: float
    mode: str
    alarm: str = ""


class StopRecording(Message, frozen=True):
    """No more of it."""

    number: int


Any_ = (
    Hello | Told | Ready | Stop | Reload | Ping | Pong | Counters | OpenCall | Opened | OpenFailed | UpdateCall
    | SetMode | ModeSet | CloseCall | CallOver | Interrupted | CallState | Arm | Armed | Guard | BeginCapture | Act
    | CaptureState | CaptureEnded | Cue | Happened | Vouch | Vouched | StartRecording | RecordingMode | StopRecording
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any_] = msgspec.msgpack.Decoder(Any_)


def encode(message: Message) -> bytes:
    """Return the message as octets."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> Any_:
    """Return the message in `data`. Raises msgspec.DecodeError."""
    return _decoder.decode(data)
