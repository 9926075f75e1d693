"""A call of nobody's before the first real one: what Python loads at first use is loaded while it still can be.

With no descriptors left, the import that numpy puts off until the first packet fails, and with it the call.
"""

from __future__ import annotations

import struct

import numpy as np

from dsp import g711, synth
from mediaproxy.config import PeerConfig
from mediaproxy.media.codec.coded import CODED
from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows


def rehearse(peers: tuple[PeerConfig, ...] = ()) -> None:
    """Send speech, keys, an event and gaps through an engine in every mode; load what browsers and coded legs need
    where there are any: a worker without is back sooner."""
    if any(peer.registered or peer.srtp == "dtls" for peer in peers):
        from mediaproxy.media import dtls, ice

        dtls.Certificate()
        ice.Ice("", "")
    if any(peer.registered or peer.srtp == "dtls" or {"opus", "g722"} & set(peer.codecs) for peer in peers):
        for coded in CODED.values():
            coded.encoder({})
            coded.decoder()
    rng = np.random.default_rng(0)
    keys, _ = synth.keying([synth.Press(key, 80) for key in (0, 7)], rng, (80, 80), 100, -60)
    octets = g711.encode(np.concatenate([synth.speechlike(0.3, rng), keys]), g711.PCMU).tobytes()
    formats = {0: "PCMU/8000", 13: "CN/8000", 101: "telephone-event/8000"}
    rows = Rows()
    for mode in Mode:
        engine = Engine(2)
        engine.open(0, 1, mode, lambda: 1, recorded=False, now=0.0)
        for slot in (0, 1):
            engine.update(slot, formats, {encoding: pt for pt, encoding in formats.items()}, 20)
        for i in range(len(octets) // 160):
            parts = [(0, octets[160 * i : 160 * i + 160], 160 * i)] if i % 20 else []
            parts += [(101, b"\5\x0a\1\x40", 160 * i), (13, b"\x40", 160 * i)] if i == 15 else []
            rows.count = 0
            for payload_type, payload, timestamp in parts:
                for slot in (0, 1):
                    rows.put(slot, struct.pack("!BBHII", 0x80, payload_type, i, timestamp, 5) + payload)
            engine.process(rows, 0.2 * i)
            rows.wipe()
            engine.out.wipe()
