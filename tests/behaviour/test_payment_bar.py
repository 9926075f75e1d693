"""The payment bar in a real browser, on real calls: what an agent sees at every step, and what breaks on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.demo import certificates
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import EXTENSION, Site, free_port
from tests.fixtures import browser, live, sipp
from tests.fixtures.browser import Window
from tests.fixtures.crm import Crm
from tests.fixtures.issuer import Issuer
from tests.fixtures.listener import Listener
from tests.fixtures.live import CARD, CVV, EXPIRY, Live
from tests.fixtures.sipp import Sipp
from tests.fixtures.wire import Wire

ROOT = Path(__file__).parents[2]
AXE = (ROOT / "build" / "axe" / "axe.min.js").read_text() if (ROOT / "build" / "axe" / "axe.min.js").exists() else ""
SIZES = {"desktop": (1100, 640), "narrow": (280, 640)}
THEMES = ("light", "dark")


def run(scenario: Any) -> None:
    asyncio.run(scenario)


async def sign_in(window: Window, port: int, token: str, extension: str = EXTENSION) -> None:
    """To the bar on the desk page."""
    await window.page.goto(f"http://127.0.0.1:{port}/agent")
    await window.page.get_by_label("Access token").fill(token)
    await window.page.get_by_label("Extension").fill(extension)
    await window.page.get_by_role("button", name="Sign in").click()


async def ready(window: Window, port: int, token: str) -> None:
    """On the desk page, past the notice."""
    await sign_in(window, port, token)
    if (await window.until("['notice', 'ready'].includes(bar.state)"))["state"] == "notice":
        await window.press("I understand")
    await window.until("bar.state === 'ready'")


async def looked_at(window: Window, name: str) -> None:
    """Pictures of this state in both themes and sizes, and axe in both themes: no violation, nothing cut off."""
    assert AXE, "axe-core is missing: make peers"
    for theme in THEMES:
        await window.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for size, (width, height) in SIZES.items():
            await window.page.set_viewport_size({"width": width, "height": height})
            await window.shot(f"{name}-{theme}-{size}")
            wide = await window.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name}: {wide} px wide on a page of {width}"
        await axe(window, f"{name} {theme}")
    await window.page.emulate_media(color_scheme="light")
    await window.page.set_viewport_size({"width": 1100, "height": 640})


async def axe(window: Window, name: str) -> None:
    if not await window.page.evaluate("'axe' in window"):
        await window.page.evaluate(AXE)  # not as a script element, which the page's policy forbids
    found = await window.page.evaluate(
        "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(r => r.violations.map("
        "v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).join('; ')))"
    )
    assert found == [], (name, found)


@pytest.mark.interop
def test_a_whole_payment_keyed_by_sipp_shows_at_every_step(tmp_path: Path) -> None:
    """sipp calls, talks and keys card, date and code as telephone-events; the agent is a browser."""
    gap = 250
    keys = sipp.pause(5000)
    for part in (CARD, EXPIRY, CVV):
        keys += sipp.event_keys(part, gap) + sipp.pause(1500)
    ports = free_port(), free_port()

    async def agent(site: Site) -> None:
        async with browser.opened() as window:
            await sign_in(window, site.api, site.agent_token)
            await window.until("bar.state === 'notice'")
            assert "flat tones" in (await window.bar())["say"]
            await window.press("I understand")
            await window.until("bar.state === 'ready'", 15)
            await window.press("Take payment")
            bar = await window.until("bar.state === 'keying'")
            assert bar["say"] == "Ask the caller to key: Card number."
            assert list(bar["fields"]) == ["pan", "expiry", "cvv"]
            assert all(f["dots"] == 0 and f["note"] == "waiting" for f in bar["fields"].values())
            assert bar["fields"]["pan"]["state"] == "waiting now"
            counts = []
            for dots in range(1, 16):
                bar = await window.until("bar.fields.pan.dots >= v.dots", 20, dots=dots)
                counts.append(bar["fields"]["pan"]["dots"])
                assert bar["fields"]["pan"]["note"].startswith((f"{counts[-1]} received", "✓"))
            assert len(set(counts)) > 8  # it moves with the keys
            bar = await window.until("bar.fields.pan.state === 'complete'")
            assert bar["fields"]["pan"]["dots"] == 16
            assert re.fullmatch(rf"✓ 16 received.*Visa.*ending in {CARD[-4:]}", bar["fields"]["pan"]["note"])
            assert bar["say"] == "Ask the caller to key: Expiry date."
            bar = await window.until("bar.fields.expiry.state === 'complete'", 15)
            assert (bar["fields"]["expiry"]["dots"], bar["say"]) == (4, "Ask the caller to key: Security code.")
            bar = await window.until("bar.state === 'token'", 15)
            assert re.fullmatch(r"Payment details received\. tok_\S+", bar["say"])
            assert bar["fields"]["cvv"]["note"] == "✓ 3 received"
            assert bar["buttons"] == ["New payment"]
            text = await window.page.content() + str(await window.bar())
            assert CARD not in text
            assert CARD[:6] not in text

    async def started() -> None:
        async with browser.opened():
            return

    run(started())  # a browser that starts cold may take longer than the caller waits to key
    with Listener() as ear, Site(tmp_path, tmp_path, *ports) as site:
        media = 12000 + free_port() % 1000 * 2
        with (
            Sipp(tmp_path, "uas", sipp.callee(media_port=str(ear.port)), ports[1], 15000 + free_port() % 700 * 2),
            Sipp(tmp_path, "uac", sipp.caller(keys), ports[0], media, site.trunk) as caller,
        ):
            run(agent(site))
            caller.finish()
        assert site.issued() == 1
        assert len(ear.packets) > 300


@pytest.mark.timeout(300)
def test_every_state_looks_right_and_bars_nobody(tmp_path: Path) -> None:
    """Each state of the bar: pictures to look at, and axe-core finds nothing, light and dark, wide and narrow."""
    settings = {"inbound": 'speech = "muted"', "more": "[capture]\nauto_submit = false\ntries = 3"}

    async def scenario() -> None:
        async with live.call(tmp_path, settings=settings) as up, browser.opened() as window:
            await window.page.goto(f"http://127.0.0.1:{up.site.api}/agent")
            await looked_at(window, "01-sign-in")
            await sign_in(window, up.site.api, up.site.agent_token)
            await window.until("bar.state === 'notice'")
            await looked_at(window, "02-notice")
            await window.press("I understand")
            await window.until("bar.state === 'ready'")
            await looked_at(window, "03-ready")
            await window.press("Take payment")
            bar = await window.until("bar.state === 'keying' && bar.muted")
            await looked_at(window, "04-waiting")
            up.key(CARD[:6])
            await up.silent()
            await window.until("bar.fields.pan.dots === 6")
            await looked_at(window, "05-filling")
            up.key("*" + CARD[:-1] + str((int(CARD[-1]) + 1) % 10))
            await up.silent()
            bar = await window.until("bar.fields.pan.state.startsWith('invalid')")
            assert bar["say"] == "Card number: not a valid number. Ask the caller to key it again."
            assert bar["fields"]["pan"]["note"] == "not a valid number"
            await looked_at(window, "06-invalid")
            up.key(CARD + "13" + EXPIRY[2:])
            await up.silent()
            bar = await window.until("bar.fields.expiry.state.startsWith('invalid')")
            assert "no such month" in bar["say"]
            assert not bar["muted"]  # only while number or code is keyed
            await window.page.get_by_role("button", name="Key again: Card number").click()
            await window.until("bar.fields.pan.dots === 0")
            up.key(CARD + EXPIRY + CVV)
            await up.silent()
            bar = await window.until("bar.state === 'complete'")
            assert bar["buttons"] == ["Send", "Cancel"]
            await looked_at(window, "07-complete")
            os.kill(up.site._processes[0].pid, signal.SIGSTOP)
            try:
                await window.press("Send")
                bar = await window.until("bar.state === 'submitting'")
                assert bar["buttons"] == []
                await looked_at(window, "08-submitting")
            finally:
                os.kill(up.site._processes[0].pid, signal.SIGCONT)
            await window.until("bar.state === 'token'")
            await looked_at(window, "09-token")
            await window.press("New payment")
            await window.until("bar.state === 'keying'")
            await window.press("Cancel")
            bar = await window.until("bar.state === 'cancelled'")
            assert bar["say"] == "Cancelled. Everything keyed has been cleared."
            await looked_at(window, "10-cancelled")
            await up.modes("guarded")
            await window.press("New payment")
            await window.until("bar.state === 'keying'")
            for _ in range(3):
                up.key(CARD[:-1] + str((int(CARD[-1]) + 1) % 10))
            await up.silent()
            bar = await window.until("bar.state === 'failed'")
            assert bar["say"] == "No payment: keyed wrong too often."
            await looked_at(window, "11-failed")
            await up.modes("guarded")
            await window.press("New payment")
            await window.until("bar.state === 'keying'")
            up.key(CARD[:4])
            await up.silent()
            await window.until("bar.fields.pan.dots === 4")
            os.kill(up.pid("media-0"), signal.SIGKILL)
            bar = await window.until("bar.state === 'sealed'")
            assert bar["say"].startswith("The line is closed for safety")
            await looked_at(window, "12-sealed")
            await look_at_live(window, up)
            bar = await window.until("bar.state === 'keying'")  # the supervisor has released it
            assert bar["say"] == "Card number: the line was interrupted. Ask the caller to key it again."
            up.caller.hang_up()
            await window.until("bar.state === 'failed'")
            await window.page.reload()
            await window.until("bar.state === 'no-call'")
            await looked_at(window, "13-no-call")
            os.kill(up.pid("agent"), signal.SIGSTOP)
            os.kill(up.pid("agent"), signal.SIGKILL)
            os.kill(up.site.pid, signal.SIGTERM)
            await window.until("bar.offline", 20)
            await looked_at(window, "14-offline")

    run(scenario())


async def look_at_live(beside: Window, up: Live) -> None:
    """The supervisor's page, on which a sealed call is released."""
    assert beside.page.context.browser is not None
    async with browser.window(beside.page.context.browser) as window:
        await window.page.goto(f"http://127.0.0.1:{up.site.api}/live")
        await window.page.get_by_label("access token").fill(up.site.token)
        await window.page.get_by_role("button", name="Sign in").click()
        await window.page.get_by_text("1 sealed call").wait_for()
        await window.page.get_by_text("A process was restarted (media-0)").wait_for()
        await looked_at(window, "20-live")
        await window.page.get_by_role("button", name=f"Release: {EXTENSION}").click()
        await window.page.locator("#calls td.good", has_text="payment").wait_for()


