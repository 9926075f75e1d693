"""What can befall a media worker: the true process, with sockets, under faults. No key may leave, other calls go on."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from dsp import decoder, g711, keypad, synth
from mediaproxy.config import MediaConfig
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import BYTES
from mediaproxy.scan import detectors
from tests.fixtures import memory
from tests.fixtures.worker import Heard, Line, WorkerProcess

QUIET = bytes([0xFF]) * 160
CARD = "4000001234567899"


def audio(keys: str, lead: float = 0.1) -> bytes:
    """Keys of 80 ms over a noisy line, G.711."""
    presses = [synth.Press(keypad.KEYS.index(k), 80, -9) for k in keys]
    sound, _ = synth.keying(presses, np.random.default_rng(len(keys)), (70, 90), 60, -60)
    return bytes(int(lead * 8000) * b"\xff") + g711.encode(sound, g711.PCMU).tobytes()


def keys_in(heard: list[Heard]) -> list[object]:
    """Keys and what is left of keys in what the agent got, in order of arrival."""
    octets = np.frombuffer(b"".join(packet.payload for packet in heard if packet.payload_type == 0), np.uint8)
    sound = g711.decode(octets, g711.PCMU)
    return [*decoder.decode_keys(sound, 8000), *detectors.residues(sound)]


def ports() -> str:
    """A range of its own for each test."""
    ports.next = getattr(ports, "next", 12000) + 60  # type: ignore[attr-defined]
    return f"{ports.next}-{ports.next + 59}"  # type: ignore[attr-defined]


@contextlib.contextmanager
def worker(**media: object) -> Iterator[WorkerProcess]:
    config = MediaConfig(workers=1, **({"ports": ports(), "max_calls": 8} | media))  # type: ignore[arg-type]
    with WorkerProcess(config) as process:
        yield process


@contextlib.contextmanager
def call(process: WorkerProcess, name: str = "a", mode: str = "guarded", record: bool = False) -> Iterator[Line]:
    line = Line.through(process, name, mode, record)
    try:
        yield line
    finally:
        line.close()


def forwards(heard: list[Heard]) -> None:
    """One SSRC; numbers and clock only ever go forwards."""
    assert len({packet.ssrc for packet in heard}) == 1
    for before, after in zip(heard, heard[1:], strict=False):
        assert 0 < (after.sequence - before.sequence) % 65536 < 1000
        assert 0 < (after.timestamp - before.timestamp) % 2**32 < 2**31


@pytest.mark.parametrize("mode", ["guarded", "armed"])
def test_a_worker_killed_in_the_middle_of_a_key_goes_on_where_it_was(mode: str) -> None:
    """Same ports, SSRC, numbers and clock, within a second; nothing of the key that it fell in; armed legs sealed."""
    with worker() as process, call(process, mode=mode) as line:
        line.talk(audio("", 0.3))
        sound = audio(CARD[:4], 0.0)
        before = line.heard(0.1)
        line.talk(sound[:2000])
        began = time.monotonic()
        process.kill()
        process.start()
        back = "sealed" if mode == "armed" else "guarded"
        (reopened,) = process.open(["a"], back, ports=line.ports).values()
        assert reopened == line.ports
        process.update("a", line.trunk.getsockname()[1], line.agent.getsockname()[1])
        line.sequence += 40
        line.timestamp += 40 * 160
        line.talk(sound[2000:] + audio(CARD[4:]))
        heard = before + line.heard()
        after = [packet for packet in heard if packet.at > began]
        forwards(heard)
        gap = after[0].at - max(packet.at for packet in heard if packet.at <= began)
        print(f"back after {gap:.2f} s")
        assert gap < 1.0
        # The clock went on with time: what an agent's phone plays stays where it was.
        last = [packet for packet in heard if packet.at <= began][-1]
        assert abs((after[0].timestamp - last.timestamp) / 8000 - (after[0].at - last.at)) < 0.1
        assert keys_in(heard) == []
        if mode == "armed":
            assert {packet.payload for packet in after} == {QUIET}
            process.tell(m.SetMode("a", "released"))
            process.expect(m.ModeSet)
            line.talk(bytes(range(64, 224)) * 3)
            assert any(packet.payload != QUIET for packet in line.heard())


def test_after_a_stop_of_two_seconds_nothing_stale_is_heard_and_what_was_keyed_is_asked_for_again() -> None:
    with worker() as process, call(process, "a", "armed") as armed, call(process, "b") as other:
        other.talk(QUIET * 10)
        armed.talk(QUIET * 10)
        armed.heard(0.1), other.heard(0.1)
        process.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        armed.talk(audio(CARD[:8])[:16000])
        while time.monotonic() < stopped + 2:
            other.say(QUIET)
            time.sleep(0.02)
        process.signal(signal.SIGCONT)
        time.sleep(0.1)
        assert process.expect(m.Interrupted) == m.Interrupted("a", 77, "stalled")
        assert len(armed.heard(0.1)) <= 1  # what came just then
        assert len(other.heard(0.1)) <= 1
        other.talk(g711.encode(synth.speechlike(0.4, np.random.default_rng(1)), g711.PCMU).tobytes())
        assert len(other.heard()) == 20
        armed.talk(audio("12"))
        assert keys_in(armed.heard()) == []
        counters = process.counters()
        assert counters["stalls"] == 1
        assert counters["stale"] > 90
        assert '"stalled"' in process.log()


def test_a_million_packets_of_garbage_on_one_port_leave_the_other_call_alone() -> None:
    """From the peer's own address, so that all of them are read."""
    with worker() as process, call(process, "a") as flooded, call(process, "b") as other:
        rng = np.random.default_rng(7)
        noise = [rng.bytes(int(size)) for size in rng.integers(0, 400, 4000)]
        sent, missing = 0, []
        began = time.monotonic()
        due, spoken = began, 0
        while sent < 1_000_000:
            for data in noise:
                with contextlib.suppress(OSError):
                    flooded.trunk.sendto(data, ("127.0.0.1", flooded.ports[0]))
                sent += 1
                if time.monotonic() >= due:
                    other.say(QUIET)
                    due += 0.02
                    spoken += 1
        heard = other.heard(0.3)
        missing = spoken - len(heard)
        assert missing <= spoken * 0.001
        forwards(heard)
        flooded.talk(audio("123"))
        assert keys_in(flooded.heard()) == []
        counters = process.counters()
        assert counters["malformed"] + counters["unknown_payload"] + counters["excess"] > 1000


