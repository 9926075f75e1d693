// The supervisor's page: live calls, their modes, what is wrong; a sealed call can be released, passthrough ended.
import { access, ask, every } from "/web/access.js";

const $ = (id) => document.getElementById(id);
const EVERY = 2000; // ms
const ALARMS = {
  "key-behind-the-mask": "A key was heard behind the mask; the call was silenced", "keys-lost": "Keys were lost; a capture failed",
  "worker-held-up": "A media worker was held up", "media-fault": "A fault in a media worker", "recording-lost": "Parts of recordings were lost",
  "signalling-fault": "A fault in signalling", "recording-failed": "A recording failed", "audit-not-written": "The audit log cannot be written",
  "receipt-not-delivered": "A receipt was not delivered", "process-restarted": "A process was restarted", "process-missing": "A process is not ready",
  "worker-near-its-limit": "A media worker is near its limit",
};
const MODES = { guarded: "masked", armed: "payment", sealed: "sealed", passthrough: "keys pass" };
const ACTIONS = { sealed: ["release", "Release"], passthrough: ["guard", "End passthrough"] };
let here = false, alarmed = true;

const cell = (text, kind = "") => Object.assign(document.createElement("td"), { textContent: text, className: kind });

function time(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function show(call, place) {
  let row = [...$("calls").children].find((known) => known.dataset.call === call.id);
  if (!row) {
    row = document.createElement("tr");
    row.dataset.call = call.id;
    for (let i = 0; i < 7; i++) row.append(cell(""));
  }
  if ($("calls").children[place] !== row) $("calls").insertBefore(row, $("calls").children[place] || null); // keeps the focus
  const texts = [call.number, MODES[call.mode] || call.mode, null, call.capture ? call.capture_state || "running" : "", call.state === "answered" ? time(call.seconds) : call.state, call.direction, call.route];
  texts.forEach((text, i) => { if (text !== null) row.children[i].textContent = text; });
  row.children[1].className = call.mode === "sealed" ? "bad" : call.mode === "armed" ? "good" : "";
  const [action, words] = ACTIONS[call.mode] || [];
  let button = row.querySelector("button");
  if (button && button.dataset.action !== action) button = button.remove();
  if (action && !button) {
    button = Object.assign(document.createElement("button"), { type: "button", textContent: words });
    button.dataset.action = action;
    button.setAttribute("aria-label", `${words}: ${call.number}`);
    button.onclick = () => ask(`/v1/calls/${encodeURIComponent(call.id)}/${action}`, "POST").then(look).catch((error) => { $("status").textContent = error.message; });
    row.children[2].append(button);
  }
}

async function look() {
  if (!here) return;
  try {
    const calls = [];
    for (let after = ""; after !== null;) {
      const page = await ask(`/v1/calls?limit=500${after && `&after=${after}`}`);
      calls.push(...page.calls);
      after = page.next;
    }
    calls.sort((a, b) => (b.mode === "sealed") - (a.mode === "sealed") || b.seconds - a.seconds);
    const there = new Set(calls.map((call) => call.id));
    for (const row of [...$("calls").children]) if (!there.has(row.dataset.call)) row.remove();
    calls.forEach(show);
    $("none").hidden = calls.length > 0;
    const sealed = calls.filter((call) => call.mode === "sealed").length;
    await lookAtAlarms(sealed);
    $("status").textContent = `${calls.length} call${calls.length === 1 ? "" : "s"}, ${calls.filter((call) => call.capture).length} with a payment, ${sealed} sealed`;
    $("status").className = "";
  } catch (error) {
    if (error.status === 401) return;
    $("status").textContent = "The server cannot be reached. This is not up to date.";
    $("status").className = "bad";
  }
}

async function lookAtAlarms(sealed) {
  const { now, past } = alarmed ? await ask("/v1/alarms").catch((error) => {
    if (error.status !== 403) throw error;
    alarmed = false; // of the whole machine, and not this tenant's
    return { now: [], past: [] };
  }) : { now: [], past: [] };
  const lines = [
    ...(sealed ? [["bad", `${sealed} sealed call${sealed === 1 ? "" : "s"}: the caller is not heard until released`]] : []),
    ...now.map((alarm) => ["bad", `Now: ${ALARMS[alarm.kind] || alarm.kind} (${alarm.worker})`]),
    ...past.slice(0, 20).map((alarm) => ["", `${new Date(alarm.at * 1000).toLocaleTimeString()}: ${ALARMS[alarm.kind] || alarm.kind} (${alarm.worker}${alarm.count > 1 ? `, ${alarm.count} times` : ""})`]),
  ];
  const texts = lines.map(([, text]) => text).join("\n");
  if ($("alarms").dataset.texts === texts) return;
  $("alarms").dataset.texts = texts;
  $("alarms").replaceChildren(...(lines.length ? lines : [["", "None."]]).map(([className, textContent]) => Object.assign(document.createElement("li"), { className, textContent })));
}

access(async (me) => {
  if (!me.roles.includes("supervisor")) throw Object.assign(new Error("This token is not a supervisor’s."), { status: 403 });
  here = true;
  $("live").hidden = false;
  await look();
});
addEventListener("left", () => {
  here = false;
  $("live").hidden = true;
  $("calls").replaceChildren();
});
every(EVERY, look);