DROPS = ("reload", "cut", "held", "agent process killed", "another tab")


def test_a_network_drop_or_reload_in_the_middle_comes_back_to_the_right_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window, Wire(up.site.api) as wire:
            await ready(window, wire.port, up.site.agent_token)
            for payments, how in enumerate(DROPS, 1):
                await window.press("Take payment" if payments == 1 else "New payment")
                await drop(up, window, wire, how)
                await window.until("bar.state === 'token'")
                await window.page.reload()  # and after the end the token is there still
                await window.until("bar.state === 'token' && bar.say.includes('tok_')")
                assert await asyncio.to_thread(up.site.issued) == payments
                await up.modes("guarded")

    run(scenario())


async def drop(up: Live, window: Window, wire: Wire, how: str) -> None:
    """Key a card while something happens to the page, the network or the server; what is shown afterwards is right."""
    await window.until("bar.state === 'keying'")
    up.key(CARD[:9])
    await up.silent()
    await window.until("bar.fields.pan.dots === 9")
    if how == "cut":
        wire.cut()
        await window.until("bar.offline")
    elif how == "held":
        wire.hold()
    elif how == "agent process killed":
        os.kill(up.pid("agent"), signal.SIGKILL)
    up.key(CARD[9:] + EXPIRY[:2])
    await up.silent()
    await asyncio.sleep(0.5)
    if how == "reload":
        await window.page.reload()
    elif how == "another tab":
        other = await window.page.context.new_page()
        await window.page.close()
        window.page = other
        await sign_in(window, wire.port, up.site.agent_token)
    else:
        wire.mend()
    bar = await window.until("bar.fields.expiry && bar.fields.expiry.dots === 2 && !bar.offline", 15)
    assert bar["state"] == "keying", how
    assert bar["fields"]["pan"]["state"] == "complete", how
    assert bar["say"] == "Ask the caller to key: Expiry date.", how
    up.key(EXPIRY[2:] + CVV)


