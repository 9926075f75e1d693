// <flattone-payment>: the bar with which an agent takes a payment while the caller keys (docs/embedding.md). It shows
// counts and states; no digit comes here but brand and last four of a complete card, where policy shows them.

const TEXTS = /* web/i18n */ {};
const HOME = new URL(import.meta.url).origin;
const POLL = 2000; // ms between looks at the line while no capture runs
const SILENT = 35000; // ms without a sign of life (one comes every 15 s) after which a stream is taken for dead
const LONGEST_PAUSE = 5000; // ms between tries to reach the server again
const ENDED = ["token", "failed", "cancelled"];
const BRANDS = {
  visa: ["Visa", "#1a1f71", "VISA"], mastercard: ["Mastercard", "#eb001b #f79e1b"], maestro: ["Maestro", "#0099df #eb001b"],
  amex: ["American Express", "#016fd0", "AMEX"], discover: ["Discover", "#4d4d4d", "DISC"], diners: ["Diners Club", "#004a97", "DC"],
  jcb: ["JCB", "#0b4ea2", "JCB"], unionpay: ["UnionPay", "#00635d", "UP"], mir: ["Mir", "#00703c", "MIR"],
};
const PROBLEMS = ["no-call", "several-calls", "sealed", "busy", "origin"]; // that the bar has words for

const DARK = "--bg:#1c2128;--fg:#e6edf3;--soft:#a9b4c0;--line:#5c6773;--main:#6cb6ff;--on:#10151b;--good:#6bd58c;--bad:#ff9d94";
const STYLE = `
:host{--bg:#fff;--fg:#1b2026;--soft:#515b66;--line:#8a949e;--main:#0a5cad;--on:#fff;--good:#14693a;--bad:#b3261e;
 display:block;container-type:inline-size;color-scheme:light;font:400 15px/1.45 system-ui,sans-serif;color:var(--fg)}
:host([hidden]){display:none}
@media(prefers-color-scheme:dark){:host(:not([theme=light])){${DARK};color-scheme:dark}}
:host([theme=dark]){${DARK};color-scheme:dark}
*{box-sizing:border-box}[hidden]{display:none!important}
section{background:var(--bg);border:1px solid var(--line);border-radius:10px;padding:12px;display:grid;gap:10px;user-select:none;-webkit-user-select:none}
h2{font-size:1em;margin:0;font-weight:650}p{margin:0;overflow-wrap:anywhere}
#say{padding-inline-start:10px;border-inline-start:4px solid var(--main);min-height:1.45em}
#say.good{border-color:var(--good);color:var(--good);font-weight:600}#say.bad{border-color:var(--bad);color:var(--bad);font-weight:600}
#muted{font-size:.9em;color:var(--bad)}#offline{font-weight:600}
ol{list-style:none;margin:0;padding:0;display:grid;gap:6px}
@container(min-width:560px){ol{grid-auto-flow:column;grid-auto-columns:1fr}}
li{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:2px 8px;align-content:start;align-items:start;padding:8px 10px;border:1px solid var(--line);border-radius:8px;min-height:86px}
li.now{outline:2px solid var(--main);outline-offset:-1px}
li b{font-weight:600;overflow-wrap:anywhere}
.dots{grid-column:1/-1;font-size:.72em;letter-spacing:.06em;line-height:2;min-height:2em;overflow-wrap:anywhere}
.note{grid-column:1/-1;font-size:.9em;color:var(--soft);display:flex;flex-wrap:wrap;gap:2px 8px;align-items:center}
.complete .note{color:var(--good)}.invalid .note{color:var(--bad)}svg{flex:none;font-family:sans-serif}
button{font:inherit;font-weight:600;color:var(--main);background:none;border:1px solid var(--line);border-radius:8px;padding:6px 12px;min-height:36px;cursor:pointer}
button.main{background:var(--main);border-color:var(--main);color:var(--on)}
button[aria-disabled=true]{opacity:.55;cursor:default}
li button{padding:0 8px;min-height:26px;font-size:.87em;font-weight:500}
button:focus-visible,section:focus-visible{outline:3px solid var(--main);outline-offset:2px}
h2,p,b{unicode-bidi:plaintext;text-align:match-parent;text-align:-webkit-match-parent}
.acts{display:flex;flex-wrap:wrap;gap:8px}
@media(forced-colors:active){li.now{outline-color:Highlight}}
`;

