"""Start, watch, restart, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mediaproxy import __version__, hardening, log
from mediaproxy.config import Config
from mediaproxy.ipc import channel as ipc
from mediaproxy.ipc import messages as m
from mediaproxy.supervisor import plan, sockets
from mediaproxy.supervisor.sockets import StartError

PING = 1.0
SILENT = 8.0
"""Seconds without an answer after which a process is taken for stuck and killed."""
START = 30.0
RESTARTS, WINDOW = 8, 60.0
"""More restarts than this in so many seconds mean that restarting does not help."""
ENVIRONMENT = ("PATH", "LANG", "TZ", "HOME", "PYTHONPATH", "FLATTONE_PURE")
"""What a child may know of the environment."""
LAST_WORDS = 5.0
"""Seconds that a process has to finish once told to."""


@dataclass(slots=True)
class Child:
    """One process and what the supervisor knows of it."""

    role: plan.Role
    channel: ipc.Channel
    far: socket.socket
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    heard: float = 0.0
    started: deque[float] = field(default_factory=deque)
    counters: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    timings: dict[str, m.Timing] = field(default_factory=dict)


class Supervisor:
    """The life of one `flattone serve`."""

    def __init__(self, config: Config) -> None:
        self._config = msgspec.structs.replace(
            config, media=msgspec.structs.replace(config.media, workers=plan.workers(config))
        )
        self._plan = plan.make(self._config)
        self._sockets = sockets.listen(self._config)
        self._ends: dict[str, dict[str, socket.socket]] = {role.name: {} for role in self._plan.roles}
        for left, left_name, right, right_name in self._plan.links:
            self._ends[left][left_name], self._ends[right][right_name] = ipc.pair()
        self._children: dict[str, Child] = {}
        for role in self._plan.roles:
            near, far = ipc.pair()
            self._children[role.name] = Child(role, ipc.Channel(role.name, near), far)
        self._config_fd = _sealed(msgspec.json.encode(self._config))
        self._memory = {
            (role.name, name): os.memfd_create(f"flattone-{name}") for role in self._plan.roles for name in role.memory
        }
        self._stopping = False
        self._failed = ""
        self._told = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Run until stopped; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        if hardening.swap_is_on():
            log.get().warning("swap-is-on", warning="memory with keyed digits may reach a disk")
        for child in self._children.values():
            loop.add_reader(child.channel.fileno(), self._messages, child)
        for child in self._children.values():
            await self._start(child)
        self._tasks = [asyncio.create_task(self._watch(child)) for child in self._children.values()]
        self._tasks.append(asyncio.create_task(self._ping()))
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        if await self._all_ready():
            trunk, agent, api = self._config.trunk, self._config.agent, self._config.api
            listens = f"trunk {trunk.sip_listen}, agent {agent.sip_listen}, api {api.listen}"
            listens += f", browsers {agent.websocket.listen}" if agent.websocket is not None else ""
            log.get().info("ready", version=__version__, listen=listens, pid=os.getpid())
            await self._told.wait()
        await self._finish()
        if self._failed:
            log.get().error("stopped", reason=self._failed)
            return 1
        log.get().info("stopped")
        return 0

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Nobody may go unwatched because of a bug here."""
        if not task.cancelled() and task.exception() is not None:
            self._failed = f"supervision failed ({type(task.exception()).__name__})"
            self._told.set()

    def _on_signal(self) -> None:
        if self._stopping:
            self._children["signalling"].channel.send(m.Stop(0.0))
        self._stopping = True
        self._told.set()

    def _on_hang_up(self) -> None:
        """New certificates and a new file of call records; a terminal that closes ends no calls."""
        self._children["signalling"].channel.send(m.Reload())

    async def _start(self, child: Child) -> None:
        name = child.role.name
        passed = {"supervisor": child.far.fileno(), "config": self._config_fd}
        passed |= {key: sock.fileno() for key, sock in self._ends[name].items()}
        passed |= {f"listen-{key}": self._sockets[key].fileno() for key in child.role.listens}
        passed |= {f"memory-{key}": self._memory[name, key] for key in child.role.memory}
        user = self._config.users.get(name.partition("-")[0]) or None  # type: ignore[call-overload]
        environment = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
        child.ready, child.heard = False, time.monotonic()
        child.started.append(child.heard)
        arguments = [f"role={name}", f"parent={os.getpid()}", *(f"{key}={fd}" for key, fd in passed.items())]
        try:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", child.role.module, *arguments, pass_fds=tuple(passed.values()), env=environment,
                stdin=asyncio.subprocess.DEVNULL, user=user,
            )  # fmt: skip
        except OSError as error:
            who = f" as user {user}" if user else ""
            raise StartError(f"{name} cannot be started{who} ({error.strerror})") from None
        log.get().info("started", worker=name, pid=child.process.pid)

    async def _watch(self, child: Child) -> None:
        while child.process is not None:
            code = await child.process.wait()
            if self._stopping or self._failed:
                return
            child.restarts, child.ready = child.restarts + 1, False
            log.get().error("process-ended", worker=child.role.name, exit=code, restarts=child.restarts)
            now = time.monotonic()
            while child.started and now - child.started[0] > WINDOW:
                child.started.popleft()
            if len(child.started) >= RESTARTS:
                self._failed = f"{child.role.name} ended {len(child.started)} times within {WINDOW:.0f} s"
                self._told.set()
                return
            await self._start(child)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING)
            now = time.monotonic()
            for child in self._children.values():
                child.channel.send(m.Ping())
                patience = SILENT if child.ready else START
                if now - child.heard > patience and child.process is not None:
                    log.get().error("process-stuck", worker=child.role.name)
                    child.heard = now
                    _kill(child.process, signal.SIGKILL)
                elif (
                    child.role.limit
                    and child.process is not None
                    and _resident_mb(child.process.pid) > child.role.limit
                ):
                    log.get().error("process-too-large", worker=child.role.name, setting="media.memory_limit_mb")
                    _kill(child.process, signal.SIGKILL)
            roles = {name: child.counters | {"ready": float(child.ready)} for name, child in self._children.items()}
            restarts = {name: child.restarts for name, child in self._children.items()}
            timings = {name: child.timings for name, child in self._children.items()}
            self._children["agent"].channel.send(m.Counters(roles, restarts, timings))

    def _messages(self, child: Child) -> None:
        for message in child.channel.receive():
            child.heard = time.monotonic()
            if isinstance(message, m.Ready):
                child.ready = True
            elif isinstance(message, m.Pong):
                child.counters, child.timings = message.counters, message.timings

    async def _all_ready(self) -> bool:
        deadline = time.monotonic() + START
        while not all(child.ready for child in self._children.values()):
            if self._told.is_set():
                return False
            if time.monotonic() > deadline:
                missing = [name for name, child in self._children.items() if not child.ready]
                self._failed = f"not ready after {START:.0f} s: {', '.join(missing)}"
                return False
            await asyncio.sleep(0.02)
        return True

    async def _finish(self) -> None:
        """Signalling first, with time for running calls; then everyone else."""
        self._stopping = True
        grace = self._config.stop.grace_seconds if not self._failed else 0.0
        signalling = self._children["signalling"]
        log.get().info("stopping", seconds=grace)
        signalling.channel.send(m.Stop(grace))
        if not await _ended(signalling.process, grace):
            signalling.channel.send(m.Stop(0.0))
            await _ended(signalling.process, LAST_WORDS)
        others = [child for child in self._children.values() if child is not signalling]
        for child in others:
            child.channel.send(m.Stop(0.0))
        await asyncio.gather(*(_ended(child.process, LAST_WORDS) for child in others))
        for task in self._tasks:
            task.cancel()
        for child in self._children.values():
            if child.process is not None and child.process.returncode is None:
                _kill(child.process, signal.SIGKILL)
                await child.process.wait()


def _resident_mb(pid: int) -> float:
    """Memory of a process, 0 where it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _sealed(data: bytes) -> int:
    """An anonymous file of `data`."""
    fd = os.memfd_create("flattone-config")
    os.write(fd, data)
    return fd


async def _ended(process: asyncio.subprocess.Process | None, seconds: float) -> bool:
    if process is None:
        return True
    try:
        await asyncio.wait_for(process.wait(), max(seconds, 0.01))
    except TimeoutError:
        return False
    return True


def _kill(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def serve(config: Config) -> int:
    """Run flattone until it is told to stop."""
    log.configure("supervisor", config.log.form, config.log.level)
    for warning in hardening.harden():
        log.get().warning("not-hardened", warning=warning)

    async def _run() -> int:
        return await Supervisor(config).run()

    try:
        return asyncio.run(_run())
    except StartError as error:
        print(f"flattone: {error}", file=sys.stderr)
        return 1
