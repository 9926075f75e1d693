"""What an attacker recovers behind the guarded mask, with the controls that show that he can read at all.

The goals are the first release's (<= 15 %); a row without valid controls is void and fails.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad, synth
from dsp.mask import FLAT_DBM0, FLAT_HZ
from mediaproxy import offline
from mediaproxy.demo import attacker

STREAMS = 10
CASES = {
    "clear line, noise -55 dBm0": (-55.0, None),
    "noise -40 dBm0": (-40.0, None),
    "1 % loss": (-55.0, offline.Loss(0.01, 1.0, 1)),
    "5 % loss in bursts of 3": (-55.0, offline.Loss(0.05, 3.0, 2)),
    "20 % loss": (-55.0, offline.Loss(0.2, 1.0, 3)),
}


def measure(keys: int, noise: float, loss: offline.Loss | None, seed: int) -> attacker.Verdict:
    """One case: `keys` digits over STREAMS streams, -25..-6 dBm0, twist -8..+6 dB, +-1.8 %, 40-120 ms."""
    rng = np.random.default_rng(seed)
    each = keys // STREAMS
    floor = noise + 15.0  # the promise is for tones 15 dB over the noise
    digits, streams, marks = [], [], []
    for _ in range(STREAMS):
        chosen = rng.integers(0, 10, each)
        presses = [
            synth.Press(
                keypad.KEYS.index(str(digit)), rng.uniform(40, 120), rng.uniform(max(-25.0, floor + 8), -6),
                rng.uniform(-8, 6), rng.uniform(-0.018, 0.018), rng.uniform(-0.018, 0.018),
            )
            for digit in chosen
        ]  # fmt: skip
        audio, where = synth.keying(presses, rng, noise_dbm0=noise)
        digits.append(chosen)
        streams.append(g711.encode(audio, g711.PCMU))
        marks.append(where)
    sent = np.full((STREAMS, max(map(len, streams))), g711.SILENCE[g711.PCMU], np.uint8)
    for row, stream in zip(sent, streams, strict=True):
        row[: len(stream)] = stream
    heard = offline.mask_many(sent, loss=loss).octets
    flat = (FLAT_HZ, FLAT_DBM0)
    verdicts = [attacker.attack(sent[i], heard[i], digits[i], marks[i], 64, flat) for i in range(STREAMS)]
    shares = [float(np.mean([getattr(v, name) for v in verdicts])) for name in ("masked", "unmasked", "residue")]
    return attacker.Verdict(shares[0], shares[1], shares[2], each * STREAMS)


def main() -> int:
    args = arguments(__doc__)
    keys = 1000 if args.quick else 20000
    rows: list[Row] = []
    for seed, (name, (noise, loss)) in enumerate(CASES.items()):
        verdict = measure(keys, noise, loss, 100 + seed)
        rows.append(Row(f"recovery, guarded, {name}, n={verdict.keys}", 15.0, 100 * verdict.masked, "%", "lower"))
        rows.append(Row("  control: unmasked", 99.0, 100 * verdict.unmasked, "%", "higher"))
        rows.append(Row("  control: 2 ms of tone left", 95.0, 100 * verdict.residue, "%", "higher"))
    return finish(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