def test_everything_can_be_done_with_the_keyboard_alone(tmp_path: Path) -> None:
    """Nothing but Tab and Enter; the focus is never lost; what a screen reader is told says what is next."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            keyboard = window.page.keyboard
            await window.page.goto(f"http://127.0.0.1:{up.site.api}/agent")
            await keyboard.press("Tab")
            await keyboard.type(up.site.agent_token)
            await keyboard.press("Tab")
            await keyboard.type(EXTENSION)
            await keyboard.press("Enter")
            await window.until("bar.state === 'notice'")
            await reach(window, "I understand")
            await keyboard.press("Enter")
            await window.until("bar.state === 'ready'")
            await reach(window, "Take payment")
            await keyboard.press("Enter")
            await window.until("bar.state === 'keying'")
            assert await focused(window) != "BODY"
            up.key(CARD[:3])
            await up.silent()
            await window.until("bar.fields.pan.dots === 3")
            await reach(window, "Key again: Card number")
            await keyboard.press("Enter")
            await window.until("bar.fields.pan.dots === 0")
            assert await focused(window) != "BODY"  # its button is gone
            said = window.page.get_by_role("status").filter(has_text="Ask the caller to key: Card number.")
            assert await said.count() == 1
            await reach(window, "Cancel")
            await keyboard.press("Space")
            await window.until("bar.state === 'cancelled'")
            assert await focused(window) != "BODY"

    run(scenario())


async def focused(window: Window) -> str:
    """What has the focus: a button's name, or an element's kind."""
    return str(
        await window.page.evaluate(
            "() => { let e = document.activeElement; while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;"
            " return e.getAttribute('aria-label') || (e.tagName === 'BUTTON' ? e.textContent : e.tagName); }"
        )
    )


async def reach(window: Window, name: str) -> None:
    """Press Tab until a button has the focus."""
    for _ in range(12):
        if await focused(window) == name:
            return
        await window.page.keyboard.press("Tab")
    raise AssertionError(f"{name} is not reached by Tab")


WORDS = {
    "en": ("Take payment", "Ask the caller to key: Card number.", "Key again"),
    "es": ("Iniciar pago", "Pida que teclee: Número de tarjeta.", "Repetir"),
    "fr": ("Encaisser", "Demandez à l’appelant de saisir\u00a0: Numéro de carte.", "Ressaisir"),
    "de": ("Zahlung starten", "Bitten Sie den Anrufer, Folgendes einzutippen: Kartennummer.", "Neu eingeben"),
}


def embedding(site: Site, token: str, query: str = f"extension={EXTENSION}") -> dict[str, tuple[str, str]]:
    """deploy/crm.html as its reader would put it on a site of their own, and where it gets tokens from."""
    text = (ROOT / "deploy" / "crm.html").read_text()
    text = text.replace("https://flattone.example.com", f"http://127.0.0.1:{site.api}")
    return {
        "/": ("text/html", text.replace(f"extension={EXTENSION}", query)),
        "/flattone-token": ("text/plain", token),
    }


@contextlib.asynccontextmanager
async def crm_page(
    tmp_path: Path, query: str = f"extension={EXTENSION}"
) -> AsyncIterator[tuple[Live, Window, Crm, Any]]:
    """A call, a CRM on an origin of its own whose page holds the bar, and the frame in it."""
    with Crm({}) as crm:
        settings = {"api": f'origins = ["{crm.origin}"]'}
        async with live.call(tmp_path, settings=settings) as up, browser.opened() as window:
            crm.pages = embedding(up.site, up.site.agent_token, query)
            await window.page.goto(crm.origin)
            yield up, window, crm, window.page.frame_locator("#pay")


def test_the_bar_in_a_crms_frame_speaks_the_agents_language_and_tells_the_crm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with crm_page(tmp_path) as (up, window, crm, frame):
            await frame.locator(".acts button:visible").click()  # the notice, once
            for lang, (start, ask, again) in WORDS.items():
                query = f"extension={EXTENSION}&lang={lang}" + ("&dir=rtl" if lang == "en" else "")
                crm.pages = embedding(up.site, up.site.agent_token, query)
                await window.page.goto(crm.origin)
                await frame.locator(".acts button:visible").wait_for()
                if lang == "en":
                    await frame.get_by_role("button", name=start).wait_for()
                await frame.locator(".acts button:visible").click()
                await frame.get_by_text(ask).wait_for()
                up.key(CARD[:5])
                await up.silent()
                await frame.get_by_role("button", name=again).wait_for()
                await window.shot(f"30-crm-{lang}{'-rtl' if lang == 'en' else ''}")
                height = await window.page.evaluate("document.getElementById('pay').height")
                inner = await frame.locator("flattone-payment").evaluate("e => e.getBoundingClientRect().height")
                assert 0 <= int(height) - inner < 2
                up.key(CARD[5:] + EXPIRY + CVV)
                result = window.page.locator("#result")
                await result.get_by_text("Card on file: tok_").wait_for()
                await up.modes("guarded")
                await window.page.reload()
                await frame.get_by_text("tok_").or_(frame.locator("section[data-state=token]")).first.wait_for()
                assert await result.text_content() == ""  # the CRM was told before

    run(scenario())


def test_a_frame_listens_to_its_own_parent_only_and_stands_on_known_sites_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with crm_page(tmp_path) as (up, window, crm, frame):
            await frame.locator(".acts button:visible").click()
            await frame.get_by_role("button", name="Take payment").wait_for()
            attack = (
                "<script>const say = (type) => parent.frames[0].postMessage({flattone: 1, type, token: 'x'}, '*');"
                "say('start'); say('token'); parent.postMessage('sent', '*');</script>"
            )
            with Crm({"/": ("text/html", attack)}) as evil:
                crm.pages["/attack"] = ("text/html", attack)  # of a known site, but not the parent
                for url in (evil.origin, f"{crm.origin}/attack"):
                    await window.page.evaluate(
                        "url => new Promise((done) => { addEventListener('message', (e) => e.data === 'sent' && done());"
                        " const f = document.createElement('iframe'); f.src = url; document.body.append(f); })",
                        url,
                    )
                await asyncio.sleep(1)
                assert await frame.get_by_role("button", name="Take payment").count() == 1
                (call,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
                assert call["capture"] is None
                # The same page on a site that is not configured: the browser shows no bar, and tells nobody anything
                evil.pages = crm.pages
                await window.page.goto(evil.origin)
                await asyncio.sleep(1)
                assert len(window.page.frames) == 2
                assert window.page.frames[1].url.startswith("chrome-error:")
                assert any("frame-ancestors" in error for error in window.errors), window.errors
                # The component itself on that site: the API turns its page away
                component = (
                    f'<script type="module" src="http://127.0.0.1:{up.site.api}/flattone-payment.js"></script>'
                    f'<flattone-payment extension="{EXTENSION}"></flattone-payment>'
                    f"<script>document.querySelector('flattone-payment').token = '{up.site.agent_token}'</script>"
                )
                evil.pages = {"/": ("text/html", component)}
                await window.page.goto(evil.origin)
                await window.until("bar.offline")
                assert (await window.bar())["state"] == "loading"
                assert any("CORS" in error for error in window.errors)
                # and on the site that is configured it works
                crm.pages = evil.pages
                await window.page.goto(crm.origin)
                await window.until("bar.state === 'ready'")
                window.errors.clear()
            await up.until("audit")
            refused = [line for line in up.log() if line["event"] == "audit" and line.get("reason") == "origin"]
            assert {line["origin"] for line in refused} == {evil.origin}

    run(scenario())


def test_a_bar_whose_token_ends_asks_for_another_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "idp").mkdir()

    async def scenario(idp: Issuer) -> None:
        with Crm({}) as crm:
            settings = {"api": f'origins = ["{crm.origin}"]', "more": idp.config("leeway_seconds = 0")}
            async with live.call(tmp_path, settings=settings) as up, browser.opened() as window:
                crm.pages = embedding(up.site, idp.token(exp=int(time.time()) + 8), "lang=en")
                await window.page.goto(crm.origin)
                frame = window.page.frame_locator("#pay")
                await frame.locator(".acts button:visible").click()
                await frame.get_by_role("button", name="Take payment").click()  # the extension is the token's
                up.key(CARD[:4])
                await up.silent()
                await frame.get_by_text("4 received").wait_for()
                crm.pages["/flattone-token"] = (
                    "text/plain",
                    idp.token(exp=int(time.time()) - 5),
                )  # still a stale one
                await frame.get_by_text("Your sign-in has ended. Please sign in again.").wait_for(timeout=15000)
                await window.shot("31-signed-out")
                crm.pages["/flattone-token"] = ("text/plain", idp.token())
                up.key(CARD[4:] + EXPIRY + CVV)
                await window.page.locator("#result").get_by_text("Card on file: tok_").wait_for(timeout=15000)

    with Issuer(certificates.make(tmp_path / "idp")) as idp:
        run(scenario(idp))


def test_an_agent_signs_in_at_the_identity_provider_and_the_token_is_renewed(tmp_path: Path) -> None:
    """Authorization code with PKCE; tokens live for 32 s and are renewed two seconds after they were made."""
    (tmp_path / "idp").mkdir()

    async def scenario(idp: Issuer) -> None:
        idp.seconds = 32
        more = idp.config('client_id = "desk"\nleeway_seconds = 0')
        async with (
            live.call(tmp_path, settings={"more": more}) as up,
            browser.opened(ignore_https_errors=True) as window,
        ):
            await window.page.goto(f"http://127.0.0.1:{up.site.api}/agent")
            await window.page.get_by_role("button", name="Sign in with idp").wait_for()
            await axe(window, "sign in")
            await window.shot("00-sign-in-provider")
            await window.page.get_by_role("button", name="Sign in with idp").click()
            await window.page.get_by_text("ann@example.org").wait_for()
            assert "code=" not in window.page.url
            await window.press("I understand")
            await window.press("Take payment")
            await window.until("bar.state === 'keying'")
            await asyncio.sleep(3)
            up.key(CARD + EXPIRY + CVV)
            await window.until("bar.state === 'token'")
            assert idp.grants[0] == ("authorization_code", True)
            assert ("refresh_token", True) in idp.grants
            assert all(good for _, good in idp.grants)
            await window.page.reload()
            await window.until("bar.state === 'token'")
            await window.page.get_by_role("button", name="Sign out").click()
            await window.page.goto(f"http://127.0.0.1:{up.site.api}/agent?code=x&state=y")  # somebody else's code
            await window.page.get_by_text("Signing in was not finished.").wait_for()

    with Issuer(certificates.make(tmp_path / "idp")) as idp:
        run(scenario(idp))


def test_a_new_caller_never_sees_the_last_ones_result(tmp_path: Path) -> None:
    """The result stands after the caller has hung up, and goes with the next call."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await ready(window, up.site.api, up.site.agent_token)
            await window.press("Take payment")
            await window.until("bar.state === 'keying'")
            up.key(CARD + EXPIRY + CVV)
            await window.until("bar.state === 'token'")
            up.caller.hang_up()
            await asyncio.wait_for(up.desk.ended.wait(), 5)
            await up.modes()
            await asyncio.sleep(2.5)
            assert (await window.bar())["state"] == "token"
            ports = up.caller.sip_port, up.desk.sip_port
            up.caller.close()
            up.desk.close()
            await asyncio.sleep(0.1)
            caller, agent = Phone("caller"), Phone(EXTENSION, answers=True)
            await caller.open(ports[0])
            await agent.open(ports[1])
            try:
                caller.call(EXTENSION, up.site.trunk)
                await asyncio.wait_for(caller.established.wait(), 5)
                bar = await window.until("bar.state === 'ready'")
                assert bar["fields"] == {}
                assert "tok_" not in str(bar)
            finally:
                caller.close()
                agent.close()

    run(scenario())


