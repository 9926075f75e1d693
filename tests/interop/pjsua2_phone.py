"""A pjsua2 phone as a program of its own: its assertions abort the process they happen in.

Calls or answers, plays a WAV, records what it hears, says READY and CONFIRMED, ends after some seconds.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from typing import Any

import pjsua2 as pj


class Call(pj.Call):
    def __init__(self, phone: Phone, call_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(phone.account, call_id)
        self.phone = phone

    def onCallState(self, _: Any) -> None:
        state = self.getInfo().state
        if state == pj.PJSIP_INV_STATE_CONFIRMED:
            self.phone.confirmed = time.monotonic()
            print("CONFIRMED", flush=True)
        elif state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.phone.ended = True

    def onCallMediaState(self, _: Any) -> None:
        info = self.getInfo()  # must outlive the loop over its media
        for index, media in enumerate(info.media):
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                audio = self.getAudioMedia(index)
                self.phone.player.startTransmit(audio)
                audio.startTransmit(self.phone.recorder)


class Account(pj.Account):
    phone: Phone

    def onIncomingCall(self, prm: Any) -> None:
        self.phone.call = Call(self.phone, prm.callId)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        self.phone.call.answer(answer)


class Phone:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.call, self.confirmed, self.ended = args, None, 0.0, False
        self.endpoint = pj.Endpoint()
        out = os.dup(1)
        os.dup2(2, 1)  # the library speaks before it can be told not to
        self.endpoint.libCreate()
        os.dup2(out, 1)
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.logConfig.level = config.logConfig.consoleLevel = 0
        config.medConfig.clockRate = config.medConfig.sndClockRate = 8000
        config.medConfig.noVad = True
        config.medConfig.channelCount = 1
        config.medConfig.audioFramePtime = config.medConfig.ptime = 20
        config.medConfig.sndAutoCloseTime = -1
        config.medConfig.ecTailLen = 0
        self.endpoint.libInit(config)
        transport = pj.TransportConfig()
        transport.port, transport.boundAddress, transport.publicAddress = args.sip_port, "127.0.0.1", "127.0.0.1"
        kind = pj.PJSIP_TRANSPORT_UDP
        if args.certificate:
            kind, tls = pj.PJSIP_TRANSPORT_TLS, transport.tlsConfig
            tls.certFile, tls.privKeyFile, tls.CaListFile = args.certificate, args.key, args.authority
            tls.verifyServer = tls.verifyClient = tls.requireClientCert = True
        handle = self.endpoint.transportCreate(kind, transport)
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNullDev()
        for codec in self.endpoint.codecEnum2():
            self.endpoint.codecSetPriority(codec.codecId, 200 if codec.codecId.startswith(args.codec) else 0)
        config = pj.AccountConfig()
        config.idUri = f"sip:pj@127.0.0.1:{args.sip_port}"
        config.regConfig.registerOnAdd = False
        if args.register:
            config.idUri = f"sip:pj@{args.register.removeprefix('sip:')}"
            config.regConfig.registrarUri, config.regConfig.registerOnAdd = args.register, True
        if args.certificate:
            config.sipConfig.transportId = handle
        media = config.mediaConfig
        media.transportConfig.port, media.transportConfig.boundAddress = args.rtp_port, "127.0.0.1"
        media.transportConfig.publicAddress = "127.0.0.1"
        media.srtpUse = pj.PJMEDIA_SRTP_MANDATORY if args.srtp else pj.PJMEDIA_SRTP_DISABLED
        media.srtpSecureSignaling = 0
        if args.srtp:
            keying = pj.IntVector()
            keying.append(pj.PJMEDIA_SRTP_KEYING_SDES)
            media.srtpOpt.keyings = keying
        config.natConfig.iceEnabled = False
        self.account = Account()
        self.account.phone = self
        self.account.create(config)
        self.player, self.recorder = pj.AudioMediaPlayer(), pj.AudioMediaRecorder()
        self.player.createPlayer(args.play)
        self.recorder.createRecorder(args.record)

    def run(self) -> int:
        while self.args.register and not self.account.getInfo().regIsActive:
            self.endpoint.libHandleEvents(10)
        print("READY", flush=True)
        if self.args.call:
            self.call = Call(self)
            self.call.makeCall(self.args.call, pj.CallOpParam(True))
        begun = time.monotonic()
        while not self.ended and time.monotonic() - begun < 20:
            self.endpoint.libHandleEvents(10)
            if (
                self.args.call
                and self.confirmed
                and time.monotonic() - self.confirmed > self.args.seconds
                and self.call is not None
            ):
                self.call.hangup(pj.CallOpParam())
                self.confirmed = float("inf")
        settle = time.monotonic() + 0.3
        while time.monotonic() < settle:
            self.endpoint.libHandleEvents(10)
        good = bool(self.confirmed) and self.ended
        self.recorder = self.player = self.call = None  # the recorder writes its header when it goes
        self.account.shutdown()
        self.account = None
        gc.collect()
        self.endpoint.libDestroy()
        return 0 if good else 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sip-port", type=int, required=True)
    parser.add_argument("--rtp-port", type=int, required=True)
    parser.add_argument("--call")
    parser.add_argument("--codec", default="PCMU")
    parser.add_argument("--play", required=True)
    parser.add_argument("--record", required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--certificate", help="speak TLS, with this certificate")
    parser.add_argument("--key")
    parser.add_argument("--authority")
    parser.add_argument("--srtp", action="store_true", help="SRTP or nothing")
    parser.add_argument("--register", help="a registrar, like sip:127.0.0.1:5060")
    code = Phone(parser.parse_args()).run()
    sys.stdout.flush()
    os._exit(code)  # the library's destructors may abort after libDestroy


if __name__ == "__main__":
    main()
