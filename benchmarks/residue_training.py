"""Makes the weights of the scanner's detectors: python -m benchmarks.residue_training [NAME…].

The networks learn from synthetic keys and pieces of keys in many surroundings, through G.711, MP3, Opus and GSM; from
recorded speech at many speeds and levels, music, tones of the telephone network, and from what our own mask leaves.
The thresholds come from voices that the weights behind them have not heard: a network is trained without each voice
in turn and judges it. `benchmarks.scan` then tests with other voices, other seeds and other music.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from benchmarks import material
from dsp import g711, synth
from dsp.network import Events, Network
from mediaproxy import offline
from mediaproxy.media import modes
from mediaproxy.scan import detectors, weights

Audio = NDArray[np.float32]
Features = NDArray[np.float64]

SPEEDS: Final = (0.68, 0.74, 0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.25)
FLAT_HZ: Final = 540.0
HIDDEN: Final = (48, 24)
PIECES, KEYS = 160, 480
"""Jobs of positive examples for each network."""
ALARMS_AN_HOUR: Final = {"residue": 0.1, "wholekey": 0.05, "wholekey-band": 0.05}
"""On unheard voices; where examples lie well above the false alarms, the threshold is in the middle between them."""
MISSED: Final = 0.0005
"""Share of the plain examples that may lie below that middle's upper end."""
CODECS: Final[dict[str, Callable[[Audio], Audio]]] = {
    "none": lambda audio: audio,
    "µ-law": lambda audio: g711.decode(g711.encode(audio, g711.PCMU), g711.PCMU),
    "A-law": lambda audio: g711.decode(g711.encode(audio, g711.PCMA), g711.PCMA),
    "MP3": material.mp3,
    "Opus": material.LINES["Opus 12k"],
    "GSM": material.gsm,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """Features of events; group: the voice they are of, of examples "" or "talk" where somebody speaks over them;
    hours of audio."""

    group: str
    features: Features
    hours: float


def _piece(rng: np.random.Generator, voice: Audio) -> tuple[Audio, int, int]:
    """Half a second with a piece of a key in it, and where: in noise, beside a flat tone, or in speech."""
    level, ms = rng.uniform(-38, -5), float(np.exp(rng.uniform(np.log(2.6), np.log(40))))
    noise = min(rng.uniform(-75, -45), level - 15)
    press = synth.Press(
        int(rng.integers(16)), ms, level, rng.uniform(-8, 6), rng.uniform(-0.018, 0.018), rng.uniform(-0.018, 0.018)
    )
    where = rng.choice(["plain", "noise", "before", "after", "between", "speech"])
    if where == "plain":
        press, noise = synth.Press(press.key, rng.choice([3.0, 5.0]), -20.0), -50.0
    tone = synth.tone_pair(press, phases=(rng.uniform(0, 6.28), rng.uniform(0, 6.28)))
    audio = np.zeros(4000)
    start = int(rng.integers(1500, 2500))
    end = start + len(tone)
    flat = rng.uniform(-30, -10)
    if where in ("before", "between"):
        size = int(rng.integers(300, 800))
        audio[start - size : start] = _tone(size, flat, rng)
    if where in ("after", "between"):
        size = int(rng.integers(300, 800))
        audio[end : end + size] = _tone(size, flat, rng)
    if where == "speech":
        at = int(rng.integers(len(voice) - len(audio)))
        audio += voice[at : at + len(audio)] * g711.amplitude(level + rng.uniform(-25, -6)) / np.sqrt(2)
    audio[start:end] += tone
    if where != "between" or rng.random() < 0.7:
        audio += rng.normal(0, g711.amplitude(noise) / np.sqrt(2), len(audio))
    return audio.astype(np.float32), start, end


def _tone(size: int, level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    hz = FLAT_HZ if rng.random() < 0.7 else rng.uniform(300, 1000)
    return np.asarray(g711.amplitude(level) * np.sin(2 * np.pi * hz * np.arange(size) / 8000 + rng.uniform(0, 6.28)))


def pieces(seed: int) -> Heard:
    """The events that pieces of keys make."""
    rng, voice = np.random.default_rng(seed), material.speech(material.TUNE)
    codec = CODECS[rng.choice(list(CODECS), p=[0.2, 0.35, 0.25, 0.08, 0.06, 0.06])]
    made = [_piece(rng, voice) for _ in range(60)]
    audio = codec(np.concatenate([audio for audio, _, _ in made]))
    marks = [(4000 * i + start, 4000 * i + end) for i, (_, start, end) in enumerate(made)]
    return Heard("", _on(marks, detectors.EVENTS["residue"](audio)), 0.0)


def keys(seed: int) -> dict[str, Heard]:
    """The events that whole keys make, for each network that looks for them."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-36, -4) if rng.random() < 0.6 else rng.uniform(-37, -33)
    presses = [
        synth.Press(int(rng.integers(16)), float(rng.choice([40, 40, rng.uniform(40, 150)])), level,
                    rng.uniform(-8, 6), rng.uniform(-0.018, 0.018), rng.uniform(-0.018, 0.018))
        for _ in range(60)
    ]  # fmt: skip
    audio, marks = synth.keying(presses, rng, (40, 140), noise_dbm0=level - rng.uniform(15, 40))
    talk = rng.random() < 0.4
    if talk:
        voice = material.speech(material.TUNE)
        at = int(rng.integers(len(voice) - len(audio)))
        audio += voice[at : at + len(audio)] * np.float32(g711.amplitude(level - rng.uniform(0, 20)) / np.sqrt(2))
    audio = CODECS[rng.choice(list(CODECS), p=[0.1, 0.1, 0.1, 0.1, 0.1, 0.5])](audio)
    places = [(int(a), int(b)) for a, b in marks]
    return {
        name: Heard("talk" if talk else "", _on(places, detectors.EVENTS[name](audio)), 0.0) for name in detectors.WHOLE
    }


def _on(marks: Sequence[tuple[int, int]], events: Events) -> Features:
    """Of each mark, the longest event on it."""
    rows = []
    for first, last in marks:
        on = np.flatnonzero((events.start < last + 8) & (events.end > first - 8))
        if on.size:
            rows.append(on[np.argmax(np.minimum(events.end[on], last) - np.maximum(events.start[on], first))])
    return events.features[rows]


def sounds(job: tuple[str, float]) -> dict[str, Heard]:
    """The events of each kind in a voice at a speed, or in other sound that holds no key."""
    voice, speed = job
    rng = np.random.default_rng(int(speed * 1000))
    if voice == "music":
        parts = [audio[: len(audio) // 2] for audio in material.music()]
    elif voice == "masked":
        parts = [_masked(rng) for _ in range(40)]
    elif voice == "synthetic":
        parts = [synth.speechlike(10, rng, rng.uniform(-30, -12)) for _ in range(60)]
    elif voice == "substituted":
        parts = [_armed(rng) for _ in range(60)]
    elif voice == "clicks":
        parts = [_clicks(rng) for _ in range(60)]
    else:
        parts = [audio for audio in material.prompts((voice,)) if len(audio) > 1000]
    found: dict[str, list[Features]] = {name: [] for name in detectors.EVENTS}
    seconds = 0.0
    for part in parts:
        audio = resample(part, int(len(part) / speed)).astype(np.float32) if speed != 1 else part
        audio = audio * np.float32(10 ** (rng.uniform(-15, 3) / 20))
        audio = CODECS["A-law" if rng.random() < 0.3 else "µ-law"](audio)
        for name, events in detectors.EVENTS.items():
            found[name].append(events(audio).features)
        seconds += len(audio) / 8000
    coded = CODECS[str(rng.choice(["MP3", "Opus", "GSM"]))](np.concatenate(parts[:: max(1, len(parts) // 200)]))
    for name, events in detectors.EVENTS.items():
        found[name].append(events(coded).features)
    hours = (seconds + len(coded) / 8000) / 3600
    return {name: Heard(voice, np.concatenate(parts), hours) for name, parts in found.items()}


def _masked(rng: np.random.Generator) -> Audio:
    """What our own mask leaves of a card number, in any mode that masks."""
    presses = [
        synth.Press(int(rng.integers(16)), rng.uniform(40, 200), rng.uniform(-25, -5), rng.uniform(-8, 4))
        for _ in range(20)
    ]
    audio, _ = synth.keying(presses, rng, (60, 300), noise_dbm0=rng.uniform(-70, -50))
    mode = modes.parse(str(rng.choice(["guarded", "armed"])))
    return g711.decode(offline.mask(g711.encode(audio, g711.PCMU), mode).octets, g711.PCMU)


def _armed(rng: np.random.Generator) -> Audio:
    """Speech as an armed leg gives it on."""
    voice = material.speech(material.TUNE)
    at = int(rng.integers(len(voice) - 80_000))
    speech = voice[at : at + 80_000] * np.float32(g711.amplitude(rng.uniform(-30, -12)) / np.sqrt(2))
    speech = speech if rng.random() < 0.6 else synth.speechlike(10, rng, rng.uniform(-30, -12))
    return g711.decode(offline.mask(g711.encode(speech, g711.PCMU), modes.parse("armed")).octets, g711.PCMU)


def _clicks(rng: np.random.Generator) -> Audio:
    """What is as short and abrupt as a piece of a key: damped resonances, and speech of which only scraps are left."""
    audio = rng.normal(0, g711.amplitude(rng.uniform(-75, -45)) / np.sqrt(2), 40_000)
    voice = material.speech(material.TUNE)
    for at in range(400, len(audio) - 400, 200):
        level = g711.amplitude(rng.uniform(-40, -3))
        if rng.random() < 0.5:
            t = np.arange(160) / 8000
            tones = [
                np.sin(2 * np.pi * rng.uniform(200, 3400) * t + rng.uniform(0, 6.28)) for _ in range(rng.integers(1, 4))
            ]
            piece = sum(tones) * np.exp(-t / rng.uniform(0.0002, 0.004)) * (1 - np.exp(-t / rng.uniform(1e-5, 5e-4)))
        else:
            size, start = int(rng.integers(16, 120)), int(rng.integers(len(voice) - 200))
            piece = voice[start : start + size] / np.sqrt(2)
        audio[at : at + len(piece)] += level * piece
    return audio.astype(np.float32)


def train(examples: list[Heard], negative: list[Heard], alarms: float) -> dict[str, Any]:
    """The arrays of a network's file."""
    positive = np.concatenate([one.features for one in examples])
    voices = sorted({heard.group for heard in negative if heard.hours > 0.5})
    scores, hours = [], 0.0
    for voice in voices:
        network = _fit(positive, [heard for heard in negative if heard.group != voice])
        unheard = [heard for heard in negative if heard.group == voice]
        scores += [_score(network, heard.features) for heard in unheard]
        hours += sum(heard.hours for heard in unheard)
    ranked = np.sort(np.concatenate(scores))[::-1]
    threshold = float(ranked[round(alarms * hours)])
    network = _fit(positive, negative)
    plain = _score(network, np.concatenate([one.features for one in examples if not one.group]))
    threshold = max(threshold, (threshold + float(np.quantile(plain, MISSED))) / 2)
    share = float((_score(network, positive) > threshold).mean())
    print(f"{hours:.1f} h of voices unheard; threshold {threshold:.2f}; {share:.1%} of the examples above it")
    return network | {"threshold": np.float64(threshold)}


def _fit(positive: Features, negative: list[Heard]) -> dict[str, Any]:
    bad = np.concatenate([heard.features for heard in negative if len(heard.features)])
    x = np.concatenate([positive, bad])
    y = np.r_[np.ones(len(positive)), np.zeros(len(bad))]
    middle, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    model = MLPClassifier(HIDDEN, alpha=1e-2, batch_size=256, max_iter=60, random_state=7, n_iter_no_change=60)
    model.fit(np.clip((x - middle) / scale, -6, 6), y)
    arrays: dict[str, Any] = {"middle": middle, "scale": scale, "layers": np.int64(len(model.coefs_))}
    for number, (coefficients, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        arrays |= {f"weights{number}": coefficients.astype(np.float32), f"bias{number}": bias.astype(np.float32)}
    return arrays


def _score(arrays: dict[str, Any], features: Features) -> Features:
    return Network(arrays | {"threshold": 0.0}).score(features)


def main() -> int:
    """Train them, or those that are named, and write them to their folder."""
    import warnings

    warnings.simplefilter("ignore", ConvergenceWarning)
    jobs = [(voice, speed) for voice in material.TUNE for speed in SPEEDS]
    jobs += [
        ("music", 1.0),
        *((name, 1 + i / 1000) for name in ("masked", "clicks", "synthetic", "substituted") for i in range(4)),
    ]
    wanted = sys.argv[1:] or list(detectors.EVENTS)
    with ProcessPoolExecutor() as pool:
        whole = list(pool.map(keys, range(KEYS)))
        positive = {name: [one[name] for one in whole] for name in detectors.WHOLE}
        positive["residue"] = list(pool.map(pieces, range(PIECES)))
        heard = list(pool.map(sounds, jobs))
    for name in wanted:
        print(name)
        arrays = train(positive[name], [one[name] for one in heard], ALARMS_AN_HOUR[name])
        np.savez(weights.FOLDER / f"{name}.npz", **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
