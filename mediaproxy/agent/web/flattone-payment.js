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
  amex: ["American Express", "#016fd0", "AMEX"], discover: ["Discover", "#555", "DISC"], diners: ["Diners Club", "#555", "DC"],
  jcb: ["JCB", "#555", "JCB"], unionpay: ["UnionPay", "#555", "UP"], mir: ["Mir", "#555", "MIR"],
};
const TROUBLE = 6000; // ms for which it is said what was wrong with an order
const ANSWER = 15000; // ms in which a request is answered
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
@container(min-width:620px){ol{grid-auto-flow:column;grid-auto-columns:1fr}}
li{padding:8px 10px;border:1px solid var(--line);border-radius:8px;min-height:90px}
.head{display:flex;flex-wrap:wrap;gap:2px 8px;justify-content:space-between;min-height:26px}
li.now{outline:2px solid var(--main);outline-offset:-1px}
li b{font-weight:600;overflow-wrap:break-word;hyphens:auto;min-width:0}
.dots{display:block;font-size:.72em;letter-spacing:.06em;line-height:2;min-height:2em;overflow-wrap:anywhere}
.note{font-size:.9em;color:var(--soft);display:flex;flex-wrap:wrap;gap:2px 8px;align-items:center}
.complete .note{color:var(--good)}.invalid .note{color:var(--bad)}svg{flex:none;font-family:sans-serif}
button{font:inherit;font-weight:600;color:var(--main);background:none;border:1px solid var(--line);border-radius:8px;padding:6px 12px;min-height:36px;cursor:pointer}
button.main{background:var(--main);border-color:var(--main);color:var(--on)}
button[aria-disabled=true]{background:none;color:var(--soft);border:1px dashed var(--line);cursor:default}
:host([show-token]) #say{user-select:text;-webkit-user-select:text}
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

