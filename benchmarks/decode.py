"""Which keys are read, and what is taken for one: ITU-T Q.24's corners, codecs, loss, speech; peers in the same run.

The worst corner is judged on the 95 % bound of keys missed, the other rows on the share. Peers hear fewer keys (they
are slower) of the same sound. --quick: 400 keys a condition instead of 4,000, an hour of speech instead of 28, goals
wider by the bound of so few.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import conditions as c
from benchmarks import material
from benchmarks.conditions import Batch, Condition
from benchmarks.peers import asterisk, multimon, pydtmf, spandsp
from benchmarks.table import RESULTS, Row, arguments, finish, upper_bound
from dsp import g711, keypad
from dsp.decoder import Decoder

N, QUICK = 4000, 400
SEED = 2000
PEER_KEYS = 160
CODED = (
    Condition("", 0.0, 0.0, -9.0, 0.0, 50, 60, 30.0),
    Condition("", 0.005, -0.005, -20.0, -4.0, 50, 60, 30.0),
    Condition("", -0.008, 0.008, -15.0, 3.0, 50, 60, 30.0),
    Condition("", 0.015, -0.015, -12.0, 0.0, 50, 60, 30.0),
)
"""Levels, twists and offsets of keys through codecs and under loss."""
PEERS: dict[str, Callable[[NDArray[np.int16]], str]] = {
    "spandsp": spandsp.decode,
    "multimon-ng": multimon.decode,
    "Asterisk's rules": asterisk.decode,
    "PyDTMF": pydtmf.decode,
}
WARPS = np.round(np.arange(0.70, 1.41, 0.0195), 4)
"""Speeds of the warped speech: 37 of 47 minutes make 28 hours."""


def ours(batch: Batch, lost: NDArray[np.bool_] | None = None) -> c.Score:
    """Our decoder, in packets of 20 ms as the engine feeds it."""
    return c.score(batch, c.hear(Decoder(len(batch.audio)), batch.audio, lost=lost))


def peers(condition: Condition, keys: int, seed: int) -> dict[str, c.Score]:
    """Every peer on one stream of `keys`; a key counts where its letter comes in order."""
    batch = c.batch(condition, keys, seed, streams=1)
    samples = g711.to_int16(batch.audio[0])
    true = "".join(keypad.KEYS[key] for key in batch.keys[0])
    return {name: _in_order(true, decode(samples)) for name, decode in PEERS.items()}


def _in_order(true: str, said: str) -> c.Score:
    """The longest common subsequence counts as read; what is said beyond it is extra."""
    heard, row = np.array(list(said), str), np.zeros(len(said) + 1, np.int64)
    for letter in true:
        best = np.concatenate([[0], np.where(heard == letter, row[:-1] + 1, row[1:])])
        row = np.maximum.accumulate(best)
    read = int(row[-1])
    return c.Score(len(true), len(true) - read, len(said) - read)


def corner(condition: Condition, index: int, quick: bool) -> tuple[c.Score, dict[str, c.Score]]:
    """One of Q.24's corners: ours on all keys, the peers on a few."""
    n = QUICK if quick else N
    return ours(c.batch(condition, n, SEED + index)), peers(condition, 16 if quick else PEER_KEYS, SEED + index)


def coded(line: str, quick: bool) -> tuple[c.Score, dict[str, c.Score]]:
    """Keys of 50 ms through a codec."""
    n, total = (QUICK if quick else N) // len(CODED), c.Score(0, 0, 0)
    others = {name: c.Score(0, 0, 0) for name in PEERS}
    for i, condition in enumerate(CODED):
        batch = c.batch(condition, n, SEED + 300 + i, streams=20)
        through = material.LINES[line](batch.audio.ravel()).reshape(batch.audio.shape)
        batch = replace(batch, audio=g711.decode(g711.encode(through, g711.PCMU), g711.PCMU))
        total = _sum(total, ours(batch))
        true = "".join(keypad.KEYS[key] for key in batch.keys[0])
        samples = g711.to_int16(batch.audio[0])
        others = {name: _sum(others[name], _in_order(true, decode(samples))) for name, decode in PEERS.items()}
    return total, others


