// Signing in at an identity provider (OpenID Connect, authorization code with PKCE: RFC 7636), as a public client: there is
// no secret in it. Access tokens are renewed for as long as the provider gives refresh tokens; all of it is kept for this
// tab only.

const KEPT = "flattone-sign-in";
const EARLY = 30; // seconds before its end at which a token is renewed
const HERE = location.origin + location.pathname;

const kept = () => JSON.parse(sessionStorage.getItem(KEPT) || "null");
const base64url = (octets) => btoa(String.fromCharCode(...octets)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

export async function providers() {
  return (await fetch("/web/issuers.json")).json();
}

async function endpoints({ issuer }) {
  const found = await (await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`)).json();
  if (found.issuer !== issuer) throw new Error("The identity provider calls itself otherwise.");
  return found;
}

// Leaves for the provider's page, which comes back here.
export async function leaveFor(provider) {
  const { authorization_endpoint } = await endpoints(provider);
  const verifier = random(), state = random();
  const challenge = base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
  sessionStorage.setItem(KEPT, JSON.stringify({ provider, verifier, state }));
  const query = { response_type: "code", client_id: provider.client_id, redirect_uri: HERE, scope: provider.login_scope, state, code_challenge: challenge, code_challenge_method: "S256" };
  location.assign(`${authorization_endpoint}?${new URLSearchParams(query)}`);
}

async function exchange(provider, more) {
  const { token_endpoint } = await endpoints(provider);
  const answer = await fetch(token_endpoint, { method: "POST", body: new URLSearchParams({ client_id: provider.client_id, ...more }) });
  const data = await answer.json();
  if (!answer.ok || !data.access_token) throw new Error("The identity provider has refused to sign you in.");
  const ends = Date.now() / 1000 + (data.expires_in || 300);
  sessionStorage.setItem(KEPT, JSON.stringify({ provider, token: data.access_token, refresh: data.refresh_token || more.refresh_token, ends }));
  return data.access_token;
}

// Back from the provider: the token, or nothing where nobody has been there.
export async function comeBack() {
  const query = new URLSearchParams(location.search);
  const before = kept();
  if (!query.has("state")) return null;
  history.replaceState(null, "", HERE);
  if (!before?.state || query.get("state") !== before.state || !query.has("code")) throw new Error("Signing in was not finished.");
  return exchange(before.provider, { grant_type: "authorization_code", code: query.get("code"), redirect_uri: HERE, code_verifier: before.verifier });
}

// The token as it is now, renewed where it is about to end; nothing where it cannot be.
let renewing = null;
export async function current() {
  const now = kept();
  if (!now?.token) return null;
  if (now.ends - EARLY > Date.now() / 1000 || !now.refresh) return now.token;
  renewing ??= exchange(now.provider, { grant_type: "refresh_token", refresh_token: now.refresh }).finally(() => { renewing = null; });
  return renewing.catch(() => now.token); // which the server refuses once it has ended
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}