def test_captures_of_others_on_the_line_are_shown_and_told_once(tmp_path: Path) -> None:
    """Started by the CRM's server, or another tab: the bar follows; one that begins and ends between two looks is told too."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await ready(window, up.site.api, up.site.agent_token)
            await window.page.evaluate(
                "window.heard = []; for (const t of ['capture-started', 'token', 'failed', 'field-complete'])"
                " document.addEventListener(t, (e) => heard.push([t, e.detail.capture, e.detail.field ?? null, e.detail.resumed ?? null]))"
            )
            first = await up.start()
            await window.until("bar.state === 'keying'")
            up.key(CARD + EXPIRY + CVV)
            await window.until("bar.state === 'token'")
            await up.modes("guarded")
            second = await up.start(fields=["cvv"])
            await up.api("POST", f"/v1/captures/{second}/cancel")
            await up.ended(second)
            await window.until("bar.state === 'cancelled'")
            await asyncio.sleep(4.5)  # two more looks
            assert await window.page.evaluate("heard") == [
                ["capture-started", first, None, True],
                *(["field-complete", first, field, None] for field in ("pan", "expiry", "cvv")),
                ["token", first, None, False],
                ["capture-started", second, None, True],
                ["failed", second, None, True],
            ]

    run(scenario())


def test_a_change_of_line_in_the_middle_of_an_order_mixes_nothing_up(tmp_path: Path) -> None:
    """A screen pop while the start is on its way, the bar taken out of the page, and put back."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window, Wire(up.site.api) as wire:
            await ready(window, wire.port, up.site.token)
            bar = window.page.locator("flattone-payment")
            wire.hold()
            await window.press("Take payment")
            await asyncio.sleep(0.3)
            await bar.evaluate("(bar) => bar.setAttribute('extension', '205')")
            await asyncio.sleep(0.3)
            wire.mend()
            shown = await window.until("bar.state === 'no-call'")
            assert shown["fields"] == {}
            await asyncio.sleep(2.5)
            assert (await window.bar())["state"] == "no-call"
            await bar.evaluate("(bar) => { bar.setAttribute('extension', '204'); }")
            await window.until("bar.state === 'keying'")  # what was started is there
            await bar.evaluate(
                "(bar) => { const parent = bar.parentNode; bar.remove(); setTimeout(() => parent.append(bar), 300); }"
            )
            await window.until("bar && bar.state === 'keying'")
            up.key(CARD[:4])
            await up.silent()
            await bar.evaluate("(bar, token) => { bar.token = token; }", up.site.token)
            await window.until("bar.fields.pan.dots === 4")

    run(scenario())