def test_a_flood_from_a_stranger_is_counted_and_changes_nothing() -> None:
    with worker() as process, call(process) as line, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        forged = struct.pack("!BBHII", 0x80, 0, 1000, 5000, 42) + audio("5")[800:960]
        due, spoken = time.monotonic(), 0
        line.talk(QUIET * 3)
        assert len(line.heard(0.1)) == 3
        for _ in range(400_000):
            stranger.sendto(forged, ("127.0.0.1", line.ports[0]))
            if time.monotonic() >= due:
                line.say(QUIET)
                due += 0.02
                spoken += 1
        heard = line.heard()
        assert len(heard) == spoken
        forwards(heard)
        assert process.counters()["kernel_drops"] == 400_000  # counted by the kernel, at no cost to the call


def test_the_right_ssrc_from_the_wrong_address_is_a_stranger() -> None:
    with worker() as process, call(process) as line, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))  # the right host, another port: the rule is strict
        line.talk(QUIET * 10)
        before = line.heard(0.1)
        for i in range(50):
            head = struct.pack("!BBHII", 0x80, 0, line.sequence + i, line.timestamp + 160 * i, 42)
            stranger.sendto(head + audio("7")[800:960], ("127.0.0.1", line.ports[0]))
        time.sleep(0.1)
        line.talk(QUIET * 10)
        heard = before + line.heard()
        assert len(heard) == 20
        counters = process.counters()
        assert counters["strangers"] + counters["kernel_drops"] == 50


def test_a_peer_whose_port_is_closed_harms_nobody() -> None:
    with worker() as process, call(process, "a") as deaf, call(process, "b") as other:
        deaf.agent.close()
        for _ in range(40):
            deaf.say(QUIET)
            other.say(QUIET)
            time.sleep(0.02)
        assert len(other.heard()) == 40
        forwarded = process.counters()
        assert forwarded["packets"] >= 80
        for _ in range(10):  # and it is heard again itself: a refusal is no packet
            deaf.say(QUIET)
            time.sleep(0.02)
        assert process.counters()["packets"] == forwarded["packets"] + 10


def test_a_vault_that_does_not_keep_up_fails_the_capture_and_blocks_nothing() -> None:
    """Nobody reads the channel of keys: when it is full the leg is sealed, and the worker says why."""
    with worker() as process, call(process, "a", "armed") as line, call(process, "b") as other:
        with contextlib.suppress(BlockingIOError):
            filler = process.far["vault-keys"]
            while True:
                filler.send(bytes(BYTES))
        line.talk(audio("1"))
        told = process.expect(m.ModeSet)
        assert (told.mode, told.reason) == ("sealed", "vault-full")
        other.talk(QUIET * 20)
        assert len(other.heard()) == 20
        assert keys_in(line.heard()) == []
        assert process.counters()["keys_refused"] == 1