function make(tag, properties = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}

// A button that can't be used keeps the focus, or the keyboard would be nowhere.
function off(button, now) {
  button.setAttribute("aria-disabled", String(now));
}

function icon(brand) {
  const [, colours, letters] = BRANDS[brand] || [brand, "#555", "CARD"];
  const [one, two] = colours.split(" ");
  const inner = two
    ? `<rect width="36" height="22" rx="3" fill="#fff" stroke="#999"/><circle cx="14" cy="11" r="7" fill="${one}"/><circle cx="22" cy="11" r="7" fill="${two}" fill-opacity=".85"/>`
    : `<rect width="36" height="22" rx="3" fill="${one}"/><text x="18" y="15" text-anchor="middle" font-size="10" font-weight="700" fill="#fff">${letters}</text>`;
  return `<svg width="36" height="22" viewBox="0 0 36 22" aria-hidden="true">${inner}</svg>`;
}

class Refused extends Error {
  constructor(status, kind) {
    super(kind);
    Object.assign(this, { status, kind });
  }
}

export class FlattonePayment extends HTMLElement {
  static observedAttributes = ["server", "extension", "call-id", "correlation", "lang"];
  #token = null;
  #labels = {};
  #own = null; // texts of the page around it
  #texts = TEXTS.en;
  #capture = null; // the id of the one that is shown
  #last = ""; // the id of its last event
  #fields = new Map();
  #state = "loading";
  #said = ["loading"];
  #speech = "off";
  #sealed = false;
  #offline = false;
  #busy = false;
  #stop = new AbortController(); // ends whatever runs for the page as it was
  #parts = {};
  #asked = 0; // when for a token, and the timer for the next time
  #asking = 0;

  constructor() {
    super();
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const button = (name, act, main) => make("button", { type: "button", className: main ? "main" : "", onclick: (event) => event.target.ariaDisabled === "true" || act() });
    const p = (this.#parts = {
      title: make("h2"),
      say: make("p", { id: "say", role: "status", "aria-live": "polite" }),
      offline: make("p", { id: "offline", role: "status", hidden: true }),
      muted: make("p", { id: "muted", role: "status", hidden: true }),
      list: make("ol"),
      accept: button("accept", () => this.#accept(), true),
      start: button("start", () => this.start(), true),
      submit: button("submit", () => this.submit(), true),
      cancel: button("cancel", () => this.cancel()),
    });
    p.box = make("section", { tabIndex: -1 }, p.title, p.say, p.offline, p.muted, p.list, make("div", { className: "acts" }, p.accept, p.start, p.submit, p.cancel));
    root.append(p.box);
  }

  // What the page around it says

  get token() { return undefined; }
  set token(value) {
    this.#token = value;
    if (this.isConnected) this.#enter();
  }
  set labels(value) {
    this.#labels = value || {};
    this.#draw();
  }
  set texts(value) {
    this.#own = value && { ...TEXTS.en, ...value, reasons: { ...TEXTS.en.reasons, ...value.reasons } };
    this.#draw();
  }

  connectedCallback() {
    addEventListener("online", this);
    for (const name of ["token", "labels", "texts"]) { // set before this file was there
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    this.#enter();
  }
  disconnectedCallback() {
    removeEventListener("online", this);
    clearTimeout(this.#asking);
    this.#stop.abort();
  }
  attributeChangedCallback(name, before, after) {
    if (!this.isConnected || before === after) return;
    if (name === "lang") this.#draw();
    else this.#enter();
  }
  handleEvent() { this.#wake?.(); }
  #wake = null;

  // The line: who is here, is there a call, does a capture run

  async #enter() {
    this.#stop.abort();
    const stop = (this.#stop = new AbortController());
    clearTimeout(this.#asking);
    this.#show("loading");
    if (!this.#token) return this.#signedOut();
    await this.#until(stop, async () => {
      const me = await this.#ask("GET", "/v1/me", undefined, stop);
      if (!me.numbers.includes("*") && me.numbers.length && !["extension", "call-id", "correlation"].some((n) => this.hasAttribute(n))) {
        this.setAttribute("extension", me.numbers[0]); // enters anew
        return;
      }
      if (!me.notice_accepted) return this.#show("notice");
      await this.#look(stop);
    });
  }

  async #accept() {
    await this.#do(async () => {
      await this.#ask("POST", "/v1/notice");
      this.#enter(); // which goes on for as long as the bar is there
    });
  }