def test_tokens_by_a_function_are_asked_for_again_until_they_are_good(tmp_path: Path) -> None:
    """One that rejects, one that gives a sign-in page, one that is stale, one that never comes; then a good one."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await ready(window, up.site.api, up.site.agent_token)
            await window.page.evaluate(
                """(good) => {
                  const answers = [() => Promise.reject(new Error("down")), () => "<html>sign in</html>", () => "stale"];
                  window.asked = 0;
                  document.querySelector("flattone-payment").token = () => { asked++; return (answers.shift() || (() => good))(); };
                }""",
                up.site.agent_token,
            )
            await window.until("bar.state === 'signed-out'")
            await window.until("bar.state === 'ready'", 20)
            assert await window.page.evaluate("asked") > 3
            await window.press("Take payment")
            await window.until("bar.state === 'keying'")

    run(scenario())


def test_a_notice_that_cannot_be_written_down_is_not_passed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await sign_in(window, up.site.api, up.site.agent_token)
            await window.until("bar.state === 'notice'")
            path = up.site.audit / "audit.jsonl"
            path.rename(up.site.audit / "away")
            path.mkdir()
            await window.press("I understand")
            await window.until("bar.say.startsWith('The payment service does not answer')")
            await window.page.evaluate("document.querySelector('flattone-payment').start()")
            await asyncio.sleep(2.5)
            bar = await window.bar()
            assert (bar["state"], bar["buttons"]) == ("notice", ["I understand"])
            assert (await up.api("GET", "/v1/calls"))[1]["calls"][0]["capture"] is None
            path.rmdir()
            await window.press("I understand")
            await window.until("bar.state === 'ready'")

    run(scenario())


def test_a_dead_network_is_noticed_though_nothing_breaks(tmp_path: Path) -> None:
    """The connection stands and nothing passes: after 35 s of silence (here 3) the bar makes a new one."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window, Wire(up.site.api) as wire:
            source = await asyncio.to_thread(_component, up.site.api)
            assert "SILENT = 35000" in source

            async def quicker(route: Any) -> None:
                await route.fulfill(
                    body=source.replace("SILENT = 35000", "SILENT = 3000"), content_type="text/javascript"
                )

            await window.page.route("**/flattone-payment.js", quicker)
            await ready(window, wire.port, up.site.agent_token)
            await window.press("Take payment")
            await window.until("bar.state === 'keying'")
            up.key(CARD[:2])
            await up.silent()
            await window.until("bar.fields.pan.dots === 2")
            wire.lose()
            up.key(CARD[2:6])
            await up.silent()
            await window.until("bar.fields.pan.dots === 6", 15)

    run(scenario())


