"""One channel of audio, block by block: whole keys and residues, where and how strong, never which.

Work is done on pieces of half a minute with half a second of what is around them, so that memory does not grow with
the file, and a finding is the same wherever the pieces meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dsp import g711, synth
from mediaproxy.scan import detectors
from mediaproxy.scan.verdict import Finding, Kind, Planted

Block = NDArray[np.float32]

RATE: Final = 8000
PIECE: Final = 1 << 18
"""32.8 s; a multiple of both detectors' hops."""
AROUND: Final = 4096
MANY: Final = 512
UNSURE: Final = -2.5
"""A whole key is as sure as its score; from here up to 0 it makes a suspect. (The best of 2.1 h of speech is below.)"""
APART: Final = 4 * RATE
"""Findings no further apart are one run: callers read a card out in groups."""
DOUBTFUL: Final = -5.0
"""Scores from here on are kept for the picture of a run, as odds of e^-4 below a finding."""
SAME: Final = RATE // 40
"""Events less than 25 ms apart are one key: codecs tear them."""
LONGEST_LIST: Final = 500
"""Runs listed of one channel; all are counted."""
BARS: Final = 120
"""Most steps of a run's picture."""
LEVEL_STEP: Final = 3
"""dB: finer, the level would differ a little from key to key."""
BESIDE: Final = 0.02
"""Seconds of a residue's picture before and after it."""
BLURRED: Final = 0.1
"""Seconds a step of a picture of whole keys, at least: of three and more a step is as long as two, so that the rhythm
of keying does not show."""


class Mark(NamedTuple):
    """One key, residue or telephone-event, in samples of the channel."""

    kind: Kind
    start: int
    end: int
    level: float
    score: float


def marks(audio: Block) -> list[Mark]:
    """What is in float32[n], down to doubtful scores; a whole key that is not sure counts as a residue."""
    found = []
    for key in detectors.whole_keys(audio, UNSURE + DOUBTFUL):
        kind, score = ("key", key.score) if key.score > 0 else ("residue", key.score - UNSURE)
        found.append(Mark(cast(Kind, kind), key.start, key.end, key.level_dbm0, score))
    found += [Mark("residue", r.start, r.end, r.level_dbm0, r.score) for r in detectors.residues(audio, DOUBTFUL)]
    return found


class Channel:
    """Judges one channel."""

    def __init__(self, seed: int | None) -> None:
        """seed: of the positives that are planted; None plants none."""
        self._pending: list[Block] = []
        self._held = np.zeros(0, np.float32)
        self._waiting = 0
        self._begin = 0
        """Where in the channel `_held` begins."""
        self._first = True
        self.marks: list[Mark] = []
        self._doubts: list[Mark] = []
        self._noise = _Noise()
        self._planter = _Planter(seed) if seed is not None else None

    def push(self, samples: Block) -> None:
        """Take the next float32[n] at 8000 Hz, full scale 1.0."""
        self._pending.append(samples)
        self._waiting += len(samples)
        if len(self._pending) >= MANY:  # of a file that gives a few samples at a time
            self._pending = [np.concatenate(self._pending)]
        while self._waiting + len(self._held) >= PIECE + 2 * AROUND:
            self._gather()
            self._look(last=False)

    def finish(self) -> None:
        """There is no more."""
        self._gather()
        self._look(last=True)

    def _gather(self) -> None:
        joined = np.concatenate([self._held, *self._pending])
        self._held = np.clip(np.nan_to_num(joined, posinf=0, neginf=0), -2, 2)
        self._pending, self._waiting = [], 0

    def _look(self, last: bool) -> None:
        before = 0 if self._first else AROUND
        while True:
            whole = last and len(self._held) <= before + PIECE + AROUND
            size = len(self._held) if whole else before + PIECE + AROUND
            audio = self._held[:size]
            core = before, size if whole else before + PIECE
            self._judge(audio, core)
            if whole:
                self._held = np.zeros(0, np.float32)
                return
            keep = core[1] - AROUND
            self._held, self._begin = self._held[keep:], self._begin + keep
            self._first, before = False, AROUND
            if not last and len(self._held) < before + PIECE + AROUND:
                return

    def _judge(self, audio: Block, core: tuple[int, int]) -> None:
        if not audio.size:
            return
        self._noise.push(audio[core[0] : core[1]])
        found = marks(audio)
        for mark in found:
            if mark.start < core[1] and mark.end > core[0]:  # what reaches over a border is found twice, and joined
                here = mark._replace(start=mark.start + self._begin, end=mark.end + self._begin)
                (self.marks if mark.score > 0 else self._doubts).append(here)
        if self._planter is not None:
            self._planter.work(audio, core, found)

    @property
    def is_noise(self) -> bool:
        """Whether it is nothing but noise at full level, as encrypted audio is."""
        return self._noise.is_all

    @property
    def planted(self) -> dict[str, Planted]:
        return self._planter.counts if self._planter is not None else {}

    def findings(self, number: int) -> tuple[list[Finding], int, int, int]:
        """(runs by time, how many there are, whole keys, residues) of this channel, called `number`."""
        keys, pieces = settle(self.marks)
        runs = grouped([*keys, *pieces])
        listed = [finding(number, run, self._doubts) for run in runs[:LONGEST_LIST]]
        return listed, len(runs), len(keys), len(pieces)


