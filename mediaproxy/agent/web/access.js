// Signing in to this server's own pages: a token, kept for this tab only, so that a reload does not ask again.

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("flattone-token") || "";

export async function ask(path, method = "GET") {
  const answer = await fetch(path, { method, headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
  const data = await answer.json();
  if (answer.status === 401) leave("This sign-in has ended.");
  if (!answer.ok) throw Object.assign(new Error(data.detail || data.title), { status: answer.status });
  return data;
}

export function leave(why = "") {
  token = "";
  sessionStorage.removeItem("flattone-token");
  $("why").textContent = why;
  $("enter").hidden = false;
  $("leave").hidden = true;
  $("who").textContent = "";
  dispatchEvent(new Event("left"));
}

// Calls `entered(me, token)` once somebody is in; what it throws is said on the form.
export function access(entered) {
  async function enter() {
    try {
      const me = await ask("/v1/me");
      await entered(me, token);
      sessionStorage.setItem("flattone-token", token);
      $("who").textContent = `${me.name}${me.tenant && me.tenant !== "*" ? ` · ${me.tenant}` : ""}`;
      $("enter").hidden = true;
      $("leave").hidden = false;
    } catch (error) {
      leave(error.status === 401 ? "This token is not known here." : error.status ? error.message : "The server cannot be reached.");
    }
  }
  $("enter").onsubmit = (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    $("token").value = "";
    enter();
  };
  $("leave").onclick = () => leave();
  if (token) enter();
  else leave();
}
