"""Which processes there are and which of them talk: the whole wiring in one table."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from mediaproxy.config import Config
from mediaproxy.supervisor import sockets


@dataclass(frozen=True, slots=True)
class Role:
    """One process. module: what is run; listens: the sockets it is handed; memory: what outlasts it, by name; limit:
    MB beyond which it is restarted, 0 for none."""

    name: str
    module: str
    listens: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """links: (process, the name it has for the channel, process, its name), each a socket pair."""

    roles: tuple[Role, ...]
    links: tuple[tuple[str, str, str, str], ...] = field(default=())


def make(config: Config) -> Plan:
    """The plan for a configuration."""
    media = [f"media-{i}" for i in range(workers(config))]
    roles = (
        Role("vault", "mediaproxy.vault"),
        Role("recording", "mediaproxy.recording"),
        *(
            Role(name, "mediaproxy.media", memory=("egress", "srtp", "doors"), limit=config.media.memory_limit_mb)
            for name in media
        ),
        Role("agent", "mediaproxy.agent", ("api",)),
        Role("signalling", "mediaproxy.signalling", tuple(name for name in sockets.wanted(config) if name != "api")),
    )
    links = [
        ("signalling", "agent", "agent", "signalling"),
        ("signalling", "vault", "vault", "signalling"),
        ("signalling", "vault-keys", "vault", "signalling-keys"),
        ("agent", "vault", "vault", "agent"),
    ]
    for name in media:
        links += [
            ("signalling", name, name, "signalling"),
            (name, "vault-keys", "vault", f"{name}-keys"),
            (name, "recording", "recording", name),
        ]
    return Plan(roles, tuple(links))


def workers(config: Config) -> int:
    """Media workers to run: as configured, or one a core."""
    return config.media.workers or len(os.sched_getaffinity(0))
