"""The `flattone` command. Exit codes: 0 fine, 1 found something or failed, 2 wrong use or unreadable input."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process is faster for small matrices


def shadowed() -> str:
    """The name of a package of ours that another distribution's files stand in front of, or nothing."""
    import dsp
    import mediaproxy
    import sip

    home = Path(mediaproxy.__file__ or "").parent.parent
    for package in (dsp, sip):
        if package.__file__ is None or Path(package.__file__).parent.parent != home:
            return package.__name__
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flattone", description="A real-time media proxy that keeps keyed card numbers from agents and recordings."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="place two calls on this machine and show what the agent sees and hears")
    demo.add_argument(
        "--keep", action="store_true", help="leave flattone running and print the address of the agent page"
    )
    demo.add_argument("--out", default="flattone-demo", metavar="DIR", help="where recording and picture go")

    serve = commands.add_parser("serve", help="run the proxy")
    serve.add_argument("--config", required=True, metavar="FILE", help="TOML; see deploy/example.toml")

    check = commands.add_parser("check-config", help="check a configuration without starting anything")
    check.add_argument("config", metavar="FILE")

    mask = commands.add_parser(
        "mask", help="send a recording through a leg and write what the agent would hear",
        description="Reads mono 8 kHz PCM WAV, writes 16-bit WAV delayed by exactly delay_ms, prints one line of JSON.",
    )  # fmt: skip
    mask.add_argument("input", metavar="IN")
    mask.add_argument("output", metavar="OUT")
    mask.add_argument("--mode", choices=("guarded", "armed", "passthrough"), default="guarded")
    mask.add_argument("--codec", choices=("pcmu", "pcma"), default="pcmu")
    mask.add_argument(
        "--ptime", type=int, choices=(10, 20, 30, 40, 60), default=20, metavar="MS", help="10, 20, 30, 40 or 60"
    )
    mask.add_argument("--loss", type=float, default=0.0, metavar="SHARE", help="share of packets lost, 0 to 0.9")
    mask.add_argument("--burst", type=float, default=1.0, metavar="PACKETS", help="mean length of a loss")
    mask.add_argument("--seed", type=int, default=0)

    _scan_options(commands.add_parser(
        "scan", help="look for keys and residues of keys in recordings",
        description="Looks through WAV (PCM, µ-law, A-law, GSM), MP3, Opus, AAC, FLAC and packet captures, by content, "
        "for whole keys, residues of keys and telephone-events. Tells where and how strong, never which. Exit code 0: "
        "all clean. 1: something found. 2: something unreadable, or wrong use.",
    ))  # fmt: skip

    verify = commands.add_parser(
        "verify", help="check recordings, audit logs and scan reports against what was written",
        description="Checks recordings with their manifests and journal, audit logs, and reports of scans. "
        "Exit code 0: all as it was written. 1: something altered or missing. 2: something unreadable.",
    )  # fmt: skip
    verify.add_argument(
        "paths", nargs="+", metavar="PATH", help="recordings, manifests, audit logs, reports, or folders of them"
    )
    verify.add_argument(
        "--anchors", action="append", default=[], metavar="FILE",
        help="a log of syslog's that has kept the ends of audit logs and journals",
    )  # fmt: skip
    verify.add_argument(
        "--key",
        default="",
        metavar="FILE",
        help="PEM file of the public key that manifests and reports must be signed with",
    )
    verify.add_argument("--quiet", action="store_true", help="say nothing of what is fine")
    verify.add_argument("--files", action="store_true", help="of reports: check also the files that were scanned")

    trace = commands.add_parser(
        "trace", help="watch a call's SIP messages as they pass",
        description="Trunk to the left, agent to the right. Shows messages by allow-list: no bodies but SDP, no keys "
        "of SRTP, no credentials. Ends with Ctrl-C; exit code 1 where nothing was seen.",
    )  # fmt: skip
    trace.add_argument(
        "whom",
        metavar="CALL",
        help='a call id, a SIP Call-ID, a number, or "*" for every call',
    )
    place = trace.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", metavar="FILE", help="the configuration that names trace.socket")
    place.add_argument("--socket", metavar="PATH", help="the socket itself")
    trace.add_argument("--full", action="store_true", help="print whole messages")
    trace.add_argument("--text", default="", metavar="FILE", help="write whole messages there")
    trace.add_argument("--pcap", default="", metavar="FILE", help="write a capture file there, all of it as UDP")
    trace.add_argument("--seconds", type=float, default=0.0, metavar="S", help="stop after so long")

    commands.add_parser("version", help="print the version")
    return parser


