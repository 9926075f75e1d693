"""What every child process does first: take its descriptors, harden itself, log under its role.

A child is started as `python -m mediaproxy.ROLE NAME=FD ...`; one of the names is `config`, a sealed copy of the
configuration, so that a child restarted later sees what the others see.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

import msgspec

from mediaproxy import hardening, log
from mediaproxy.config import Config
from mediaproxy.ipc import messages
from mediaproxy.ipc.channel import Channel


@dataclass(slots=True)
class Process:
    """role: its name, with a number where there are several. channels by the name of who is at the far end."""

    role: str
    config: Config
    channels: dict[str, Channel]
    sockets: dict[str, int]
    memory: dict[str, int]
    """Anonymous files that the supervisor keeps, so that the process after this one finds them as they were left."""

    @property
    def supervisor(self) -> Channel:
        return self.channels["supervisor"]

    def begin(self) -> None:
        """Tell everyone that this process knows nothing of before, and the supervisor that it works."""
        for name, channel in self.channels.items():
            if name != "supervisor" and not name.endswith("-keys"):
                channel.send(messages.Hello(self.role))
        self.supervisor.send(messages.Ready())


def enter(role: str, lock_memory: bool = False) -> Process:
    """Become `role`. Arguments: NAME=FD; `listen-NAME` are sockets, `memory-NAME` files, the others channels."""
    descriptors = dict(argument.split("=", 1) for argument in sys.argv[1:])
    config = _config(int(descriptors.pop("config")))
    name = descriptors.pop("role", role)
    hardening.die_with_parent(int(descriptors.pop("parent")))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor says when to stop
    log.configure(name, config.log.form, config.log.level)
    for warning in hardening.harden(lock_memory):
        log.get().warning("not-hardened", warning=warning)
    channels, sockets, memory = {}, {}, {}
    for key, fd in descriptors.items():
        os.set_inheritable(int(fd), False)
        if key.startswith("listen-"):
            sockets[key.removeprefix("listen-")] = int(fd)
        elif key.startswith("memory-"):
            memory[key.removeprefix("memory-")] = int(fd)
        else:
            channels[key] = Channel.from_fd(key, int(fd))
    return Process(name, config, channels, sockets, memory)


def _config(fd: int) -> Config:
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        data = file.read()
    os.close(fd)
    return msgspec.json.decode(data, type=Config)