def test_a_vault_that_is_gone_in_the_middle_of_a_capture_seals_the_leg() -> None:
    with worker() as process, call(process, "a", "armed") as line:
        line.talk(audio("12"))
        process.near["vault-keys"].socket.close()
        process.far["vault-keys"].close()
        line.talk(audio("3"))
        told = process.expect(m.ModeSet)
        assert (told.mode, told.reason) == ("sealed", "vault-full")
        assert keys_in(line.heard()) == []


def test_a_recorder_that_does_not_read_is_counted_and_blocks_nothing() -> None:
    with worker() as process, call(process, "a", record=True) as line:
        filler = process.far["recording"]
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.send(bytes(60_000))
        line.talk(QUIET * 60)
        assert len(line.heard()) == 60
        assert process.counters()["recording_dropped"] > 0
        assert '"recording-behind"' in process.log()


def test_no_descriptors_left_refuses_the_new_call_and_keeps_the_old() -> None:
    with worker() as process, call(process, "a") as line:
        process.limit(resource.RLIMIT_NOFILE, 3)
        assert process.open(["b"]) == {}
        assert process.errors == ["no-descriptors"]
        line.talk(QUIET * 20)
        assert len(line.heard()) == 20
        process.limit(resource.RLIMIT_NOFILE, 500)
        assert list(process.open(["c"])) == ["c"]


def test_a_full_worker_refuses_but_takes_an_emergency() -> None:
    with worker(max_calls=2) as process:
        assert len(process.open(["a", "b"])) == 2
        assert process.open(["c"]) == {}
        assert process.errors == ["full"]
        assert list(process.open(["d"], emergency=True)) == ["d"]
        assert process.counters()["shed"] == 1


def test_an_overloaded_worker_sheds_new_calls_before_old_ones_suffer() -> None:
    """It is held up for most of the time, as by a machine that is busy with something else."""
    with worker() as process, call(process, "a") as line:
        released = threading.Event()
        holding = threading.Thread(target=_hold_up, args=(process, released))
        holding.start()
        try:
            deadline = time.monotonic() + 30
            while process.counters()["load"] <= 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert process.open(["b"]) == {}
            assert process.errors == ["overload"]
            assert list(process.open(["c"], emergency=True)) == ["c"]
        finally:
            released.set()
            holding.join()
        deadline = time.monotonic() + 30
        while process.counters()["load"] > 0.5 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(process.open(["d"])) == ["d"]
        line.talk(QUIET * 20)
        assert len(line.heard()) == 20


def _hold_up(process: WorkerProcess, released: threading.Event) -> None:
    while not released.wait(0.01):
        process.signal(signal.SIGSTOP)
        time.sleep(0.05)
        process.signal(signal.SIGCONT)


def test_a_freed_port_rests_so_that_late_audio_enters_no_other_call() -> None:
    with worker(port_rest_seconds=2.0) as process, call(process, "a") as line:
        process.tell(m.CloseCall("a"))
        opened = process.open([f"b{i}" for i in range(6)])
        assert len(opened) == 6
        assert not set(line.ports) & {port for pair in opened.values() for port in pair}
        line.say(QUIET)
        time.sleep(0.1)
        assert process.counters()["packets"] == 0


def test_silence_and_age_end_a_call() -> None:
    with worker(rtp_timeout_seconds=1.0) as process, call(process, "a"):
        assert process.expect(m.CallOver, 5) == m.CallOver("a", "rtp-timeout")
    with worker(max_call_seconds=1.0) as process, call(process, "a") as line:
        line.talk(QUIET * 60)
        assert process.expect(m.CallOver, 5) == m.CallOver("a", "max-duration")


def test_a_call_that_ends_says_goodbye_and_counts_its_legs() -> None:
    with worker() as process, call(process) as line, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind(("127.0.0.1", 0))
        control.settimeout(2)
        process.update("a", line.trunk.getsockname()[1], line.agent.getsockname()[1], control.getsockname()[1])
        line.talk(QUIET * 5)
        ssrc = line.heard()[0].ssrc
        process.tell(m.CloseCall("a"))
        said = control.recv(2000)
        while said[-8:] != b"\x81\xcb\x00\x01" + ssrc.to_bytes(4):
            said = control.recv(2000)
        assert said[1] == 201  # a compound packet: RR, SDES, BYE
        time.sleep(0.1)
        logged = process.log()
        assert '"event":"leg"' in logged
        assert '"packets":5' in logged


def test_calls_come_and_go_on_the_same_slots() -> None:
    with worker(port_rest_seconds=0.5) as process:
        for turn in range(20):
            with call(process, f"call{turn}") as line:
                line.talk(QUIET * 2)
                assert len(line.heard(0.1)) == 2
                process.tell(m.CloseCall(f"call{turn}"))
        time.sleep(0.1)
        assert process.counters()["calls"] == 0