def _scan_options(scan: argparse.ArgumentParser) -> None:
    scan.add_argument(
        "paths", nargs="+", metavar="PATH", help='files, folders, globs, or URLs of fsspec like "s3://bucket/2026/**"'
    )
    scan.add_argument("--workers", type=_count, default=0, metavar="N", help="processes; default: one a core")
    scan.add_argument(
        "--state", default="", metavar="FILE", help="keeps what was done; named again, goes on from there"
    )
    scan.add_argument("--json", action="store_true", help="print JSON instead of text")
    scan.add_argument("--quiet", action="store_true", help="no progress bar, no lines of clean files")
    scan.add_argument(
        "--no-plant", action="store_true", help="do not measure detection by planting known keys in copies"
    )
    told = scan.add_argument_group("report")
    told.add_argument("--report", default="", metavar="DIR", help="write report.html, .json, .csv and incidents.json")
    told.add_argument(
        "--sign", default="", metavar="KEY",
        help="Ed25519 private key in PEM (openssl genpkey -algorithm ed25519) that signs the report",
    )  # fmt: skip
    part = scan.add_argument_group("sampling, of archives nobody can scan whole")
    size = part.add_mutually_exclusive_group()
    size.add_argument("--sample", type=_count, default=0, metavar="N", help="scan so many files")
    size.add_argument(
        "--bound", type=_share, default=0.0, metavar="SHARE",
        help="scan as many as it takes to show, if none has a find, that less than SHARE of all have one (0.01: 299)",
    )  # fmt: skip
    part.add_argument("--confidence", type=_share, default=0.95, metavar="C", help="of that; default 0.95")
    part.add_argument("--seed", type=_natural, default=1, metavar="S", help="of the draw, and of what is planted")
    part.add_argument(
        "--strata", choices=("folder", "none"), default="folder", help="draw from each folder by its share, or from all"
    )
    dirty = scan.add_argument_group("what is done with dirty files")
    dirty.add_argument(
        "--remask",
        default="",
        metavar="DIR",
        help="write a masked copy (16-bit WAV) there, and scan it",
    )
    dirty.add_argument("--quarantine", default="", metavar="DIR", help="move them there, with a note")
    dirty.add_argument("--suspects-too", action="store_true", help="the same with files that only have residues")
    cluster = scan.add_argument_group("a Dask cluster")
    cluster.add_argument(
        "--dask", default="", metavar="ADDRESS", help="its scheduler, tcp://host:port or tls://host:port"
    )
    for name, what in (("ca", "authority"), ("cert", "certificate"), ("key", "private key")):
        cluster.add_argument(f"--dask-{name}", default="", metavar="FILE", help=f"{what} in PEM, for tls://")


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10**9:
        raise argparse.ArgumentTypeError("1 and more")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10**9:
        raise argparse.ArgumentTypeError("0 and more")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return value


def _serve(args: argparse.Namespace) -> int:
    from mediaproxy import config_file
    from mediaproxy.supervisor import parent

    return parent.serve(config_file.load(args.config))


def _check(args: argparse.Namespace) -> int:
    from mediaproxy import config_capture, config_file

    loaded = config_file.load(args.config)
    config_capture.check_secrets(loaded)
    print(
        f"{args.config}: fine: {len(loaded.peers)} peers, {len(loaded.routes)} routes, {len(loaded.gateways)} gateways"
    )
    return 0