def settle(marks: Sequence[Mark]) -> tuple[list[Mark], list[Mark]]:
    """(whole keys, residues): keys torn by a codec joined, and the residues that are a part of a key left out."""
    keys: list[Mark] = []
    for mark in sorted(mark for mark in marks if mark.kind != "residue"):
        last = keys[-1] if keys else None
        if last is not None and mark.kind == last.kind == "key" and mark.start - last.end < SAME:
            end, level, score = max(last.end, mark.end), max(last.level, mark.level), max(last.score, mark.score)
            keys[-1] = last._replace(end=end, level=level, score=score)
        else:
            keys.append(mark)
    starts = np.array([key.start for key in keys])
    pieces: list[Mark] = []
    for mark in sorted(mark for mark in marks if mark.kind == "residue"):
        near = int(np.searchsorted(starts, mark.end + SAME)) - 1
        if near >= 0 and keys[near].end + SAME >= mark.start:
            continue
        if pieces and mark.start < pieces[-1].end:
            pieces[-1] = pieces[-1]._replace(end=max(mark.end, pieces[-1].end), score=max(mark.score, pieces[-1].score))
        else:
            pieces.append(mark)
    return keys, pieces


def grouped(marks: Sequence[Mark], apart: int = APART) -> list[list[Mark]]:
    """Runs of marks of which none is further than `apart` samples from the one before."""
    runs: list[list[Mark]] = []
    end = 0
    for mark in sorted(marks, key=lambda mark: mark.start):
        if runs and mark.start - end <= apart:
            runs[-1].append(mark)
        else:
            runs.append([mark])
        end = max(end, mark.end) if len(runs[-1]) > 1 else mark.end
    return runs


def finding(channel: int, run: Sequence[Mark], doubts: Sequence[Mark]) -> Finding:
    """What is told of a run."""
    start, end = run[0].start, max(mark.end for mark in run)
    kinds = {mark.kind for mark in run}
    kind: Kind = "key" if "key" in kinds else "telephone-event" if "telephone-event" in kinds else "residue"
    around = BESIDE if kind == "residue" else 3 * BLURRED
    begin = max(0, start - round(around * RATE))
    step, score = _picture([*run, *doubts], begin, end + round(around * RATE), kind)
    return Finding(
        channel, kind, round(start / RATE, 3), round((end - start) / RATE, 3),
        sum(mark.kind != "residue" for mark in run), sum(mark.kind == "residue" for mark in run),
        round(max(mark.end - mark.start for mark in run) * 1000 / RATE),
        LEVEL_STEP * round(max(mark.level for mark in run) / LEVEL_STEP),
        round(begin / RATE, 3), step, score,
    )  # fmt: skip


