"""What the scanner finds, how often it is wrong and how fast it is, with multimon-ng and spandsp on the same files.

Voices, seeds and music are those that the detectors were not trained on (`benchmarks.residue_training`), except that
false alarms are counted on all 2.1 h of prompts. Times are processor seconds of one process at a time, so that other
work on the machine does not show; the peers' include sox, without which they cannot read such files.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import material
from benchmarks.peers import multimon, spandsp
from benchmarks.table import Row, arguments, finish, upper_bound
from dsp import g711, synth
from mediaproxy import offline
from mediaproxy.media import modes
from mediaproxy.scan import audio, cluster
from mediaproxy.scan.judge import Channel, Mark, settle
from mediaproxy.scan.look import Options, look
from mediaproxy.scan.verdict import FileVerdict
from tests.fixtures import recorded

Audio = NDArray[np.float32]

SEED = 9000
N, QUICK = 4000, 500
FORMS = {
    "G.711 µ-law": ("wav-ulaw", 0), "G.711 A-law": ("wav-alaw", 0), "MP3 32k": ("mp3", 32000),
    "Opus 12k": ("ogg-opus", 12000), "GSM": ("wav-gsm", 0),
}  # fmt: skip
PEERS: dict[str, Callable[[NDArray[np.int16]], str]] = {"multimon-ng": multimon.decode, "spandsp": spandsp.decode}
TINY = 600
"""Files on which the overhead of a cluster is measured."""
PLAIN = Options(seed=None)


def marks(path: Path) -> tuple[list[Mark], list[Mark]]:
    """(whole keys, residues) in the first channel of a file, read as `flattone scan` reads it."""
    form = {".mp3": "mp3", ".opus": "ogg"}.get(path.suffix, "wav")
    with path.open("rb") as file:
        channel = Channel(None)
        for number, block in audio.Source(file, form).blocks():
            if number == (0, 0):
                channel.push(block)
    channel.finish()
    return settle(channel.marks)


def samples(path: Path) -> NDArray[np.int16]:
    """What the peers hear: the first channel at 8000 Hz."""
    form = {".mp3": "mp3", ".opus": "ogg"}.get(path.suffix, "wav")
    with path.open("rb") as file:
        blocks = [block for number, block in audio.Source(file, form).blocks() if number == (0, 0)]
    return g711.to_int16(np.concatenate(blocks))


def whole(name: str, level: float | None, weaker: bool, count: int) -> tuple[int, int, dict[str, int]]:
    """(keys, found, found by each peer) of `count` keys of 40 ms and more.

    level: dBm0 of the weaker tone, as Q.24 counts (else the stronger one), with any twist it accepts; None: any level.
    """
    form, bits = FORMS[name]
    rng = np.random.default_rng([SEED, len(name), int(level or 0) + 100])
    twist = rng.uniform(-8, 4, count)
    strong = rng.uniform(-27, -4, count) if level is None else level + np.abs(twist) * weaker
    length = rng.uniform(40, 120, count) if level is None else np.full(count, 40.0)
    presses = [
        synth.Press(int(rng.integers(16)), float(length[i]), float(strong[i]), float(twist[i]),
                    rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015))
        for i in range(count)
    ]  # fmt: skip
    line, where = synth.keying(presses, rng, (60, 140), lead_ms=500, noise_dbm0=-60)
    with tempfile.TemporaryDirectory() as folder:
        path = recorded.write(Path(folder), form, line[None, :], bits=bits)
        found, _ = marks(path)
        heard = samples(path)
    hits = sum(any(m.start < end + 200 and m.end > start - 200 for m in found) for start, end in where)
    return count, hits, {peer: min(count, len(decode(heard))) for peer, decode in PEERS.items()}


def limit(level: float, off: float, count: int) -> float:
    """Share of `count` keys of 60 ms found, both tones at `level` dBm0 and `off` their frequency, over noise at -70."""
    rng = np.random.default_rng([SEED, int(-level), int(1000 * off)])
    sign = rng.choice([-1, 1], (count, 2))
    presses = [
        synth.Press(int(rng.integers(16)), 60, level, 0, float(off * sign[i, 0]), float(off * sign[i, 1]))
        for i in range(count)
    ]
    line, where = synth.keying(presses, rng, (60, 140), lead_ms=500, noise_dbm0=-70)
    with tempfile.TemporaryDirectory() as folder:
        found, _ = marks(recorded.write(Path(folder), "wav-pcm16", line[None, :]))
    return sum(any(m.start < end + 200 and m.end > start - 200 for m in found) for start, end in where) / count


def residues(ms: float, name: str, count: int) -> tuple[int, int, dict[str, int]]:
    """The same of pieces of `ms` at -20 dBm0 over noise at -50; found means suspect."""
    form, bits = FORMS[name]
    rng = np.random.default_rng([SEED, int(ms)])
    line = rng.normal(0, g711.amplitude(-50) / np.sqrt(2), 4000 * (count + 1)).astype(np.float32)
    where = []
    for i in range(count):
        tone = synth.tone_pair(
            synth.Press(int(rng.integers(16)), ms, -20), phases=(rng.uniform(0, 6.28), rng.uniform(0, 6.28))
        )
        at = 4000 * i + int(rng.integers(1000, 3000))
        line[at : at + len(tone)] += tone
        where.append((at, at + len(tone)))
    with tempfile.TemporaryDirectory() as folder:
        path = recorded.write(Path(folder), form, line[None, :], bits=bits)
        keys, pieces = marks(path)
        heard = samples(path)
    found = [*keys, *pieces]
    near = 16 if form.startswith(("wav-ulaw", "wav-alaw")) else 400  # others delay and smear
    hits = sum(any(m.start < end + near and m.end > start - near for m in found) for start, end in where)
    return count, hits, {peer: min(count, len(decode(heard))) for peer, decode in PEERS.items()}


def alarms(what: str) -> tuple[float, int, int]:
    """(hours, suspect runs, whole keys) in a voice's prompts, hold music, or card numbers behind our own mask."""
    with tempfile.TemporaryDirectory() as folder:
        hours, runs, keys = 0.0, 0, 0
        for number, part in enumerate(_sounds(what)):
            path = recorded.write(Path(folder), "wav-ulaw", part[None, :])
            verdict = look(str(path), PLAIN)
            assert not verdict.failed, (number, verdict.reason)
            hours, runs, keys = hours + verdict.seconds / 3600, runs + verdict.runs, keys + verdict.keys
    return hours, runs, keys


