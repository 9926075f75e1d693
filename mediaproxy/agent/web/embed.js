// The bar in a frame of a CRM. It speaks with the page around it by messages, and only with sites of the configuration.
//
// In:  {flattone: 1, type: "token", token} | "start" | "cancel" | "submit" | "reset", field
// Out: {flattone: 1, type: "ready" | "token-needed" | "capture-started" | "field-complete" | "token" | "failed" | "height", ...}

const bar = document.getElementById("bar");
const allowed = document.querySelector("meta[name=flattone-origins]").content.split(" ").filter(Boolean);
let parentOrigin = "";

bar.lang = navigator.language; // unless the page around it says which
for (const [name, value] of new URLSearchParams(location.search)) {
  if (["extension", "call-id", "correlation", "fields", "template", "lang", "theme"].includes(name)) bar.setAttribute(name, value);
  if (name === "dir" && ["rtl", "ltr"].includes(value)) document.documentElement.dir = value;
}

function tell(message) {
  const targets = parentOrigin ? [parentOrigin] : allowed; // before it has spoken: whichever of them it is
  for (const origin of targets) parent.postMessage({ flattone: 1, ...message }, origin);
}

for (const type of ["token-needed", "capture-started", "field-complete", "token", "failed"]) {
  bar.addEventListener(type, (event) => tell({ type, ...event.detail }));
}
addEventListener("message", (event) => {
  if (event.source !== parent || !allowed.includes(event.origin) || event.data?.flattone !== 1) return;
  parentOrigin = event.origin;
  const { type, token, field } = event.data;
  if (type === "token" && typeof token === "string") bar.token = token;
  else if (type === "start") bar.start();
  else if (type === "cancel") bar.cancel();
  else if (type === "submit") bar.submit();
  else if (type === "reset" && typeof field === "string") bar.reset(field);
});
new ResizeObserver(() => tell({ type: "height", height: Math.ceil(bar.getBoundingClientRect().height) })).observe(bar);
tell({ type: "ready" });