def _mask(args: argparse.Namespace) -> int:
    import json

    from dsp import g711
    from mediaproxy import offline, wav
    from mediaproxy.media import modes

    if not 0 <= args.loss <= 0.9 or not 1 <= args.burst <= 1000 or args.seed < 0:
        return _wrong("--loss takes 0 to 0.9, --burst 1 to 1000, --seed 0 and more")
    if args.burst > 1 and args.loss > args.burst / (1 + args.burst):
        return _wrong(f"--loss {args.loss} is not reached by bursts of {args.burst} packets: one must come between two")
    try:
        samples, rate = wav.read(args.input)
    except wav.WavError as error:
        return _wrong(f"{args.input}: {error}")
    if len(samples) != 1 or rate != 8000:
        return _wrong(f"{args.input}: has {len(samples)} channel(s) at {rate} Hz; a leg takes mono at 8000 Hz")
    out = Path(args.output)
    if not out.parent.is_dir():
        return _wrong(f"{args.output}: there is no such folder")
    if out.is_dir():
        return _wrong(f"{args.output}: is a folder")
    if out.exists() and out.samefile(args.input):
        return _wrong(f"{args.output}: is the input itself")
    codec = g711.PCMU if args.codec == "pcmu" else g711.PCMA
    network = offline.Network(args.loss, args.burst, args.seed) if args.loss else None
    result = offline.mask(g711.encode(samples[0], codec), modes.parse(args.mode), args.codec, args.ptime, network)
    try:
        wav.write(args.output, g711.DECODE_INT16[codec][result.octets])
    except OSError as error:
        return _wrong(f"{args.output}: cannot be written ({error.strerror})")
    print(
        json.dumps(
            {
                "delay_ms": result.delay_ms, "masked_ms": result.masked_ms, "keys": result.keys,
                "packets": result.packets, "lost": result.lost,
            }
        )
    )  # fmt: skip
    return 0


def _demo(args: argparse.Namespace) -> int:
    try:
        from mediaproxy.demo import show
    except ModuleNotFoundError as error:
        return _wrong(f"the demo needs {error.name}: pip install 'flattone[demo]'")
    return show.run(Path(args.out), args.keep)


def _scan(args: argparse.Namespace) -> int:
    from mediaproxy.scan import command

    return command.run(
        command.Request(
            args.paths, args.report, args.sign, args.json, args.quiet, args.workers, args.state, not args.no_plant,
            args.seed, args.sample, args.bound, args.confidence, args.strata, args.quarantine, args.remask,
            args.suspects_too, args.dask, args.dask_ca, args.dask_cert, args.dask_key,
        )
    )  # fmt: skip


def _verify(args: argparse.Namespace) -> int:
    from mediaproxy.verify import command

    return command.run(args.paths, args.anchors, args.key, args.files, args.quiet)


def _trace(args: argparse.Namespace) -> int:
    from mediaproxy import config_file
    from mediaproxy.trace import command

    path = args.socket or config_file.load(args.config).trace.socket
    if not path:
        return _wrong(f"{args.config}: trace.socket: is not set")
    return command.run(path, args.whom, args.text, args.pcap, args.full, args.seconds)


def _version(_: argparse.Namespace) -> int:
    import platform

    import numpy

    from mediaproxy import __version__
    from mediaproxy.media.pump import COMPILED

    pump = "compiled" if COMPILED else "pure"
    print(f"flattone {__version__} (python {platform.python_version()}, numpy {numpy.__version__}, pump {pump})")
    return 0


def _wrong(text: str) -> int:
    print(f"flattone: {text}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = _parser().parse_args(argv)
    foreign = shadowed()
    if foreign:
        return _wrong(
            f"another distribution's package `{foreign}` stands in front of flattone's own; "
            "install flattone into an environment of its own"
        )
    from mediaproxy.errors import ConfigError

    commands = {
        "demo": _demo, "serve": _serve, "check-config": _check, "mask": _mask, "scan": _scan, "verify": _verify,
        "trace": _trace, "version": _version,
    }  # fmt: skip
    try:
        return commands[args.command](args)
    except ConfigError as error:
        return _wrong(str(error))
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:  # whoever read the lines has seen enough; nobody is there to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


if __name__ == "__main__":
    sys.exit(main())