def _sounds(what: str) -> list[Audio]:
    if what == "music":
        return material.music()
    if what.startswith("masked"):
        rng = np.random.default_rng([SEED, len(what)])
        return [_masked(rng) for _ in range(int(what.split()[1]))]
    return [part for part in material.prompts((what,)) if len(part) > 1000]


def _masked(rng: np.random.Generator) -> Audio:
    """A minute of a call as a recorder gets it from the leg: a card keyed, then the voice of the caller; some loss."""
    presses = [
        synth.Press(int(rng.integers(16)), rng.uniform(40, 200), rng.uniform(-25, -5), rng.uniform(-8, 4),
                    rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015))
        for _ in range(23)
    ]  # fmt: skip
    keyed, _ = synth.keying(presses, rng, (60, 300), noise_dbm0=rng.uniform(-70, -50))
    voice = material.speech(material.FINAL)
    at = int(rng.integers(len(voice) - 400_000))
    line = np.concatenate([keyed, voice[at : at + 380_000] * np.float32(g711.amplitude(-20) / np.sqrt(2))])
    mode = modes.parse(str(rng.choice(["guarded", "armed"])))
    network = offline.Network(0.01, 1.0, int(rng.integers(1 << 30))) if rng.random() < 0.5 else None
    result = offline.mask(g711.encode(line.astype(np.float32), g711.PCMU), mode, network=network)
    return g711.decode(result.octets, g711.PCMU)