  get #which() {
    for (const [attribute, name] of [["call-id", "call_id"], ["correlation", "correlation"], ["extension", "extension"]]) {
      if (this.getAttribute(attribute)) return { [name]: this.getAttribute(attribute) };
    }
    return {};
  }

  // A capture that was there before this page.
  async #look(stop) {
    const query = new URLSearchParams({ ...this.#which, limit: 1 });
    const { captures: [known] } = await this.#ask("GET", `/v1/captures?${query}`, undefined, stop);
    const calls = await this.#calls(stop);
    if (known && (!ENDED.includes(known.state) || calls.some((call) => call.id === known.call))) {
      this.#take(known, true);
      if (!ENDED.includes(known.state)) return this.#follow(known.id, stop);
    } else this.#idle(calls);
    await this.#watch(stop);
  }

  async #calls(stop) {
    const [[name, value]] = [...Object.entries(this.#which), ["", ""]];
    const { calls } = await this.#ask("GET", "/v1/calls?limit=500", undefined, stop);
    return calls.filter((call) => call.state === "answered" && (
      name === "extension" ? call.number === value
      : name === "correlation" ? call.correlation === value
      : [call.id, ...call.sip_call_ids].includes(value)));
  }

  // While no capture runs: is there a call, is it sealed, has its route started a capture.
  async #watch(stop) {
    while (!stop.signal.aborted) {
      await this.#pause(POLL, stop);
      if (document.hidden || stop.signal.aborted) continue;
      const calls = await this.#calls(stop);
      this.#reached();
      const running = calls.find((call) => call.capture && call.capture !== this.#capture && !ENDED.includes(call.capture_state));
      if (running) return this.#follow(running.capture, stop, true);
      this.#idle(calls);
    }
  }

  #idle(calls) {
    this.#sealed = calls.length > 0 && calls.every((call) => call.mode === "sealed");
    if (ENDED.includes(this.#state) && !this.#sealed) return this.#draw();
    this.#show(!calls.length ? "no-call" : this.#sealed ? "sealed" : calls.length > 1 ? "several-calls" : "ready");
  }

  // Orders

  async start() {
    await this.#do(async () => {
      this.#fields.clear();
      this.#capture = null;
      this.#show("begin", "loading");
      const body = { call: this.#which };
      if (this.getAttribute("template")) body.template = this.getAttribute("template");
      else if (this.getAttribute("fields")) body.fields = this.getAttribute("fields").split(/[\s,]+/).filter(Boolean);
      let made;
      try {
        made = await this.#ask("POST", "/v1/captures", body);
      } catch (error) {
        if (error.kind !== "busy") throw error;
        this.#enter(); // one runs already
        return;
      }
      this.#take(made, false);
      this.#emit("capture-started", { capture: made.id, resumed: false });
      this.#again((stop) => this.#follow(made.id, stop));
    });
  }
  cancel() { return this.#order("cancel"); }
  submit() { return this.#order("submit"); }
  reset(field) { return this.#order(`fields/${encodeURIComponent(field)}/reset`); }

  async #order(what) {
    if (this.#capture) await this.#do(() => this.#ask("POST", `/v1/captures/${this.#capture}/${what}`));
  }

  // An order: one at a time.
  async #do(work) {
    if (this.#busy) return;
    this.#busy = true;
    this.#draw();
    try {
      await work();
    } catch (error) {
      this.#refused(error);
    }
    this.#busy = false;
    this.#draw();
  }

  #refused(error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) return this.#signedOut();
    if (["ended", "not-complete", "submitting"].includes(error.kind)) return; // an event has told, or will
    if (error.kind === "not-configured") this.#show("failed", "failed", { reason: error.kind });
    else {
      if (this.#state === "begin") this.#show("ready");
      this.#sealed = error.kind === "sealed";
      this.#problem(error.kind);
    }
    if (!this.#capture) this.#again((stop) => this.#watch(stop));
  }

  #problem(kind) {
    this.#said = [PROBLEMS.includes(kind) ? kind : "unavailable", {}, "bad"];
    this.#draw();
  }

  #again(work) {
    this.#stop.abort();
    const stop = (this.#stop = new AbortController());
    this.#until(stop, () => work(stop));
  }

  // Tries `work` until it is done; where the server is not reached, again after a while.
  async #until(stop, work) {
    for (let pause = 500; !stop.signal.aborted; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      try {
        await work();
        return;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.status === 401) return this.#signedOut();
        if (error.status && error.status < 500 && error.status !== 429) {
          this.#problem(error.kind);
        } else {
          this.#offline = true;
          this.#draw();
        }
      }
      await this.#pause(pause, stop);
    }
  }

  #reached() {
    if (!this.#offline) return;
    this.#offline = false;
    this.#draw();
  }

  #pause(ms, stop) {
    return new Promise((resume) => {
      const timer = setTimeout(done, ms);
      const self = this;
      function done() {
        clearTimeout(timer);
        self.#wake = null;
        resume();
      }
      this.#wake = done;
      stop.signal.addEventListener("abort", done, { once: true });
    });
  }

  // The server

  async #headers() {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    return { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  }

  get #server() { return (this.getAttribute("server") || HOME).replace(/\/+$/, ""); }

  async #ask(method, path, body, stop) {
    const signal = AbortSignal.timeout(15000);
    const options = { method, headers: await this.#headers(), body: body && JSON.stringify(body), signal, cache: "no-store", credentials: "omit" };
    const answer = await fetch(this.#server + path, options);
    if (stop?.signal.aborted) throw new DOMException("", "AbortError");
    const data = await answer.json();
    if (!answer.ok) throw new Refused(answer.status, data.title);
    this.#reached();
    return data;
  }

  // A capture's events to its end, over as many connections as it takes.
  async #follow(id, stop, fresh = false) {
    if (fresh) this.#take(await this.#ask("GET", `/v1/captures/${id}`, undefined, stop), true);
    this.#capture = id;
    let pause = 500;
    while (!stop.signal.aborted && !ENDED.includes(this.#state)) {
      try {
        await this.#stream(id, stop, () => (pause = 500));
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.status === 401) return this.#signedOut();
        if (error.status === 404) { // nobody knows it any more
          this.#show("failed", "failed", { reason: "fault" });
          this.#emit("failed", { capture: id, reason: "fault" });
          break;
        }
        this.#offline = true;
        this.#draw();
      }
      if (ENDED.includes(this.#state)) break;
      await this.#pause(pause, stop);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
    if (!stop.signal.aborted) await this.#watch(stop);
  }

  async #stream(id, stop, alive) {
    const cut = new AbortController();
    const end = () => cut.abort();
    stop.signal.addEventListener("abort", end, { once: true });
    let timer = setTimeout(end, SILENT);
    try {
      const headers = { ...(await this.#headers()), "Last-Event-ID": this.#last };
      const answer = await fetch(`${this.#server}/v1/captures/${id}/events`, { headers, signal: cut.signal, cache: "no-store", credentials: "omit" });
      if (!answer.ok) throw new Refused(answer.status, "");
      this.#reached();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done || stop.signal.aborted) return;
        clearTimeout(timer);
        timer = setTimeout(end, SILENT);
        alive();
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const [, seq] = block.match(/^id: (.*)$/m) || [];
          const [, data] = block.match(/^data: (.*)$/m) || [];
          if (!data) continue;
          this.#last = seq;
          this.#event(JSON.parse(data));
        }
      }
    } finally {
      clearTimeout(timer);
      stop.signal.removeEventListener("abort", end);
    }
  }

  // What a capture is, as a whole and by events

  #take(capture, resumed) {
    const announce = resumed && capture.id !== this.#capture;
    this.#capture = capture.id;
    this.#last = capture.last_event_id;
    this.#speech = capture.speech;
    this.#sealed = capture.mode === "sealed";
    this.#fields.clear();
    for (const field of capture.fields) this.#fields.set(field.name, { ...field, brand: capture.brand, last4: capture.last4 });
    if (announce) this.#emit("capture-started", { capture: capture.id, resumed });
    this.#go(capture, resumed);
  }

  #event(event) {
    if (event.field) {
      const before = this.#fields.get(event.field);
      this.#fields.set(event.field, { ...event, name: event.field });
      if (event.state === "complete" && before?.state !== "complete") {
        const { capture, field, brand, last4 } = event;
        this.#emit("field-complete", { capture, field, brand, last4 });
      }
      if (!ENDED.includes(this.#state)) this.#guide();
      return;
    }
    if (event.speech) this.#speech = event.speech;
    if (event.mode) this.#sealed = event.mode === "sealed";
    this.#go(event, false);
  }

  #go(now, resumed) {
    this.#state = now.state;
    const { capture = now.id, token, brand, last4, reason } = now;
    if (now.state === "token") {
      this.#said = ["token", { token }, "good"];
      this.#emit("token", { capture, token, brand, last4, resumed });
    } else if (now.state === "failed" || now.state === "cancelled") {
      this.#said = [now.state, { reason }, now.state === "failed" ? "bad" : ""];
      this.#emit("failed", { capture, reason, resumed });
    } else return this.#guide();
    this.#speech = "off";
    this.#draw();
  }

  // What to ask the caller for now, or what was wrong.
  #guide() {
    const fields = [...this.#fields.values()];
    const next = fields.find((field) => field.state !== "complete");
    if (this.#sealed) this.#said = ["sealed", {}, "bad"];
    else if (this.#state !== "keying") this.#said = [this.#state];
    else if (!next) this.#said = ["loading"];
    else if (next.state === "invalid" || (next.reason && next.state === "waiting")) this.#said = ["invalid", { field: next.name, reason: next.reason }, "bad"];
    else this.#said = ["next", { field: next.name }];
    this.#draw();
  }

  // Without a good token. Whoever answers the event with a bad one is not asked again at once.
  #signedOut() {
    this.#stop.abort();
    if (this.#token === null) this.#show("loading");
    else this.#show("signed-out", "signed-out", {}, "bad");
    clearTimeout(this.#asking);
    this.#asking = setTimeout(() => this.#emit("token-needed", {}), this.#asked + POLL - Date.now());
    this.#asked = Math.max(Date.now(), this.#asked + POLL);
  }

  #show(state, say = state, more = {}, kind = state === "failed" || state === "sealed" ? "bad" : "") {
    this.#state = state;
    this.#said = [say, more, kind];
    if (["no-call", "ready", "sealed", "notice", "several-calls"].includes(state)) {
      this.#fields.clear();
      this.#capture = null;
      this.#speech = "off";
    }
    this.#draw();
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail }));
  }

  // What is seen

  #text(key, values = {}) {
    return this.#texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  }

  #label(field) {
    return this.#labels[field] || this.#texts[field] || field[0].toUpperCase() + field.slice(1).replaceAll("-", " ");
  }

  #words([key, values = {}]) {
    const reasons = this.#texts.reasons;
    const told = { ...values, reason: reasons[values.reason] || reasons.fault };
    if (values.field) told.field = this.#label(values.field);
    return this.#text(key, told) + (key === "token" && this.hasAttribute("show-token") ? ` ${values.token}` : "");
  }

  #draw() {
    const wanted = this.lang || document.documentElement.lang || navigator.language || "en";
    const lang = [wanted, wanted.split("-")[0], "en"].find((name) => TEXTS[name]);
    this.#texts = this.#own || TEXTS[lang];
    const p = this.#parts;
    const focused = this.shadowRoot.activeElement;
    const running = ["keying", "complete", "submitting"].includes(this.#state);
    p.box.lang = this.#own ? wanted : lang;
    p.title.textContent = this.#text("title");
    p.box.setAttribute("aria-label", p.title.textContent);
    p.box.dataset.state = this.#sealed ? "sealed" : this.#state;
    p.box.setAttribute("aria-busy", String(this.#state === "loading" || this.#state === "begin"));
    const words = this.#words(this.#said);
    if (p.say.textContent !== words) p.say.textContent = words; // said again only when it has changed
    p.say.className = this.#said[2] || "";
    p.offline.textContent = this.#text("offline");
    p.offline.hidden = !this.#offline;
    p.muted.textContent = this.#text("muted");
    p.muted.hidden = this.#speech === "off" || this.#sealed || !running;
    for (const [name, there] of [
      ["accept", this.#state === "notice"],
      ["start", ["ready", "no-call", "several-calls", "begin", ...ENDED].includes(this.#state)],
      ["submit", this.#state === "complete"],
      ["cancel", this.#state === "keying" || this.#state === "complete"],
    ]) {
      p[name].textContent = this.#text(name === "start" && ENDED.includes(this.#state) ? "again" : name);
      p[name].hidden = !there;
      off(p[name], this.#busy || (name === "start" && (this.#sealed || !["ready", ...ENDED].includes(this.#state))));
    }
    this.#drawFields();
    if (focused && (!focused.isConnected || focused.hidden)) p.box.focus(); // or the keyboard would be nowhere
  }

  #drawFields() {
    const { list } = this.#parts;
    const over = ["failed", "cancelled"].includes(this.#state);
    const fields = [...this.#fields.values()];
    const next = fields.find((field) => field.state !== "complete");
    for (const row of [...list.children]) if (!this.#fields.has(row.dataset.field)) row.remove();
    for (const field of fields) {
      let row = [...list.children].find((known) => known.dataset.field === field.name);
      if (!row) {
        const again = make("button", { type: "button", onclick: () => this.reset(field.name) });
        row = make("li", {}, make("b"), again, make("span", { className: "dots", "aria-hidden": "true" }), make("span", { className: "note" }));
        row.dataset.field = field.name;
        list.append(row);
      }
      const [name, again, dots, note] = row.children;
      const now = field === next && this.#state === "keying" && !this.#sealed;
      row.className = over ? "" : `${field.state}${now ? " now" : ""}`;
      if (now) row.setAttribute("aria-current", "step");
      else row.removeAttribute("aria-current");
      name.textContent = this.#label(field.name);
      again.textContent = this.#text("reset");
      again.setAttribute("aria-label", `${again.textContent}: ${name.textContent}`);
      again.hidden = !["keying", "complete"].includes(this.#state) || field.state === "waiting";
      off(again, this.#busy);
      dots.textContent = over ? "" : "●".repeat(field.digits_received).replace(/.{4}(?=.)/g, "$& ");
      note.replaceChildren(...this.#note(field, over).map((part) => (part.nodeType ? part : make("bdi", {}, part))));
    }
    list.setAttribute("aria-label", this.#text("title"));
    list.hidden = !fields.length;
  }

  #note(field, over) {
    if (over) return [this.#text("wiped")];
    const n = field.digits_received;
    if (field.state === "invalid") return [this.#texts.reasons[field.reason] || ""];
    if (field.state === "filling") return [this.#text("filling", { n })];
    if (field.state !== "complete") return [this.#text("waiting")];
    const parts = [`✓ ${this.#text("filling", { n })}`];
    if (field.name === "pan" && field.brand) {
      const mark = document.createElement("template");
      mark.innerHTML = icon(field.brand);
      parts.push(mark.content, (BRANDS[field.brand] || [field.brand])[0]);
    }
    if (field.name === "pan" && field.last4) parts.push(this.#text("ending", { last4: field.last4 }));
    return parts;
  }
}

if (!customElements.get("flattone-payment")) customElements.define("flattone-payment", FlattonePayment);