def _component(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/flattone-payment.js") as answer:
        return str(answer.read().decode())


def test_another_language_by_texts_and_right_to_left(tmp_path: Path) -> None:
    arabic = {"start": "بدء الدفع", "ready": "تم توصيل المكالمة. يمكن بدء الدفع.", "title": "الدفع بلوحة مفاتيح الهاتف"}

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await ready(window, up.site.api, up.site.agent_token)
            await window.page.evaluate(
                "(texts) => { document.documentElement.dir = 'rtl'; const bar = document.querySelector('flattone-payment');"
                " bar.lang = 'ar'; bar.texts = texts; }",
                arabic,
            )
            bar = await window.until("bar.say === v.say", say=arabic["ready"])
            assert bar["buttons"] == [arabic["start"]]
            await looked_at(window, "32-arabic")

    run(scenario())


def test_what_was_asked_before_an_order_is_not_believed_after_it(tmp_path: Path) -> None:
    """The start is pressed, and done, between the two questions of a look at the line, whose second is slow to come."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up, browser.opened() as window:
            await ready(window, up.site.api, up.site.agent_token)
            await window.page.evaluate(
                "window.heard = []; for (const t of ['capture-started', 'failed'])"
                " document.addEventListener(t, (e) => heard.push([t, e.detail.resumed]))"
            )
            asked = asyncio.Event()

            async def slow(route: Any) -> None:
                if "/v1/captures" in route.request.url:
                    asked.set()  # the page around the bar asks for calls too, but only the bar for captures
                else:
                    await asyncio.sleep(1.2)
                await route.continue_()

            await window.page.route(re.compile(r"/v1/(calls|captures)\?"), slow)
            await asyncio.wait_for(asked.wait(), 5)
            await asyncio.sleep(0.2)
            await window.page.locator(".acts button.main:visible").click()
            await window.until("bar.state === 'keying'", 1)
            up.key(CARD[:3])
            await up.silent()
            await window.until("bar.fields.pan.dots === 3", 5)
            await asyncio.sleep(1)
            assert (await window.bar())["state"] == "keying"
            assert await window.page.evaluate("heard") == [["capture-started", False]]
            await window.page.unroute_all(behavior="wait")

    run(scenario())