def _picture(marks: Sequence[Mark], start: int, end: int, kind: Kind) -> tuple[float, tuple[float, ...]]:
    """(seconds a step, the greatest score in each step, 0 to 1), coarse enough not to show a rhythm."""
    step = max((end - start) / RATE / BARS, 0.001 if kind == "residue" else BLURRED)
    inside = [mark for mark in marks if mark.score > 0 and start <= mark.start < end]
    if len(inside) > 2:
        step = max(step, 2 * (inside[-1].end - inside[0].start) / RATE / len(inside))
    size = max(1, round(step * RATE))
    bars = np.zeros(max(1, -(-(end - start) // size)))
    for mark in marks:
        if mark.start < end and mark.end > start:
            first, last = max(0, (mark.start - start) // size), (min(mark.end, end) - 1 - start) // size
            odds = 1 / (1 + math.exp(-max(-20.0, min(20.0, mark.score))))
            bars[first : last + 1] = np.maximum(bars[first : last + 1], odds)
    return round(size / RATE, 4), tuple(float(bar) for bar in np.round(bars, 1))


class _Noise:
    """Whether a channel is white noise at full level, as octets under encryption sound."""

    LEVEL: Final = 0.2
    """RMS: uniform codes of G.711 have 0.31, uniform values of 16 bits 0.58; speech at full level 0.1."""
    ALIKE: Final = 0.05
    """Correlation with the sample before; in speech at 8000 Hz it is above 0.5."""
    SIZE: Final = 4096

    def __init__(self) -> None:
        self._noisy = self._sounding = 0

    def push(self, audio: Block) -> None:
        blocks = audio[: len(audio) // self.SIZE * self.SIZE].reshape(-1, self.SIZE)
        if not len(blocks):
            return
        power = np.einsum("ij,ij->i", blocks, blocks)
        next_to = np.einsum("ij,ij->i", blocks[:, 1:], blocks[:, :-1])
        self._sounding += int((power > 1e-6 * self.SIZE).sum())
        self._noisy += int(((power > self.LEVEL**2 * self.SIZE) & (np.abs(next_to) < self.ALIKE * power)).sum())

    @property
    def is_all(self) -> bool:
        return self._noisy > 0 and self._noisy >= 0.8 * self._sounding


class _Planter:
    """Puts known keys and residues into copies of the audio and looks whether they are found."""

    KINDS: Final = (("key of 50 ms", 50.0), ("residue of 5 ms", 5.0), ("residue of 3 ms", 3.0))
    LEVEL_DBM0: Final = -20.0
    EVERY: Final = 8
    """Pieces: positives are planted in the first one, and in one of so many after it."""
    PAUSE_DBM0: Final = -42.0
    """Audio below this is a pause."""
    ROOM: Final = RATE // 4

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._piece = 0
        self.counts: dict[str, Planted] = {}

    def work(self, audio: Block, core: tuple[int, int], known: Sequence[Mark]) -> None:
        due = self._piece % self.EVERY == 0
        self._piece += 1
        if not due or core[1] - core[0] < 3 * self.ROOM:
            return
        for name, ms in self.KINDS:
            for _ in range(2):
                self._plant(audio, core, known, name, ms)

    def _plant(self, audio: Block, core: tuple[int, int], known: Sequence[Mark], name: str, ms: float) -> None:
        rng = self._rng
        at = int(rng.integers(core[0] + self.ROOM, core[1] - self.ROOM))
        if any(mark.score > 0 and mark.start < at + self.ROOM and mark.end > at - self.ROOM for mark in known):
            return  # not to count what was there
        press = synth.Press(int(rng.integers(16)), ms, self.LEVEL_DBM0)
        tone = synth.tone_pair(press, phases=(rng.uniform(0, 6.28), rng.uniform(0, 6.28)))
        copy = audio[at - self.ROOM : at + self.ROOM].copy()
        around = copy[self.ROOM - 160 : self.ROOM + 160 + len(tone)]
        quiet = float(np.mean(np.square(around))) < g711.amplitude(self.PAUSE_DBM0) ** 2 / 2
        copy[self.ROOM : self.ROOM + len(tone)] += tone
        end = self.ROOM + len(tone) + 40
        hit = any(one.score > 0 and one.start < end and one.end > self.ROOM - 40 for one in marks(copy))
        name = f"{name}, {'in a pause' if quiet else 'over sound'}"
        self.counts[name] = self.counts.get(name, Planted()).plus(Planted(1, int(hit)))
