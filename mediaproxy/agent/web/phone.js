// The agent's phone, beside the payment bar, for sites without a softphone: JsSIP over this server's WebSocket.
import { token } from "/web/access.js";

const $ = (id) => document.getElementById(id);
const SOUND = { mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [], rtcpMuxPolicy: "require" } };
const WHY = {
  "User Denied Media Access": "The browser may not use the microphone.", Rejected: "Declined.", Busy: "Busy.",
  "Not Found": "That number does not exist.", Unavailable: "Nobody can be reached there.", "No Answer": "No answer.",
  "WebRTC Error": "The other side has refused that, and the call has ended.",
};
const DIALLED = /^\+?[0-9*#]+$/;
const TITLE = document.title;
const AGAIN_MS = 5000;

let agent = null; // of JsSIP: what is registered
let call = null;
let held = false, muted = false, taken = false;
let since = 0; // when both were connected, in milliseconds
let bell = null;

async function available() {
  return (await fetch("/web/phone.json", { cache: "no-store" })).json();
}

function load(url) {
  return new Promise((done, failed) => {
    document.head.append(Object.assign(document.createElement("script"), { src: url, onload: done, onerror: () => failed(new Error("The phone’s script cannot be loaded.")) }));
  });
}

function say(text) {
  $("phone-say").textContent = text;
}

function ring(on) {
  document.title = on ? `☎ ${TITLE}` : TITLE;
  if (on === Boolean(bell)) return;
  if (!on) return void (bell.close(), bell = null);
  bell = new AudioContext();
  const tone = new OscillatorNode(bell, { frequency: 425 }), level = new GainNode(bell, { gain: 0 });
  for (let at = 0; at < 300; at += 5) { // a second of each five
    level.gain.setValueAtTime(0.1, bell.currentTime + at);
    level.gain.setValueAtTime(0, bell.currentTime + at + 1);
  }
  tone.connect(level).connect(bell.destination);
  tone.start();
}

function show() {
  const rings = call?.direction === "incoming" && !taken;
  const state = !call ? "idle" : since ? "talking" : rings ? "ringing" : "calling";
  $("phone").dataset.state = state;
  ring(state === "ringing");
  $("dial").hidden = state !== "idle";
  $("answer").hidden = state !== "ringing";
  $("decline").hidden = state !== "ringing";
  $("hang-up").hidden = state !== "talking" && state !== "calling";
  for (const name of ["mute", "hold"]) $(name).hidden = state !== "talking";
  $("mute").setAttribute("aria-pressed", muted);
  $("hold").setAttribute("aria-pressed", held);
  $("dial-go").disabled = !agent?.isRegistered();
  $("registered").textContent = !agent ? "" : agent.isRegistered() ? "registered" : agent.isConnected() ? "not registered" : "no connection";
  $("registered").className = agent?.isRegistered() ? "good" : "bad";
}

function why({ cause, originator, message }) {
  if (cause !== "Canceled") return WHY[cause];
  if (originator === "local") return "Cancelled.";
  return message?.getHeader?.("Reason")?.includes("cause=200") ? "Answered elsewhere." : "The caller has hung up.";
}

function clock() {
  if (!call || !since) return;
  const seconds = Math.floor((Date.now() - since) / 1000);
  say(`${held ? "On hold" : muted ? "Microphone off" : "Connected"} · ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`);
}
setInterval(clock, 500);

function take(session) {
  if (call) return session.terminate({ status_code: 486 }); // one at a time
  call = session;
  held = muted = taken = false;
  since = 0;
  session.on("peerconnection", ({ peerconnection }) => listen(peerconnection));
  if (session.connection) listen(session.connection);
  session.on("progress", () => session.direction === "outgoing" && say("Ringing …"));
  session.on("confirmed", () => {
    since = Date.now();
    show();
    clock();
    if (document.activeElement === document.body) $("mute").focus(); // it was on the button that is gone
  });
  session.on("hold", ({ originator }) => { if (originator === "local") held = true; show(); });
  session.on("unhold", ({ originator }) => { if (originator === "local") held = false; show(); });
  for (const end of ["ended", "failed"]) session.on(end, (event) => {
    if (call !== session) return;
    call = null;
    since = 0;
    $("far").srcObject = null;
    say(why(event) || (end === "ended" ? "The call has ended." : `The call has failed: ${event.cause}.`));
    show();
  });
  if (session.direction === "incoming") say(`Call from ${session.remote_identity.display_name || session.remote_identity.uri.user || "an unknown number"}`);
  show();
}

function listen(connection) {
  connection.addEventListener("track", ({ track, streams }) => {
    $("far").srcObject = streams[0] || new MediaStream([track]);
    $("far").play().catch(() => say("Press a key or click once so that the browser may play sound."));
  });
}

const bearer = async () => `Bearer ${await token()}`;

async function renew() { // a token that may have ended meanwhile
  try {
    agent?.set("authorization_jwt", await bearer());
  } catch { /* signed out: the page says so */ }
}

async function again() {
  await renew();
  if (agent?.isConnected()) agent.register();
}

export async function start(extension) {
  const { url, library } = await available();
  if (!url) return;
  $("phone").hidden = false;
  try {
    if (!globalThis.JsSIP) await load(library);
  } catch (error) {
    say(error.message);
    return show();
  }
  const JsSIP = globalThis.JsSIP;
  agent = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(url)], uri: `sip:${encodeURIComponent(extension)}@${new URL(url).hostname}`,
    authorization_jwt: await bearer(), register_expires: 300, session_timers: false, user_agent: "Flattone desk",
    connection_recovery_min_interval: 1, connection_recovery_max_interval: 2,
  });
  agent.on("connected", renew);
  agent.on("disconnected", show);
  agent.on("registered", () => { if (!call) say("Ready."); show(); });
  agent.on("unregistered", show);
  agent.on("registrationFailed", ({ cause }) => {
    say(`This phone could not be registered: ${cause}.`);
    show();
    setTimeout(() => !agent?.isRegistered() && again(), AGAIN_MS);
  });
  agent.on("registrationExpiring", again);
  agent.on("newRTCSession", ({ session }) => take(session));
  agent.start();
  show();
}

export function stop() {
  agent?.stop();
  agent = call = null;
  show();
  $("phone").hidden = true;
}

$("dial").onsubmit = (event) => {
  event.preventDefault();
  const number = $("number").value.replaceAll(/[\s().-]/g, "");
  if (!number || call) return;
  if (!DIALLED.test(number)) return say("A number has digits, *, # and a + in front.");
  say(`Calling ${number} …`);
  agent.call(number, SOUND);
};
$("answer").onclick = () => {
  if (!call || taken) return;
  taken = true;
  say("Connecting …");
  show();
  call.answer(SOUND);
};
$("decline").onclick = () => call?.terminate({ status_code: 603 });
$("hang-up").onclick = () => call?.terminate();
$("mute").onclick = () => {
  muted = !muted;
  if (muted) call?.mute({ audio: true }); else call?.unmute({ audio: true });
  show();
  clock();
};
addEventListener("beforeunload", (event) => call && event.preventDefault());
addEventListener("pagehide", () => agent?.stop()); // hangs up
$("hold").onclick = () => (held ? call?.unhold() : call?.hold());