def loss(quick: bool) -> c.Score:
    """Keys of 50 ms, 3 % of packets lost at random."""
    n, total = (QUICK if quick else 2 * N) // len(CODED), c.Score(0, 0, 0)
    for i, condition in enumerate(CODED):
        batch = c.batch(replace(condition, pause_ms=50, snr_db=28), n, SEED + 400 + i)
        lost = np.random.default_rng(SEED + 450 + i).random((len(batch.audio), batch.audio.shape[1] // 160 + 1)) < 0.03
        total = _sum(total, ours(batch, lost))
    return total


def _sum(a: c.Score, b: c.Score) -> c.Score:
    return c.Score(a.n + b.n, a.missed + b.missed, a.extra + b.extra)


def spoken(speed: float, noise_db: float | None) -> tuple[float, int]:
    """Keys read in the final speech at a speed, with noise so far below it: (hours, keys)."""
    from scipy.signal import resample_poly

    speech = np.concatenate(material.prompts(material.FINAL))
    if speed != 1:
        speech = resample_poly(speech, round(1000 / speed), 1000).astype(np.float32)
    if noise_db is not None:
        level = np.sqrt(np.mean(np.square(speech))) * 10 ** (-noise_db / 20)
        speech = speech + np.random.default_rng(SEED).normal(0, level, speech.shape).astype(np.float32)
    return _heard_in(speech)


def music() -> tuple[float, int]:
    """Keys read in hold music: (hours, keys)."""
    return _heard_in(np.concatenate(material.music()))


def _heard_in(audio: NDArray[np.float32]) -> tuple[float, int]:
    streams = 100
    whole = audio[: len(audio) // streams * streams].reshape(streams, -1)
    coded = g711.decode(g711.encode(whole, g711.PCMU), g711.PCMU)
    return whole.size / 8000 / 3600, len(c.hear(Decoder(streams), coded, (800,)))


def missing() -> list[str]:
    """Peers that are not installed."""
    found = [] if shutil.which("multimon-ng") and shutil.which("sox") else ["multimon-ng and sox"]
    try:
        spandsp.library()
    except OSError:
        found.append("libspandsp2")
    try:
        import PyDTMF  # noqa: F401
    except ImportError:
        found.append("PyDTMF")
    return found


def _percent(score: c.Score) -> float:
    return 100 * (1 - score.missed / score.n)


def _bound(score: c.Score) -> float:
    return 100 * (1 - upper_bound(score.missed / score.n, score.n))


def main() -> int:
    args = arguments(__doc__)
    quick: bool = args.quick
    for name in missing():
        print(f"{name} is not installed: make bench", file=sys.stderr)
        PEERS.pop({"multimon-ng and sox": "multimon-ng", "libspandsp2": "spandsp"}.get(name, name), None)
    slack = 100 * upper_bound(0, QUICK) if quick else 0.0
    accept, reject = c.accepted(), c.forbidden()
    if quick:
        accept, reject = accept[::2], reject[::4]
    lines = ["GSM-FR", "AMR 7.95", "AMR 12.2", "Opus 16k", "AMR 4.75"]
    noises = (None, 20.0) if quick else (None, 30.0, 20.0, 10.0)
    speeds = WARPS[::18] if quick else WARPS
    with ProcessPoolExecutor(2) as pool:
        talks = list(pool.map(partial(spoken, noise_db=None), speeds))
        plain = [pool.submit(spoken, 1.0, noise) for noise in noises]
        tune = pool.submit(music)
        through = {line: pool.submit(coded, line, quick) for line in lines}
        lost = pool.submit(loss, quick)
        scores = list(pool.map(partial(corner, quick=quick), accept, range(len(accept))))
        refused = list(pool.map(partial(corner, quick=quick), reject, range(100, 100 + len(reject))))
    mine = [score for score, _ in scores]
    worst = min(range(len(mine)), key=lambda i: _bound(mine[i]))
    rows = [
        Row(f"{len(accept)} corners of Q.24 (AT&T, NTT), mean, n={sum(s.n for s in mine)}", 99.95,
            float(np.mean([_percent(s) for s in mine])), "%", "higher"),
        Row(f"  the worst: {accept[worst].name}", 99.5 - slack, _bound(mine[worst]), "% bound", "higher"),
        Row("  extra keys", 0, sum(s.extra for s in mine), "keys", "lower"),
    ]  # fmt: skip
    for name in PEERS:
        shares = [_percent(others[name]) for _, others in scores]
        rows.append(Row(f"  peer: {name}, mean", 0, float(np.mean(shares)), "%", "higher", True))
        rows.append(Row(f"  peer: {name}, worst", 0, float(np.min(shares)), "%", "higher", True))
    taken = [s.n - s.missed + s.extra for s, _ in refused]
    what = f"{len(reject)} conditions of the forbidden region, n={sum(s.n for s, _ in refused)}: accepted"
    rows.append(Row(what, 0, sum(taken), "keys", "lower"))
    if sum(taken):
        rows.append(Row(f"  the worst: {reject[int(np.argmax(taken))].name}", 0, max(taken), "keys", "lower"))
    for name in PEERS:
        worst_peer = max(100 * min((o[name].n - o[name].missed + o[name].extra) / o[name].n, 1.0) for _, o in refused)
        rows.append(Row(f"  peer: {name}, accepted in its worst condition", 100, worst_peer, "%", "lower", True))
    for line in lines:
        score, others = through[line].result()
        goal = 95.0 if line == "AMR 4.75" else 99.5
        rows.append(Row(f"through {line}, 50 ms, n={score.n}", goal - slack, _percent(score), "%", "higher"))
        for name, theirs in others.items():
            rows.append(Row(f"  peer: {name}", 0, _percent(theirs), "%", "higher", True))
    score = lost.result()
    rows.append(Row(f"3 % loss, 50 ms, n={score.n}", 99.0 - slack, _percent(score), "%", "higher"))
    for noise, job in zip(noises, plain, strict=True):
        hours, keys = job.result()
        rows.append(Row(f"talk-off: {hours:.2f} h of prompts, noise {noise or 'none'}", 0, keys, "keys", "lower"))
    hours, keys = tune.result()
    rows.append(Row(f"talk-off: {hours:.2f} h of hold music", 0, keys, "keys", "lower"))
    hours, keys = sum(h for h, _ in talks), sum(k for _, k in talks)
    rows.append(Row(f"talk-off: prompts at {len(speeds)} speeds, {hours:.1f} h", 1, keys, "keys", "lower"))
    if not quick:
        _plot(accept, scores)
    return finish(rows, args.json)


def _plot(accept: list[Condition], scores: list[tuple[c.Score, dict[str, c.Score]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    for name in PEERS:
        axes.plot(np.sort([_percent(others[name]) for _, others in scores]), ".-", linewidth=0.8, label=name)
    axes.plot(np.sort([_percent(score) for score, _ in scores]), "k.-", label="flattone")
    axes.set_xlabel("conditions of Q.24 Annex A, each decoder's worst first")
    axes.set_ylabel("keys read, %")
    axes.legend(fontsize=8)
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "decode.png", dpi=80)


if __name__ == "__main__":
    sys.exit(main())
