// The payment page: starts a capture, follows its events (with fetch, since EventSource sends no headers), shows
// counts and dots. There is nothing here that could show a digit.

const LABEL = { pan: "Card number", expiry: "Expiry date", cvv: "Security code" };
const REASON = {
  length: "not the right length", "check-digit": "not a valid number", month: "no such month", expired: "expired",
  timeout: "the caller took too long", agent: "cancelled by you", declined: "declined by the gateway",
  "invalid-field": "refused by the gateway", "gateway-unavailable": "the gateway cannot be reached",
  "not-configured": "payments are not set up for this call", "call-ended": "the call ended", sealed: "the line was sealed",
  tries: "keyed wrong too often", "test-gateway": "this is a test gateway, not yours", stopped: "the service was stopped",
  "call-lost": "the call was lost", "not-armed": "please start again", fault: "please start again",
  "answer-refused": "the gateway's answer was unsafe", "vault-restarted": "please start again",
  interrupted: "please key it again",
};
const STATUS = {
  keying: "The caller can key now.", complete: "All fields received. You can send them now.", submitting: "Sending to the gateway…",
  cancelled: "Cancelled.",
};
const PROBLEM = {
  unauthorized: "This access token is not known.", "no-call": "There is no call on this extension that you may see.",
  "several-calls": "There is more than one call on this extension.", ended: "The payment has ended.",
  "not-configured": "Payments are not set up for this call.", sealed: "The line is sealed. A supervisor can release it.",
  "vault-unavailable": "The payment service does not answer. Please try again.",
  "not-armed": "The line could not be prepared. Nothing was taken; please try again.",
};
const $ = (id) => document.getElementById(id);
const BRAND = {
  visa: "Visa", mastercard: "Mastercard", amex: "American Express", diners: "Diners Club", discover: "Discover",
  jcb: "JCB", unionpay: "UnionPay", maestro: "Maestro", mir: "Mir",
};
let capture = null;

async function call(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { Authorization: `Bearer ${$("token").value}`, "Content-Type": "application/json" },
    body: body ? JSON.stringify(body) : undefined,
  });
  const data = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(PROBLEM[data.title] || data.detail || data.title), { kind: data.title });
  return data;
}

// The capture that runs on the agent's call already, started by the call's route or before this page was opened.
async function running(extension) {
  const answer = await fetch("/v1/calls", { headers: { Authorization: `Bearer ${$("token").value}` } });
  const { calls } = await answer.json();
  return calls.find((c) => c.number === extension && c.capture)?.capture;
}

async function start(extension) {
  try {
    return (await call("/v1/captures", { call: { extension } })).id;
  } catch (error) {
    const there = error.kind === "busy" && (await running(extension));
    if (there) return there;
    throw error;
  }
}

const label = (field) => LABEL[field] || field[0].toUpperCase() + field.slice(1).replaceAll("-", " ");

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function show(field, state, count, extra) {
  let row = document.querySelector(`[data-field="${field}"]`);
  if (!row) {
    row = document.createElement("li");
    row.dataset.field = field;
    row.innerHTML = "<strong></strong><button type=button>Reset</button><span class=dots aria-hidden=true></span><span class=state></span>";
    row.querySelector("strong").textContent = label(field);
    row.querySelector("button").setAttribute("aria-label", `Reset ${label(field)}`);
    row.querySelector("button").onclick = () =>
      call(`/v1/captures/${capture}/fields/${field}/reset`).catch((error) => say(error.message, "bad"));
    $("fields").append(row);
  }
  row.className = state;
  row.querySelector("button").hidden = state === "waiting" && !extra.reason;
  for (const other of document.querySelectorAll("#fields li")) other.removeAttribute("aria-current");
  const current = [...document.querySelectorAll("#fields li")].find((li) => !li.classList.contains("complete"));
  if (current) current.setAttribute("aria-current", "step");
  if (state === "invalid") say(`${label(field)}: ${REASON[extra.reason] || "not valid"}. Please ask the caller to key it again.`, "bad");
  else if (state !== "filling") guide();
  row.querySelector(".dots").textContent = "●".repeat(count);
  const words = {
    waiting: "waiting",
    filling: `${count} digit${count === 1 ? "" : "s"} received${extra.reason ? ` (the try before: ${REASON[extra.reason]})` : ""}`,
    complete: `${count} digits received${extra.brand ? `, ${BRAND[extra.brand] || extra.brand}` : ""}${extra.last4 ? ` ending in ${extra.last4}` : ""} ✓`,
    invalid: `${REASON[extra.reason] || "not valid"}: the caller can key it again`,
  };
  row.querySelector(".state").textContent = words[state];
}

function guide() {
  const current = document.querySelector("#fields [aria-current]");
  say(current ? `The caller can key the ${label(current.dataset.field).toLowerCase()} now.` : STATUS.keying);
}

function take(event) {
  if (event.field) return show(event.field, event.state, event.digits_received, event);
  if (event.speech) $("speech").hidden = event.speech === "off";
  $("submit").hidden = event.state !== "complete";
  if (event.state === "submitting") {
    $("actions").hidden = true;
    for (const button of document.querySelectorAll("#fields button")) button.hidden = true;
  }
  if (event.state === "token") say(`Done. Token ${event.token}`, "good");
  else if (event.state === "failed") say(`Failed: ${REASON[event.reason] || "please start again"}.`, "bad");
  else if (event.state === "keying") guide();
  else say(STATUS[event.state] || event.state);
  if (["failed", "cancelled"].includes(event.state)) {
    for (const row of document.querySelectorAll("#fields li")) {
      row.className = "";
      row.querySelector(".dots").textContent = "";
      row.querySelector(".state").textContent = "wiped";
    }
  }
  if (["token", "failed", "cancelled"].includes(event.state)) finish();
}

function finish() {
  capture = null;
  $("actions").hidden = $("speech").hidden = true;
  for (const row of document.querySelectorAll("#fields li")) row.removeAttribute("aria-current");
  $("begin").disabled = false;
  for (const button of document.querySelectorAll("#fields button")) button.hidden = true;
}

async function follow(id) {
  let last = 0, rest = "";
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      const answer = await fetch(`/v1/captures/${id}/events`, {
        headers: { Authorization: `Bearer ${$("token").value}`, "Last-Event-ID": String(last) },
      });
      if (!answer.ok) break;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) {
          if (capture !== id) return;
          break; // the stream ended before the capture: ask again from where it stopped
        }
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const line = block.split("\n").find((l) => l.startsWith("data: "));
          if (!line) continue;
          const event = JSON.parse(line.slice(6));
          last = event.seq;
          take(event);
        }
      }
    } catch {
      // the connection broke: likewise
    }
    await new Promise((resume) => setTimeout(resume, 1000));
  }
  say("The connection was lost. What became of the payment is not known here.", "bad");
  finish();
}

$("start").onsubmit = async (event) => {
  event.preventDefault();
  $("begin").disabled = true;
  $("fields").replaceChildren();
  try {
    capture = await start($("extension").value);
    $("actions").hidden = false;
    follow(capture);
  } catch (error) {
    $("begin").disabled = false;
    say(error.message, "bad");
  }
};
$("submit").onclick = () => call(`/v1/captures/${capture}/submit`).catch((error) => say(error.message, "bad"));
$("cancel").onclick = () => call(`/v1/captures/${capture}/cancel`).catch((error) => say(error.message, "bad"));
