"""What an attacker recovers behind the mask, what the mask takes from speech, and how often the guard errs.

Recovery is the share of digits named, judged on the upper end of its 95 % interval: of the better of two attackers (a
matched filter and a trained forest), and of the same on the 1 % of keys of which they are surest. Chance is 10 %. The
controls show that both can read at all; when one fails, the table is void. --quick: 300 keys a row instead of
20,000, and every goal wider by what so few may show by chance in one of eighty rows.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import speech_cost
from benchmarks.material import Condition, Keying, keying
from benchmarks.table import RESULTS, Row, arguments, finish, upper_bound
from dsp import g711
from dsp.mask import FLAT_DBM0, FLAT_HZ
from mediaproxy import offline
from mediaproxy.media.modes import Mode
from mediaproxy.offline import Network
from tests.attacker import card, trained
from tests.attacker.trained import Named, Scene

TRAIN, TEST = 8000, 20000
QUICK = 300
SEED = 1000
CHANCE = 0.1
LONE = (300.0, 400.0)
"""Pauses, ms, after which no flat tone of the key before runs on: it lasts 240 from the key's onset."""
PUBLISHED = 8000
"""Keys of a row that has no goal."""
TALKER = (-18.0, -14.0)
"""Levels of keys under speech, dBm0: both fit into G.711 up to speech 6 dB over the pair."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table. goal: %, None for a figure that is only published. lone: every key meets the gate alone, as
    the first key of a call does: no substitution, and pauses that outlast the flat tone of the key before; later: only
    keys after the first confirmed one count."""

    name: str
    condition: Condition
    goal: float | None = 12.0
    mode: Mode = Mode.GUARDED
    codec: str = "pcmu"
    ptime: int = 20
    network: Network = field(default_factory=Network)
    lone: bool = False
    later: bool = False
    clean: bool = False
    """Whether not a sample of original tone may be left."""


