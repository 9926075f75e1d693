"""What a file is, by its first octets. The name is not believed, and FFmpeg is told the form: left to guess, it would
follow playlists and scripts to other files and hosts."""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import PurePosixPath
from typing import Final

HEAD: Final = 4096
NAMES: Final = frozenset(
    (
        ".wav", ".wave", ".rf64", ".w64", ".mp3", ".opus", ".ogg", ".oga", ".spx", ".aac", ".m4a", ".m4b", ".mp4",
        ".mov", ".3gp", ".flac", ".gsm", ".pcap", ".pcapng", ".cap", ".caf", ".amr", ".wma", ".ul", ".al", ".ulaw",
        ".alaw", ".raw", ".webm", ".mka", ".mkv", ".au", ".snd", ".aif", ".aiff", ".vox", ".sln", ".sln16", ".pcm",
        ".pcmu", ".pcma", ".g722", ".g729", ".g726", ".mp2", ".wv", ".ape", ".avi", ".ts", ".nmf", ".enc",
    )
)  # fmt: skip
"""Endings that say audio: a file so called that is none is told of, any other one is passed over."""
_PCAP: Final = {b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a"}
_ID3: Final = b"ID3"


def sniff(head: bytes) -> str:
    """FFmpeg's name of the form, `pcap`, or "" where it is no form that the scanner knows."""
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return "w64"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"fLaC":
        return "flac"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return "mov"
    if head[:4] in _PCAP:
        return "pcap"
    if head[:3] == _ID3:
        return "flac" if _after_tag(head)[:4] == b"fLaC" else "mp3"
    if _adts(head):
        return "aac"
    if _mpeg(head):
        return "mp3"
    return ""


def _after_tag(head: bytes) -> bytes:
    size = sum((octet & 0x7F) << shift for octet, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    return head[10 + size :]


def _adts(head: bytes) -> bool:
    """Two ADTS frames in a row (ISO 14496-3 section 1.A.2.2), or one that is all there is."""
    at = 0
    for _ in range(2):
        if len(head) < at + 7:
            return at > 0
        if head[at] != 0xFF or head[at + 1] & 0xF6 != 0xF0:
            return False
        size = (head[at + 3] & 3) << 11 | head[at + 4] << 3 | head[at + 5] >> 5
        if size < 7:
            return False
        at += size
    return True


_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BITS: Final = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
"""kbit/s of layer III by index, MPEG-1 and MPEG-2 (ISO 11172-3 section 2.4.2.3, ISO 13818-3)."""


def _mpeg(head: bytes) -> bool:
    """Two frames of MPEG layer III in a row, or one that is all there is."""
    at = 0
    for _ in range(2):
        if len(head) < at + 4:
            return at > 0
        (word,) = struct.unpack_from(">I", head, at)
        version, layer, bits, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
        if word >> 21 != 0x7FF or version == 1 or layer != 1 or bits in (0, 15) or rate == 3:
            return False
        first = version == 3
        at += (144000 if first else 72000) * _BITS[not first][bits] // _RATES[version][rate] + (word >> 9 & 1)
    return True


def named_audio(path: str) -> bool:
    """Whether a file's name says that there is audio in it, also packed or locked: any of its endings counts."""
    return any(ending.lower() in NAMES for ending in PurePosixPath(path).suffixes[-3:])


def mislabelled(path: str, form: str) -> bool:
    """Whether the name says another form than the content."""
    ending = PurePosixPath(path).suffix.lower().lstrip(".")
    meant = {
        "wav": ("wav", "wave", "rf64"), "w64": ("w64",), "mp3": ("mp3",), "ogg": ("ogg", "oga", "opus", "spx"),
        "flac": ("flac",), "mov": ("mp4", "m4a", "m4b", "mov", "3gp"), "aac": ("aac",),
        "pcap": ("pcap", "pcapng", "cap"),
    }  # fmt: skip
    return f".{ending}" in NAMES and ending not in meant[form]


def whole(file: BufferedReader, form: str, size: int) -> tuple[str, str]:
    """(why a file is cut short or "", what else is odd about its length or ""), where its form tells."""
    if form == "wav":
        return _whole_wav(file, size)
    if form == "ogg":
        return _whole_ogg(file, size), ""
    return "", ""


def _whole_wav(file: BufferedReader, size: int) -> tuple[str, str]:
    file.seek(0)
    big = file.read(12)[:4] != b"RIFF"
    at, long = 12, 0
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"ds64" and big:
            long = struct.unpack("<8xQ", file.read(16))[0]
        if name == b"data":
            length = long if big and length == 0xFFFFFFFF else length
            rest = size - at - 8
            if length in (0xFFFFFFFF, 0x7FFFFFFF - 36) or (not length and rest > 1):
                return "", "its header was not completed: all that follows was taken for audio"
            if length > rest:
                return f"cut short: {rest} of {length} octets of audio are there", ""
            if not length:
                return "holds no audio", ""
            return _behind(file, at + 8 + length + (length & 1), size), ""
        at += 8 + length + (length & 1)
    return "cut short: there is no audio after its header", ""


def _behind(file: BufferedReader, at: int, size: int) -> str:
    """Whether what follows the audio is chunks that are no audio: a recorder that died may have left more of it."""
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data" or not all(32 <= octet < 127 for octet in name) or length > size - at - 8 + 1:
            return f"{size - at} octets follow its audio of which its header does not tell"
        at += 8 + length + (length & 1)
    return ""


def _whole_ogg(file: BufferedReader, size: int) -> str:
    """Whether the last page says that it is the last (RFC 3533 section 6, header type flag 0x04)."""
    begin = max(0, size - (1 << 16) - 512)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return "cut short: its last page is not whole"
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    if len(tail) < at + 27 + tail[at + 26] + sum(segments):
        return "cut short: its last page is not whole"
    return "" if tail[at + 5] & 4 else "cut short: its last page does not say that it is the last"


_LOCKED: Final = {
    b"Salted__": "encrypted (OpenSSL)", b"age-encryption.org": "encrypted (age)", b"-----BEGIN PGP": "encrypted (PGP)",
    b"\x85\x01": "encrypted (PGP)", b"\x85\x02": "encrypted (PGP)", b"PK\x03\x04": "a ZIP archive, not looked into",
    b"\x1f\x8b": "packed (gzip), not looked into", b"7z\xbc\xaf": "a 7-Zip archive, not looked into",
    b"Rar!": "a RAR archive, not looked into", b"#!AMR": "AMR, which is not read",
    b"\x1a\x45\xdf\xa3": "Matroska, which is not read", b"\x30\x26\xb2\x75": "WMA, which is not read",
    b".snd": "Sun audio, which is not read", b"FORM": "AIFF, which is not read", b"caff": "CAF, which is not read",
}  # fmt: skip


def locked(head: bytes) -> str:
    """What a file is in which other files may be, or which is of a form that is known and not read; or ""."""
    return next((what for start, what in _LOCKED.items() if head.startswith(start)), "")


def why_not(path: str, head: bytes) -> str:
    """Why a file that should hold audio cannot be read, as far as its name and first octets tell."""
    if not head:
        return "empty"
    if PurePosixPath(path).suffix.lower() in _BARE:
        return "audio without a header, which is not read"
    return locked(head) or "of no form that is known: not audio, damaged, or encrypted"


_BARE: Final = frozenset(
    {
        ".gsm", ".ul", ".al", ".ulaw", ".alaw", ".raw", ".vox", ".sln", ".sln16", ".pcm", ".pcmu", ".pcma", ".g722",
        ".g729",
    }
)  # fmt: skip