def _spent(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def speed(minutes: float) -> tuple[float, dict[str, float]]:
    """(seconds of stereo audio a processor second, and that of each peer) on the same µ-law WAV files."""
    voice = np.concatenate(material.prompts(material.FINAL))
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(4):
            size = int(minutes * 60 * 8000 / 4)
            presses = [synth.Press(int(rng.integers(16)), 80, -12) for _ in range(16)]
            keyed, _ = synth.keying(presses, rng)
            sides = np.stack([voice[(2 * i + side) * size // 4 :][:size] for side in (0, 1)])
            sides[0, : len(keyed)] += keyed
            paths.append(recorded.write(Path(folder), "wav-ulaw", sides).rename(Path(folder) / f"{i}.wav"))
        look(str(paths[0]), PLAIN)  # tables are made once
        before = _spent(resource.RUSAGE_SELF)
        verdicts = [look(str(path), PLAIN) for path in paths]
        ours = _spent(resource.RUSAGE_SELF) - before
        seconds = sum(verdict.seconds for verdict in verdicts)
        peers = {}
        for name, listen in _LISTENERS.items():
            before = _spent(resource.RUSAGE_CHILDREN)
            for path in paths:
                for side in ("1", "2"):
                    listen(path, side, Path(folder) / "raw")
            peers[name] = seconds / (_spent(resource.RUSAGE_CHILDREN) - before)
    return seconds / ours, peers


def _multimon(path: Path, side: str, raw: Path) -> None:
    """As it can be used on such a file: sox takes a channel out and brings it to the rate that it needs."""
    _sox(path, side, raw, 22050)
    subprocess.run(["multimon-ng", "-q", "-a", "DTMF", "-t", "raw", raw], stdout=subprocess.DEVNULL, check=True)


_SPANDSP = """
import sys, numpy as np
from benchmarks.peers import spandsp
library = spandsp.library()
spandsp.run(np.fromfile(sys.argv[1], "<i2"), library.dtmf_rx_init(None, None, None), library)
"""


def _spandsp(path: Path, side: str, raw: Path) -> None:
    _sox(path, side, raw, 8000)
    subprocess.run([sys.executable, "-c", _SPANDSP, raw], check=True)


def _sox(path: Path, side: str, raw: Path, rate: int) -> None:
    as_raw: list[str | Path] = ["-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", raw]
    subprocess.run(["sox", "-V1", path, *as_raw, "remix", side], check=True)


_LISTENERS = {"multimon-ng with sox": _multimon, "spandsp with sox (and an interpreter a file)": _spandsp}


def bare_multimon(minutes: float) -> float:
    """Seconds of one channel a processor second of multimon-ng on raw audio of its own rate, without sox."""
    line = np.concatenate(material.prompts(material.FINAL))[: int(minutes * 60 * 8000)]
    with tempfile.TemporaryDirectory() as folder:
        path, raw = recorded.write(Path(folder), "wav-ulaw", line[None, :]), Path(folder) / "raw"
        _sox(path, "1", raw, 22050)
        before = _spent(resource.RUSAGE_CHILDREN)
        subprocess.run(["multimon-ng", "-q", "-a", "DTMF", "-t", "raw", raw], stdout=subprocess.DEVNULL, check=True)
        return len(line) / 8000 / (_spent(resource.RUSAGE_CHILDREN) - before)


def memory(hours: float) -> tuple[float, float]:
    """(MB at most, MB for a minute) of a process that looks through a stereo µ-law WAV of so many hours."""
    script = (
        "import sys; from mediaproxy.scan.look import Options, look; v = look(sys.argv[1], Options(1)); "
        "assert not v.failed, v.reason; "
        "print(next(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    voice = np.concatenate(material.prompts(material.FINAL))
    with tempfile.TemporaryDirectory() as folder:
        sides = np.stack([voice[: 60 * 8000], voice[60 * 8000 : 120 * 8000]])
        minute = recorded.write(Path(folder), "wav-ulaw", sides)
        long = Path(folder) / "long.wav"
        head, data = minute.read_bytes()[:-960_000], minute.read_bytes()[-960_000:]
        size = round(hours * 60) * len(data)
        at = head.rindex(b"data") + 4
        with long.open("wb") as file:
            file.write(head[:4] + (len(head) - 8 + size).to_bytes(4, "little") + head[8:at])
            file.write(size.to_bytes(4, "little") + head[at + 4 :])
            for _ in range(round(hours * 60)):
                file.write(data)
        used = [
            float(subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout)
            for path in (long, minute)
        ]
    return used[0], used[1]


def clustered(files: int) -> tuple[float, bool]:
    """(ms a file that two workers of a Dask cluster need beyond the work itself, whether they found the same)."""
    from distributed import LocalCluster

    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(files):
            presses = [synth.Press(int(rng.integers(16)), 60, -12)] if i % 3 == 0 else []
            line, _ = synth.keying(presses, rng, lead_ms=150)
            paths.append(str(recorded.write(Path(folder), "wav-ulaw", line[None, :]).rename(Path(folder) / f"{i}.wav")))
        before = time.perf_counter()
        alone = [look(path, PLAIN) for path in paths]
        work = time.perf_counter() - before
        with LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as there:
            connected = cluster.Cluster(there.scheduler_address)
            try:
                list(connected.run(paths[:64], PLAIN))  # both have loaded everything
                before = time.perf_counter()
                together = list(connected.run(paths, PLAIN))
                took = time.perf_counter() - before
            finally:
                connected.close()

    def by_path(verdict: FileVerdict) -> str:
        return verdict.path

    same = sorted(together, key=by_path) == sorted(alone, key=by_path)
    return 1000 * max(0.0, took - work / 2) / files, same


def _rates(rows: list[Row], what: str, goal: float, score: tuple[int, int, dict[str, int]]) -> None:
    """A row of ours and one of each peer; of few, one that is missed by chance may be."""
    count, found, peers = score
    slack = 100 * upper_bound(0, count) if count < N else 0.0
    rows.append(Row(f"{what}, n={count}", goal - slack, 100 * found / count, "%", "higher", not goal))
    for peer, heard in peers.items():
        rows.append(Row(f"  peer: {peer}", 0, 100 * heard / count, "%", "higher", True))


def main() -> int:
    args = arguments(__doc__)
    quick: bool = args.quick
    n = QUICK if quick else N
    sounds = [*material.TUNE, *material.FINAL, "music", *[f"masked {20 if quick else 60}"]]
    with ProcessPoolExecutor(2) as pool:
        faint = [pool.submit(whole, name, -35.0, True, n) for name in FORMS]
        fainter = [pool.submit(whole, name, -35.0, False, n) for name in FORMS]
        usual = [pool.submit(whole, name, None, True, n) for name in FORMS]
        short = {ms: pool.submit(residues, ms, "G.711 µ-law", n) for ms in (10.0, 5.0, 3.0)}
        coded = {
            (ms, name): pool.submit(residues, ms, name, n // 2)
            for name in ("MP3 32k", "Opus 12k", "GSM") for ms in (10.0, 5.0)
        }  # fmt: skip
        faintest = {level: pool.submit(limit, level, 0.0, n // 4) for level in range(-40, -61, -2)}
        furthest = {off: pool.submit(limit, -20.0, off / 100, n // 4) for off in (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)}
        wrong = dict(zip(sounds, pool.map(alarms, sounds), strict=True))
        rows: list[Row] = []
        for name, job in zip(FORMS, faint, strict=True):
            _rates(rows, f"keys of 40 ms at -35 dBm0, {name}", 99.9, job.result())
        for name, job in zip(FORMS, fainter, strict=True):
            _rates(rows, f"  the stronger tone at -35 dBm0, the other down to -43, {name}", 0, job.result())
        for name, job in zip(FORMS, usual, strict=True):
            _rates(rows, f"keys of 40 to 120 ms, -35 dBm0 and louder, {name}", 99.9, job.result())
        for ms, goal in ((10.0, 99.0), (5.0, 99.0), (3.0, 90.0)):
            _rates(rows, f"residues of {ms:.0f} ms, -20 dBm0 over noise at -50", goal, short[ms].result())
        for (ms, name), job in coded.items():
            _rates(rows, f"residues of {ms:.0f} ms, -20 dBm0 over noise at -50, {name}", 0, job.result())
        for what, unit, tried in (("level, both tones", "dBm0", faintest), ("deviation", "%", furthest)):
            held = 0.0
            for value, share in tried.items():
                if share.result() < 0.99:
                    break
                held = float(value)
            rows.append(Row(f"keys of 60 ms: the last {what}, at which 99 % are found", 0, held, unit, "lower", True))
    spoken = [wrong[voice] for voice in (*material.TUNE, *material.FINAL)]
    unheard = [wrong[voice] for voice in material.FINAL]
    behind = next(value for what, value in wrong.items() if what.startswith("masked"))
    for what, parts in (
        ("prompts", spoken), ("the prompts of voices not trained on", unheard), ("hold music", [wrong["music"]]),
        ("our own masked recordings", [behind]),
    ):  # fmt: skip
        hours = sum(part[0] for part in parts)
        told = what in ("hold music", "the prompts of voices not trained on")  # the latter are among the prompts
        rows.append(
            Row(
                f"suspect runs in {hours:.2f} h of {what}",
                1,
                sum(p[1] for p in parts) / hours,
                "an hour",
                "lower",
                told,
            )
        )
        rows.append(Row(f"  dirty: whole keys in {what}", 0, sum(p[2] for p in parts), "keys", "lower", told))
    fast, peers = speed(8 if quick else 40)
    rows.append(Row("speed, stereo µ-law WAV: real time on one core", 0, fast, "x", "higher", True))
    for peer, theirs in peers.items():
        goal = 1.0 if peer.startswith("multimon") else 0.0
        rows.append(Row(f"  against {peer} on the same files", goal, fast / theirs, "x", "higher", goal == 0))
    alone = bare_multimon(8 if quick else 20)
    rows.append(
        Row("  against multimon-ng alone, on audio that sox made before", 0, 2 * fast / alone, "x", "higher", True)
    )
    used, base = memory(0.5 if quick else 4)
    rows.append(Row(f"memory, a file of {0.5 if quick else 4} h", 300, used, "MB", "lower"))
    rows.append(Row("  more than for a minute", 100, used - base, "MB", "lower"))
    overhead, same = clustered(TINY // 3 if quick else TINY)
    rows.append(Row("two Dask workers: overhead a file", 5, overhead, "ms", "lower"))
    rows.append(Row("  files judged otherwise than by one process", 0, float(not same), "", "lower"))
    return finish(rows, args.json)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
