// The agent's desk: the call on the own line beside the payment bar, for sites without a CRM.
import { access, ask, every, token } from "/web/access.js";
import { start, stop } from "/web/phone.js";

const $ = (id) => document.getElementById(id);
const MODES = {
  guarded: "keys are masked", armed: "payment: keys are captured", sealed: "closed for safety", passthrough: "keys pass (menu)",
};
let line = null;
$("bar").lang = navigator.language;

function row(name, value) {
  const part = document.createElement("div");
  part.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
  return part;
}

async function look() {
  if (line === null) return;
  try {
    const { calls: mine } = await ask(`/v1/calls?${new URLSearchParams({ extension: line, limit: 9 })}`);
    const [call] = mine;
    const time = call && `${Math.floor(call.seconds / 60)}:${String(call.seconds % 60).padStart(2, "0")}`;
    $("call").replaceChildren(
      row("Line", line),
      ...(mine.length > 1 ? [row("Calls", mine.length)] : call ? [row("Call", `${call.direction}, ${call.state}, ${time}`), row("Sound", MODES[call.mode] || call.mode)] : [row("Call", "none")]),
    );
  } catch {
    return; // the bar says so
  }
}

access(async (me) => {
  const asked = $("extension").value.trim() || sessionStorage.getItem("flattone-extension") || "";
  if (asked && me.roles.includes("agent") && !me.numbers.includes("*") && !me.numbers.includes(asked)) {
    sessionStorage.removeItem("flattone-extension");
    throw Object.assign(new Error("This token is not for that extension."), { status: 403 });
  }
  if (!me.roles.includes("agent") && !me.roles.includes("supervisor")) throw Object.assign(new Error("This token is not an agent’s."), { status: 403 });
  line = asked || me.numbers.find((number) => number !== "*") || "";
  if (!line) throw Object.assign(new Error("Please say which extension."), { status: 422 });
  sessionStorage.setItem("flattone-extension", line);
  $("bar").setAttribute("extension", line);
  $("bar").token = token; // asked for one before each request
  $("desk").hidden = false;
  look();
  if (me.roles.includes("agent") && me.numbers.includes(line)) start(line).catch((error) => { $("call").title = error.message; });
});
addEventListener("left", () => {
  line = null;
  stop();
  sessionStorage.removeItem("flattone-extension");
  $("desk").hidden = true;
  $("bar").token = "";
});
every(1000, look);
