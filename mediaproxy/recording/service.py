"""The recorder's life: audio from the media workers, files on a disk that may be slow or full."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mediaproxy import log
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import LARGEST, Channel
from mediaproxy.ipc.process import Process
from mediaproxy.ipc.tap import AUDIO, PACKET
from mediaproxy.recording.writer import Recording

FLUSH = 0.5


class Recorder:
    """All recordings of this machine; each is known by (worker, number)."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._directory = Path(process.config.recording.directory or "/nonexistent")
        self._workers = [c for name, c in process.channels.items() if name.startswith("media")]
        self._recordings: dict[tuple[str, int], Recording] = {}
        self._buffer = bytearray(LARGEST)
        self._counters = {"recordings": 0.0, "failed": 0.0, "unclaimed": 0.0}
        self._stopping = False

    def run(self) -> None:
        """Work until told to stop; what runs is completed."""
        channels = {channel.fileno(): channel for channel in (*self._workers, self._process.supervisor)}
        poller = select.poll()
        for fd in channels:
            poller.register(fd, select.POLLIN)
        self._process.begin()
        next_flush = time.monotonic() + FLUSH
        while not self._stopping:
            for fd, _ in poller.poll(max(0.0, next_flush - time.monotonic()) * 1000):
                self._receive(channels[fd])
            if time.monotonic() >= next_flush:
                next_flush = time.monotonic() + FLUSH
                for key in list(self._recordings):
                    self._guarded(key, lambda recording: recording.advance(time.monotonic()))
        for worker in self._workers:
            self._receive(worker)
        for key in list(self._recordings):
            self._finish(key, complete=False)

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
            key = (channel.name, message.number)
            try:
                self._recordings[key] = Recording(self._directory, message.call, message.at)
                self._counters["recordings"] += 1
            except OSError as error:
                self._counters["failed"] += 1
                log.get().error("recording-failed", call=message.call, reason=error.strerror)
        elif isinstance(message, m.StopRecording):
            self._finish((channel.name, message.number), complete=True)
        elif isinstance(message, m.Hello):
            for key in [key for key in self._recordings if key[0] == channel.name]:
                self._finish(key, complete=False)
        elif isinstance(message, m.Ping):
            channel.send(m.Pong(self._counters | {"running": float(len(self._recordings))}))
        elif isinstance(message, m.Stop):
            self._stopping = True

    def _audio(self, worker: str, data: memoryview) -> None:
        at = 0
        while at + PACKET.size <= len(data):
            number, side, codec, length, timestamp, arrival = PACKET.unpack_from(data, at)
            at += PACKET.size
            octets = np.frombuffer(data[at : at + length], np.uint8)
            at += length
            recording = self._recordings.get((worker, number))
            if recording is None:
                self._counters["unclaimed"] += 1
            else:
                recording.add(side, codec, timestamp, arrival / 1e6, octets)

    def _finish(self, key: tuple[str, int], complete: bool) -> None:
        if key in self._recordings:
            self._guarded(key, lambda recording: log.get().info("recorded", path=str(recording.finish(complete))))
            self._recordings.pop(key, None)

    def _guarded(self, key: tuple[str, int], work: Callable[[Recording], object]) -> None:
        """Do `work` on a recording; where the disk refuses, the recording ends and the rest goes on."""
        recording = self._recordings[key]
        try:
            work(recording)
        except OSError as error:
            self._counters["failed"] += 1
            log.get().error("recording-failed", path=str(recording.path), reason=error.strerror)
            recording.abandon()
            self._recordings.pop(key, None)
