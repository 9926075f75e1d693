"""The recorder's life: audio from the media workers, files on a disk that may be slow or full.

Files grow in the main thread; they are made whole, hashed and chained in a second one, since hashing an hour of audio
takes as long as several ticks of all calls.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from mediaproxy import chain, log, signing
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import LARGEST, Channel
from mediaproxy.ipc.process import Process
from mediaproxy.ipc.tap import AUDIO, PACKET
from mediaproxy.recording.archive import Archive
from mediaproxy.recording.writer import Recording

FLUSH: Final = 0.5
EXPIRE: Final = 3600.0
"""Seconds between looks for what is to be deleted."""


class Recorder:
    """All recordings of this machine; each is known by (worker, number)."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._workers = [c for name, c in process.channels.items() if name.startswith("media")]
        self._recordings: dict[tuple[str, int], Recording] = {}
        self._buffer = bytearray(LARGEST)
        self.counters = {"recordings": 0.0, "failed": 0.0, "unclaimed": 0.0, "deleted": 0.0, "recovered": 0.0}
        self._counting = threading.Lock()
        self._stopping = False
        self._archive: Archive | None = None
        self._ending = ThreadPoolExecutor(1, "ending")
        if process.config.recording.directory:
            self._open()

    def _open(self) -> None:
        """Open the archive; while that fails nothing is recorded, and every call that should be shows as failed."""
        try:
            self._archive = Archive(self._process.config.recording)
            self._ending.submit(self._recover, self._archive.parts())
        except (OSError, chain.Broken, signing.KeyFileError) as error:
            log.get().error("recording-failed", reason=str(getattr(error, "strerror", None) or error))
            self._count("failed")

    def run(self) -> None:
        """Work until told to stop; what runs is completed."""
        channels = {channel.fileno(): channel for channel in (*self._workers, self._process.supervisor)}
        poller = select.poll()
        for fd in channels:
            poller.register(fd, select.POLLIN)
        self._process.begin()
        next_flush = next_expiry = time.monotonic() + FLUSH
        while not self._stopping:
            for fd, _ in poller.poll(max(0.0, next_flush - time.monotonic()) * 1000):
                self._receive(channels[fd])
            if time.monotonic() >= next_flush:
                next_flush = time.monotonic() + FLUSH
                for key in list(self._recordings):
                    self._guarded(key, lambda recording: recording.advance(time.monotonic()))
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + EXPIRE
                self._ending.submit(self._expire)
        for worker in self._workers:
            self._receive(worker)
        for key in list(self._recordings):
            self._finish(key, complete=False)
        self._ending.shutdown()

    def _receive(self, channel: Channel) -> None:
        for _ in range(256):
            try:
                size = channel.socket.recv_into(self._buffer)
            except (BlockingIOError, ConnectionError):
                return
            if not size:
                return
            if self._buffer[0] == AUDIO:
                self._audio(channel.name, memoryview(self._buffer)[1:size])
            else:
                self._message(channel, m.decode(bytes(self._buffer[:size])))

    def _message(self, channel: Channel, message: m.Any_) -> None:
        if isinstance(message, m.StartRecording):
            self._start((channel.name, message.number), message)
        elif isinstance(message, m.RecordingMode):
            recording = self._recordings.get((channel.name, message.number))
            if recording is not None:
                recording.set_mode(message.mode, message.at, message.alarm)
        elif isinstance(message, m.StopRecording):
            self._finish((channel.name, message.number), complete=True)
        elif isinstance(message, m.Hello):
            for key in [key for key in self._recordings if key[0] == channel.name]:
                self._finish(key, complete=False)
        elif isinstance(message, m.Ping):
            channel.send(m.Pong(self.counters | {"running": float(len(self._recordings))}))
        elif isinstance(message, m.Stop):
            self._stopping = True

    def _start(self, key: tuple[str, int], message: m.StartRecording) -> None:
        if self._archive is None:
            self._open()
        if self._archive is None:
            return
        self._finish(key, complete=False)  # told twice
        try:
            self._recordings[key] = self._archive.begin(message.call, message.route, message.mode, message.at)
            self._count("recordings")
        except OSError as error:
            self._count("failed")
            log.get().error("recording-failed", call=message.call, reason=error.strerror)

    def _audio(self, worker: str, data: memoryview) -> None:
        at = 0
        while at + PACKET.size <= len(data):
            number, side, codec, flags, length, timestamp, arrival = PACKET.unpack_from(data, at)
            at += PACKET.size
            octets = np.frombuffer(data[at : at + length], np.uint8)
            at += length
            recording = self._recordings.get((worker, number))
            if recording is None:
                self._count("unclaimed")
            else:
                recording.add(side, codec, timestamp, arrival / 1e6, octets, flags)

    def _finish(self, key: tuple[str, int], complete: bool) -> None:
        recording = self._recordings.pop(key, None)
        if recording is not None:
            self._ending.submit(self._end, recording, complete)

    def _end(self, recording: Recording, complete: bool) -> None:
        """In the second thread."""
        assert self._archive is not None
        try:
            path = self._archive.end(recording, complete)
            log.get().info("recorded", call=recording.call, path=str(path))
        except Exception as error:  # nothing may end the thread's work unseen
            self._failed(recording, error)

    def _recover(self, parts: list[Path]) -> None:
        """In the second thread."""
        assert self._archive is not None
        for part in parts:
            try:
                self._archive.recover(part)
                self._count("recovered")
            except Exception as error:  # as above
                reason = getattr(error, "strerror", None) or type(error).__name__
                log.get().error("recording-failed", path=str(part), reason=reason)
                self._count("failed")

    def _expire(self) -> None:
        """In the second thread."""
        try:
            if self._archive is not None:
                deleted, failed = self._archive.expire(time.time())
                self._count("deleted", deleted)
                self._count("failed", failed)
        except Exception as error:  # as above
            log.get().error("recording-not-deleted", exc_info=error)
            self._count("failed")

    def _count(self, name: str, by: int = 1) -> None:
        """Both threads count."""
        with self._counting:
            self.counters[name] += by

    def _guarded(self, key: tuple[str, int], work: Callable[[Recording], object]) -> None:
        """Do `work` on a recording; where the disk refuses, the recording ends and the rest goes on."""
        recording = self._recordings[key]
        try:
            work(recording)
        except OSError as error:
            self._recordings.pop(key, None)
            self._failed(recording, error)

    def _failed(self, recording: Recording, error: Exception) -> None:
        self._count("failed")
        reason = getattr(error, "strerror", None) or type(error).__name__
        log.get().error("recording-failed", path=str(recording.path), reason=reason)
        recording.abandon()