def test_short_calls_on_an_idle_worker_are_no_overload() -> None:
    """Between calls it looks up five times a second: that is not being late."""
    with worker(port_rest_seconds=0.1) as process:
        for turn in range(12):
            time.sleep(0.25)
            assert process.open([f"call{turn}"]), process.errors
            time.sleep(0.02)
            process.tell(m.CloseCall(f"call{turn}"))
        assert process.counters()["load"] < 0.3


@pytest.mark.parametrize("size", [160, 800])
def test_a_peer_that_sends_far_more_than_real_time_is_held_to_its_share(size: int) -> None:
    """Valid audio, keys without end, from its own address, from three callers at once: another call goes on."""
    with worker() as process, call(process, "good") as good, contextlib.ExitStack() as calls:
        bad = [calls.enter_context(call(process, f"bad{i}")) for i in range(3)]
        tone = audio("159#" * 5)
        due, spoken, at = time.monotonic(), 0, 0
        until = due + 3
        while time.monotonic() < until:
            for line in bad:
                line.say(tone[at : at + size])
            at = (at + size) % (len(tone) - size)
            if time.monotonic() >= due:
                good.say(QUIET)
                due += 0.02
                spoken += 1
            time.sleep(0.001)
        heard = good.heard()
        assert len(heard) >= spoken - 1
        late = [b.at - a.at for a, b in zip(heard, heard[1:], strict=False)]
        assert np.percentile(late, 95) < 0.06
        counters = process.counters()
        assert counters["excess"] > 100
        assert counters["stalls"] == 0
        for line in bad:
            assert keys_in(line.heard()) == []


def test_calls_that_could_not_be_opened_keep_no_port() -> None:
    with worker(port_rest_seconds=0.0) as process:
        process.limit(resource.RLIMIT_NOFILE, 3)
        for turn in range(40):
            assert process.open([f"none{turn}"]) == {}
        process.limit(resource.RLIMIT_NOFILE, 500)
        assert len(process.open([f"call{i}" for i in range(8)])) == 8


def test_a_worker_that_lags_behind_all_calls_throws_the_lag_away() -> None:
    """40 packets wait on each of 40 legs after a stop too short to be a stall by itself."""
    with worker(max_calls=20, ports="15000-15199") as process, contextlib.ExitStack() as calls:
        lines = [calls.enter_context(call(process, f"call{i}")) for i in range(20)]
        for line in lines:
            line.talk(QUIET)
        process.signal(signal.SIGSTOP)
        for _ in range(40):
            for line in lines:
                line.say(QUIET)
                line.agent.sendto(
                    struct.pack("!BBHII", 0x80, 0, line.sequence, line.timestamp, 9) + QUIET,
                    ("127.0.0.1", line.ports[1]),
                )
        time.sleep(0.05)
        process.signal(signal.SIGCONT)
        time.sleep(0.3)
        counters = process.counters()
        assert counters["stalls"] >= 1
        assert counters["stale"] + counters["packets"] <= 40 * 41 + 20
        assert counters["packets"] <= 40 * 8


def test_a_telephone_event_is_not_in_memory_a_second_after_the_call() -> None:
    """Neither the packet nor its payload beside the sender's numbers, in any writable memory of the worker."""
    with worker() as process, call(process, "a", "armed") as line:
        line.talk(QUIET * 5)
        line.say(b"\x05\x0a\x12\x34", 101, ssrc=0x5A17C0DE)
        packet = struct.pack("!I", 0x5A17C0DE) + b"\x05\x0a\x12\x34"
        time.sleep(0.002)
        process.tell(m.CloseCall("a"))
        time.sleep(1.2)
        assert [name for name, content in memory.regions(process.pid) if packet in content] == []


def test_a_new_call_on_a_dead_calls_port_does_not_go_on_in_its_numbers() -> None:
    with worker(port_rest_seconds=0.0) as process, call(process, "a") as line:
        line.talk(QUIET * 3)
        before = line.heard()[0].ssrc
        process.kill()
        process.start()
        for i in range(12):  # until the ports of the dead call come round
            opened = process.open([f"new{i}"])
            if opened[f"new{i}"] == line.ports:
                break
            process.tell(m.CloseCall(f"new{i}"))
        assert opened[f"new{i}"] == line.ports
        process.update(f"new{i}", line.trunk.getsockname()[1], line.agent.getsockname()[1])
        time.sleep(0.05)
        line.talk(QUIET * 3)
        assert line.heard()[-1].ssrc != before