def cases() -> list[Case]:
    """Every condition of the table."""
    base = Condition(snr=15)
    apart = replace(base, pause=LONE)
    found = [
        Case("SNR 15 dB", base, 10.8),
        Case("SNR 15 dB, lone keys", apart, 10.8, lone=True, clean=True),
        Case("SNR 12 dB", Condition(snr=12)),
        Case("SNR 9 dB", Condition(snr=9)),
        Case("20-35 ms", Condition(snr=15, ms=(20, 35))),
        Case("3.5 % off", Condition(snr=15, offset=0.035)),
        Case("twist -9..+9 dB", Condition(snr=15, twist=(-9, 9))),
        Case("clipped 6 dB under the peak", Condition(snr=15, clip=6)),
        Case("hum of 50-60 Hz as strong as the pair", Condition(snr=15, hum=0)),
        Case("-60..-25 dBm0 over noise 15 dB below", Condition(snr=15, level=(-60, -25))),
        Case("PCMA", base, codec="pcma"),
    ]
    found += [Case(f"packets of {ptime} ms", base, ptime=ptime) for ptime in (10, 30, 40, 60)]
    lines = ("GSM-FR", "AMR 4.75", "AMR 7.95", "AMR 12.2", "Opus 12k", "Opus 24k")
    found += [Case(f"through {line}", Condition(line=line)) for line in lines]
    found += [
        Case(f"through {line}, lone keys", Condition(line=line, pause=LONE), None, lone=True)
        for line in ("GSM-FR", "AMR 4.75")
    ]
    hard = {
        "SNR 9 dB": Condition(snr=9, pause=LONE),
        "20-35 ms": replace(apart, ms=(20, 35)),
        "clipped 6 dB under the peak": replace(apart, clip=6),
    }
    found += [Case(f"{name}, lone keys", condition, None, lone=True) for name, condition in hard.items()]
    for talk in (-10, -6, 0):
        spoken = Condition(level=TALKER, talk=talk)
        found.append(Case(f"speech {talk:+d} dB, lone keys", replace(spoken, pause=LONE), None, lone=True))
        found.append(Case(f"speech {talk:+d} dB, later keys", spoken, 11.0, later=True))
    found += [
        Case(f"speech {talk:+d} dB", Condition(level=TALKER, talk=talk), 11.0, Mode.ARMED)
        for talk in (-20, -10, -6, 0, 6)
    ]
    networks = {
        "1 % loss": Network(0.01, 1, 1),
        "5 % loss": Network(0.05, 1, 2),
        "20 % loss": Network(0.2, 1, 3),
        "5 % loss in bursts of 4": Network(0.05, 4, 4),
        "20 % loss in bursts of 4": Network(0.2, 4, 5),
        "5 % late, 5 % twice, clock jumps": Network(0.01, 1, 6, late=0.05, twice=0.05, jump=0.02),
    }
    for name, network in networks.items():
        found.append(Case(f"{name}, lone keys", apart, 11.0, network=network, lone=True, clean=True))
    found.append(Case("5 % loss in bursts of 4", base, 11.0, Mode.ARMED, network=networks["5 % loss in bursts of 4"]))
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one case: shares named behind the mask (best attacker; of the surest 1 %), with the whole signal in hand, the
    rank of true cards; how much original tone was left."""

    named: float
    surest: float
    keys: int
    unmasked: float
    rank: float
    left_ms: float
    left_keys: int


def heard(case: Case, source: Keying) -> tuple[Scene, Scene, NDArray[np.bool_]]:
    """What the agent hears of `source`, what came in at the same times, and which keys count, bool[n, k]."""
    codec = g711.PCMU if case.codec == "pcmu" else g711.PCMA
    sent = g711.encode(source.audio, codec)
    result = offline.mask_many(sent, case.mode, case.codec, case.ptime, case.network, substitution=not case.lone)
    delay = result.octets.shape[1] - sent.shape[1]
    silence = np.full((len(sent), delay), g711.SILENCE[codec], np.uint8)
    struck = trained.flat_or_silent(result.octets, FLAT_HZ, FLAT_DBM0, codec)
    marks = source.marks + delay
    counts = np.ones(source.keys.shape, np.bool_)
    if case.later:
        counts = (result.first[:, None] >= 0) & (source.marks[..., 0] > result.first[:, None])
    open_ = np.concatenate([silence, sent], axis=1)
    return (
        Scene(result.octets, marks, source.keys, struck),
        Scene(open_, marks, source.keys, np.zeros_like(struck)),
        counts,
    )


def left_over(masked: Scene, open_: Scene) -> tuple[float, int]:
    """Original tone left: ms in all, and in how many keys (runs of four octets or more as they came).

    Without substitution, which would change the octets of what it lets through.
    """
    same = (masked.octets == open_.octets) & ~masked.struck
    samples, keys = 0, 0
    for row, marks in enumerate(masked.marks):
        for start, end in marks:
            piece = same[row, start:end]
            runs = piece[:-3] & piece[1:-2] & piece[2:-1] & piece[3:]
            samples += int(runs.sum())
            keys += bool(runs.any())
    return samples / 8, keys


def attack(case: Case, index: int, quick: bool) -> Outcome:
    """Key, mask, attack."""
    train, test = (QUICK, QUICK) if quick else (TRAIN, PUBLISHED if case.goal is None else TEST)
    streams = 20 if quick else 100
    codec = g711.PCMU if case.codec == "pcmu" else g711.PCMA
    taught, _, taught_counts = heard(case, keying(case.condition, train, SEED + 2 * index, streams))
    masked, open_, counts = heard(case, keying(case.condition, test, SEED + 2 * index + 1, streams))
    by_fit, by_forest = (
        trained.matched(masked, codec),
        trained.forest(taught, masked, trees=40 if quick else 120, codec=codec, use=taught_counts),
    )
    few = slice(0, max(len(open_.octets) // 10, 1))
    part = Scene(open_.octets[few], open_.marks[few], open_.digits[few], open_.struck[few])
    chosen = counts.ravel()
    said = [Named(named.digits[chosen], named.odds[chosen]) for named in (by_fit, by_forest)]
    left_ms, left_keys = left_over(masked, open_) if case.clean else (0.0, 0)
    return Outcome(
        max(named.share for named in said),
        max(named.surest for named in said),
        int(chosen.sum()),
        trained.matched(part, codec).share,
        float(np.median(card.ranks(said[1], 20 if quick else 100))),
        left_ms,
        left_keys,
    )


def controls(quick: bool) -> list[Row]:
    """Shares named by both attackers with all of the keys in hand, with 2 ms of each (30 dB SNR), and under speech."""
    rows = []
    n = 1000 if quick else 4000
    for what, condition, samples, goal in (
        ("unmasked", Condition(snr=30), 0, 99.0),
        ("from 2 ms of tone", Condition(snr=30), 16, 95.0),
        ("unmasked, speech +0 dB over it", Condition(level=TALKER, talk=0), 0, 95.0),
    ):
        scenes = []
        for seed in (1990, 1991):
            _, open_, _ = heard(Case("", condition), keying(condition, n, seed, 20))
            scenes.append(trained.only(open_, open_.octets, samples) if samples else open_)
        named = {"filter": trained.matched(scenes[1]), "forest": trained.forest(scenes[0], scenes[1], trees=60)}
        rows += [Row(f"control: {who}, {what}", goal, 100 * said.share, "%", "higher") for who, said in named.items()]
    return rows


def rows_of(case: Case, outcome: Outcome, quick: bool) -> list[Row]:
    """The table's rows for one case."""
    mode = "armed" if case.mode == Mode.ARMED else "guarded"
    bound = 100 * upper_bound(outcome.named, outcome.keys)
    spread = 3.2 * float(np.sqrt(CHANCE * (1 - CHANCE) / max(outcome.keys, 1)))
    slack = 100 * (upper_bound(CHANCE + spread, outcome.keys) - upper_bound(CHANCE, TEST)) if quick else 0.0
    top = max(outcome.keys // 100, 10)
    what = (
        f"{mode}, {case.name}: {100 * outcome.named:.1f} % of {outcome.keys} named [open: {100 * outcome.unmasked:.1f}]"
    )
    if case.goal is None:
        return [Row(what, 100.0, bound, "% bound", "lower", published=True)]
    surest = 20.0 + (100 * 4 * float(np.sqrt(0.09 / top)) if quick else 0.0)
    rows = [
        Row(what, case.goal + slack, bound, "% bound", "lower"),
        Row(f"  of the surest {top}", surest, 100 * outcome.surest, "%", "lower"),
    ]
    if case.clean:
        rows.append(Row(f"  original tone left, in {outcome.left_keys} keys", 0.0, outcome.left_ms, "ms", "lower"))
    if case.name == "SNR 15 dB":
        rows.append(
            Row("  whole cards (BIN, last four, Luhn known): median rank", 35.0, 100 * outcome.rank, "%", "higher")
        )
    return rows


def main() -> int:
    args = arguments(__doc__, only=True)
    quick: bool = args.quick
    chosen = [(i, c) for i, c in enumerate(cases()) if (args.only or "") in f"{c.mode.name.lower()}, {c.name}"]
    seeds, table = [i for i, _ in chosen], [case for _, case in chosen]
    with ProcessPoolExecutor(2) as pool:
        # What takes longest first, so that neither process ends up with it alone.
        control = pool.submit(controls, quick)
        costs = [] if args.only else [pool.submit(job, quick) for job in speech_cost.JOBS]
        order = sorted(range(len(table)), key=lambda i: -_weight(table[i]))
        jobs = {i: pool.submit(partial(attack, table[i], seeds[i], quick)) for i in order}
        rows = control.result()
        outcomes = [jobs[i].result() for i in range(len(table))]
        void = not all(row.ok for row in rows)
        for case, outcome in zip(table, outcomes, strict=True):
            rows += rows_of(case, outcome, quick)
        for cost in costs:
            rows += cost.result()
    if void:
        print("A control failed: the attackers cannot read, and what follows means nothing.")
    code = finish(rows, args.json)
    if not quick and not args.only:
        _plot(table, outcomes, RESULTS / "masking.png")
    return 1 if void else code


def _weight(case: Case) -> float:
    return 3.0 if case.condition.line.startswith("Opus") else 2.0 if case.condition.line else 1.0


def _plot(table: list[Case], outcomes: list[Outcome], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.27 * len(table) + 1.2))
    place = np.arange(len(table))[::-1]
    named = np.array([100 * outcome.named for outcome in outcomes])
    bound = np.array([100 * upper_bound(outcome.named, outcome.keys) for outcome in outcomes])
    goals = np.array([np.nan if case.goal is None else case.goal for case in table])
    axes.barh(place, np.minimum(named, 60), color=["#2a7" if case.mode == Mode.ARMED else "#37a" for case in table])
    axes.errorbar(np.minimum(named, 60), place, xerr=[0 * named, bound - named], fmt="none", ecolor="black", capsize=2)
    axes.plot(goals, place, "r|", markersize=11, label="goal")
    axes.axvline(10, color="grey", linewidth=0.8, label="chance")
    axes.set_yticks(
        place, [f"{'armed' if case.mode == Mode.ARMED else 'guarded'}, {case.name}" for case in table], fontsize=7
    )
    axes.set_xlabel("digits named by the better attacker, %, with the upper end of the 95 % interval")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