// Says it again only when it has changed, or screen readers would repeat it.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
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
  #me = null; // whose token it is
  #capture = null; // the id of the one that is shown, and of its call
  #call = null;
  #last = ""; // the id of its last event
  #fields = new Map();
  #state = "loading";
  #said = ["loading"];
  #trouble = null; // what was wrong with the last order, said for a while
  #speech = "off";
  #sealed = false;
  #offline = false;
  #busy = false;
  #orders = 0;
  #told = new Set(); // what the page around it has been told, each once
  #asked = -POLL; // when for a token
  #stop = new AbortController(); // ends whatever runs for the line as it was
  #wake = null;
  #parts = {};

  constructor() {
    super();
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const button = (act, main) => make("button", { type: "button", className: main ? "main" : "", onclick: (event) => event.target.ariaDisabled === "true" || act() });
    const p = (this.#parts = {
      title: make("h2"),
      say: make("p", { id: "say", role: "status", "aria-live": "polite" }),
      offline: make("p", { id: "offline", role: "status", hidden: true }),
      muted: make("p", { id: "muted", role: "status", hidden: true }),
      list: make("ol"),
      accept: button(() => this.#accept(), true),
      start: button(() => this.start(), true),
      submit: button(() => this.submit(), true),
      cancel: button(() => this.cancel()),
    });
    p.box = make("section", { tabIndex: -1 }, p.title, p.say, p.offline, p.muted, p.list, make("div", { className: "acts" }, p.accept, p.start, p.submit, p.cancel));
    root.append(p.box);
  }

  // What the page around it says

  get token() { return undefined; }
  set token(value) {
    const before = this.#token;
    this.#token = value;
    this.#me = null;
    if (!this.isConnected) return;
    if (!value || !before || this.#state === "loading" || this.#stop.signal.aborted) this.#enter(!!value && !!before);
    else this.#wake?.(); // a fresh one for what runs
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
    document.addEventListener("visibilitychange", this);
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
    document.removeEventListener("visibilitychange", this);
    this.#halt();
  }
  attributeChangedCallback(name, before, after) {
    if (!this.isConnected || before === after) return;
    if (name === "lang") this.#draw();
    else this.#enter();
  }
  handleEvent() { this.#wake?.(); }

  // The line, in one loop: what runs on it is asked of the server, and followed while it runs

  #halt() {
    this.#stop.abort();
    this.#wake?.();
  }

  // keep: it is the same line, with another token.
  #enter(keep = false) {
    this.#halt();
    this.#stop = new AbortController();
    if (!keep) {
      this.#clear();
      this.#show("loading");
    }
    if (this.#token) this.#run(this.#stop.signal);
    else this.#signedOut();
  }

  #clear() {
    this.#fields.clear();
    this.#capture = this.#call = null;
    this.#speech = "off";
    this.#sealed = false;
  }

  async #run(stop) {
    for (let pause = 500; !stop.aborted;) {
      try {
        if (!(await this.#known(stop))) await this.#pause(POLL);
        else if (await this.#look(stop)) {
          await this.#stream(stop);
          if (!this.#over) await this.#pause(pause);
        } else await this.#pause(document.hidden ? 5 * POLL : POLL);
        pause = 500;
      } catch (error) {
        if (stop.aborted) return;
        if (error.status === 401) {
          this.#signedOut();
          if (typeof this.#token !== "function") return this.#halt();
        } else if (error.status && error.status < 500 && error.status !== 404 && error.status !== 429) this.#problem(error.kind);
        else {
          this.#offline = true;
          this.#draw();
        }
        await this.#pause(pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    }
  }

  // Whether there is somebody who has read the notice, and a line.
  async #known(stop) {
    this.#me ??= await this.#ask("GET", "/v1/me", stop);
    const { numbers, notice_accepted } = this.#me;
    if (!notice_accepted) {
      if (this.#state !== "notice") this.#show("notice");
      return false;
    }
    if (Object.keys(this.#which).length) return true;
    if (numbers.length && numbers[0] !== "*") this.setAttribute("extension", numbers[0]); // enters anew
    else this.#show("no-call");
    return false;
  }

  get #which() {
    for (const [attribute, name] of [["call-id", "call_id"], ["correlation", "correlation"], ["extension", "extension"]]) {
      if (this.getAttribute(attribute)) return { [name]: this.getAttribute(attribute) };
    }
    return {};
  }

  // Shows what is there. True while a capture runs.
  async #look(stop) {
    const orders = this.#orders;
    const { captures: [newest] } = await this.#ask("GET", `/v1/captures?${new URLSearchParams({ ...this.#which, limit: 1 })}`, stop);
    const { calls: all } = await this.#ask("GET", `/v1/calls?${new URLSearchParams({ ...this.#which, limit: 9 })}`, stop);
    if (orders !== this.#orders || this.#busy) return this.#busy ? false : this.#look(stop); // it was before an order
    const calls = all.filter((call) => call.state === "answered");
    if (newest && (!ENDED.includes(newest.state) || (newest.id !== this.#capture && calls.some((call) => call.id === newest.call)))) {
      this.#take(newest, true);
      return !ENDED.includes(newest.state);
    }
    if (this.#capture && !this.#over && newest?.id !== this.#capture) { // its server does not know it any more
      this.#go({ id: this.#capture, state: "failed", reason: "fault" }, true);
    }
    const sealed = calls.length > 0 && calls.every((call) => call.mode === "sealed");
    const theirs = !calls.length || calls.some((call) => call.id === this.#call); // or another caller's result would stand
    if (!this.#over || !theirs || sealed) {
      this.#clear();
      this.#sealed = sealed;
      this.#show(!calls.length ? "no-call" : sealed ? "sealed" : calls.length > 1 ? "several-calls" : "ready");
    }
    return false;
  }

  get #over() { return ENDED.includes(this.#state); }

  // Orders

  #accept() {
    return this.#do(async (stop) => {
      this.#me = await this.#ask("POST", "/v1/notice", stop);
    });
  }

  start() {
    return this.#do(async (stop) => {
      if (!this.#me?.notice_accepted) return;
      this.#clear();
      this.#show("loading");
      const body = { call: this.#which };
      if (this.getAttribute("template")) body.template = this.getAttribute("template");
      else if (this.getAttribute("fields")) body.fields = this.getAttribute("fields").split(/[\s,]+/).filter(Boolean);
      const made = await this.#ask("POST", "/v1/captures", stop, body);
      this.#take(made, false);
    });
  }
  cancel() { return this.#order("cancel"); }
  submit() { return this.#order("submit"); }
  reset(field) { return this.#order(`fields/${encodeURIComponent(field)}/reset`); }

  #order(what) {
    const id = this.#capture;
    return id ? this.#do((stop) => this.#ask("POST", `/v1/captures/${id}/${what}`, stop)) : undefined;
  }

  // One order at a time; what became of it is seen by looking.
  async #do(work) {
    if (this.#busy) return;
    const stop = this.#stop.signal;
    this.#busy = true;
    this.#orders++;
    this.#trouble = null;
    this.#draw();
    try {
      await work(stop);
    } catch (error) {
      if (!stop.aborted && error.status !== 401 && !["ended", "not-complete", "submitting", "busy"].includes(error.kind)) this.#problem(error.kind);
    }
    this.#busy = false;
    this.#draw();
    this.#wake?.();
  }

  #problem(kind) {
    if (kind === "too-many-requests") kind = "busy";
    this.#trouble = kind === "not-configured" ? ["failed", { reason: kind }, "bad"] : [PROBLEMS.includes(kind) ? kind : "unavailable", {}, "bad"];
    clearTimeout(this.#parts.timer);
    this.#parts.timer = setTimeout(() => {
      this.#trouble = null;
      this.#draw();
    }, TROUBLE);
    this.#draw();
  }

  #reached() {
    if (!this.#offline) return;
    this.#offline = false;
    this.#draw();
  }

  #pause(ms) {
    return new Promise((resume) => {
      const timer = setTimeout(resume, ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = null;
        resume();
      };
    });
  }

  // The server

  get #server() { return (this.getAttribute("server") || HOME).replace(/\/+$/, ""); }

  async #fetch(path, signal, options) {
    let token = this.#token;
    if (typeof token === "function") {
      const late = new Promise((_, refuse) => signal.addEventListener("abort", () => refuse(new Error("no token in time")), { once: true }));
      token = await Promise.race([Promise.resolve().then(token), late]).catch((error) => {
        console.warn("flattone-payment: the page gave no token:", error);
        return "";
      });
    }
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Refused(401, "unauthorized"); // a sign-in page, say
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...options.headers };
    return fetch(this.#server + path, { ...options, headers, signal, cache: "no-store", credentials: "omit" });
  }

  // Runs `work` with a signal that also ends with `stop`, or when `again` has not been called for `ms`.
  async #within(ms, stop, work) {
    const cut = new AbortController();
    const end = () => cut.abort();
    let timer = setTimeout(end, ms);
    stop.addEventListener("abort", end);
    try {
      return await work(cut.signal, () => {
        clearTimeout(timer);
        timer = setTimeout(end, ms);
      });
    } finally {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
    }
  }

  async #ask(method, path, stop, body) {
    return this.#within(ANSWER, stop, async (signal) => {
      const answer = await this.#fetch(path, signal, { method, body: body && JSON.stringify(body) });
      const data = await answer.json();
      if (stop.aborted) throw new Error("it is about another line now");
      if (!answer.ok) throw new Refused(answer.status, data.title);
      this.#reached();
      return data;
    });
  }

  // The events of the capture that is shown, to the end of the connection.
  async #stream(stop) {
    await this.#within(SILENT, stop, async (signal, again) => {
      const answer = await this.#fetch(`/v1/captures/${this.#capture}/events`, signal, { headers: { "Last-Event-ID": this.#last } });
      if (!answer.ok) throw new Refused(answer.status, "");
      this.#reached();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done || stop.aborted) return;
        again();
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
    });
  }

  // What a capture is, as a whole and by events

  #take(capture, resumed) {
    this.#capture = capture.id;
    this.#call = capture.call;
    this.#last = capture.last_event_id;
    this.#speech = capture.speech;
    this.#sealed = capture.mode === "sealed";
    this.#fields.clear();
    for (const field of capture.fields) this.#fields.set(field.name, { ...field, brand: capture.brand, last4: capture.last4 });
    this.#tell("capture-started", { capture: capture.id, resumed });
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
      if (!this.#over) this.#guide();
      return;
    }
    if (event.speech) this.#speech = event.speech;
    if (event.mode) this.#sealed = event.mode === "sealed";
    this.#go(event, false);
  }

  #go(now, resumed) {
    this.#state = now.state;
    const { capture = now.id, token, brand, last4, reason } = now;
    if (!this.#over) return this.#guide();
    this.#speech = "off";
    if (now.state === "token") {
      this.#said = ["token", { token }, "good"];
      this.#tell("token", { capture, token, brand, last4, resumed });
    } else {
      this.#said = [now.state, { reason }, now.state === "failed" ? "bad" : ""];
      this.#tell("failed", { capture, reason, resumed });
    }
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
    if (this.#token === null) this.#show("loading");
    else {
      this.#said = ["signed-out", {}, "bad"];
      if (!this.#capture || this.#over) this.#state = "signed-out";
      this.#draw();
    }
    const now = performance.now();
    clearTimeout(this.#parts.asking);
    this.#parts.asking = setTimeout(() => this.isConnected && this.#emit("token-needed", {}), this.#asked + POLL - now);
    this.#asked = Math.max(now, this.#asked + POLL);
  }

  #show(state) {
    this.#state = state;
    this.#said = [state, {}, state === "sealed" ? "bad" : ""];
    this.#draw();
  }

  #tell(type, detail) {
    if (this.#told.has(type + detail.capture)) return;
    this.#told.add(type + detail.capture);
    this.#emit(type, detail);
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
    const wanted = (this.lang || document.documentElement.lang || navigator.language || "en").toLowerCase();
    const lang = [wanted, wanted.split("-")[0], "en"].find((name) => Object.hasOwn(TEXTS, name));
    this.#texts = this.#own || TEXTS[lang];
    const p = this.#parts;
    const focused = this.shadowRoot.activeElement;
    const running = ["keying", "complete", "submitting"].includes(this.#state);
    p.box.lang = this.#own ? wanted : lang;
    put(p.title, this.#text("title"));
    p.box.setAttribute("aria-label", p.title.textContent);
    p.box.dataset.state = this.#sealed ? "sealed" : this.#state;
    p.box.setAttribute("aria-busy", String(this.#state === "loading"));
    const said = this.#trouble || this.#said;
    put(p.say, this.#words(said));
    p.say.className = said[2] || "";
    put(p.offline, this.#text("offline"));
    p.offline.hidden = !this.#offline;
    put(p.muted, this.#text("muted"));
    p.muted.hidden = this.#speech === "off" || this.#sealed || !running;
    for (const [name, there] of [
      ["accept", this.#state === "notice"],
      ["start", ["ready", "no-call", "several-calls", ...ENDED].includes(this.#state)],
      ["submit", this.#state === "complete"],
      ["cancel", this.#state === "keying" || this.#state === "complete"],
    ]) {
      put(p[name], this.#text(name === "start" && this.#over ? "again" : name));
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
        row = make("li", {}, make("div", { className: "head" }, make("b"), again), make("span", { className: "dots", "aria-hidden": "true" }), make("span", { className: "note" }));
        row.dataset.field = field.name;
        list.append(row);
      }
      const [head, dots, note] = row.children;
      const [name, again] = head.children;
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
