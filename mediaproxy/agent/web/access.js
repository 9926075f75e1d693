// Coming in to this server's own pages: with a token, or by an identity provider. Kept for this tab only, so that a reload
// does not ask again.
import { comeBack, current, forget, leaveFor, providers } from "/web/sign-in.js";

const $ = (id) => document.getElementById(id);
const KEPT = "flattone-token";

// The token for a request: renewed where it can be.
export async function token() {
  return (await current()) || sessionStorage.getItem(KEPT) || "";
}

export async function ask(path, method = "GET") {
  const headers = { Authorization: `Bearer ${await token()}` };
  const answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
  const data = await answer.json();
  if (answer.status === 401) leave("This sign-in has ended.");
  if (!answer.ok) throw Object.assign(new Error(data.detail || data.title), { status: answer.status });
  return data;
}

export function leave(why = "") {
  sessionStorage.removeItem(KEPT);
  forget();
  $("why").textContent = why;
  $("enter").hidden = false;
  $("leave").hidden = true;
  $("who").textContent = "";
  dispatchEvent(new Event("left"));
}

// Calls `look` every so often, one at a time: what a slow network keeps waiting does not pile up.
export async function every(ms, look) {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resume) => setTimeout(resume, ms));
  }
}

// Calls `entered(me)` once somebody is in; what it throws is said on the form.
export async function access(entered) {
  async function enter() {
    const kept = await token();
    try {
      const me = await ask("/v1/me");
      await entered(me);
      $("who").textContent = `${me.name}${me.tenant && me.tenant !== "*" ? ` · ${me.tenant}` : ""}`;
      $("token").value = "";
      $("enter").hidden = true;
      $("leave").hidden = false;
    } catch (error) {
      leave(error.status === 401 ? "This token is not known here." : error.status ? error.message : "The server cannot be reached.");
      if (!error.status || error.status >= 429) sessionStorage.setItem(KEPT, kept); // it may be good another time
    }
  }
  $("enter").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEPT, $("token").value.trim());
    enter();
  };
  $("leave").onclick = () => leave();
  try {
    await comeBack();
  } catch (error) {
    return leave(error.message);
  } finally {
    drawDoors();
  }
  if (await token()) return enter();
  leave();
}

async function drawDoors() {
  const doors = (await providers()).map((provider) => Object.assign(document.createElement("button"), {
    type: "button",
    textContent: `Sign in with ${provider.name}`,
    onclick: () => leaveFor(provider).catch((error) => { $("why").textContent = error.message; }),
  }));
  $("doors").replaceChildren(...doors);
  $("doors").hidden = !doors.length;
}
