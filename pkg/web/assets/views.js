// What single views do.
const $ = (s, e = document) => e.querySelector(s);

const formToken = () => $("meta[name=form-token]")?.content ?? "";

async function pending() {
	const badge = $("#pending");
	if (!badge || document.hidden) return;
	const r = await fetch("/api/v1/approvals?state=pending").catch(() => null);
	if (!r?.ok) return;
	const v = await r.json();
	badge.textContent = v.pending;
	badge.hidden = !v.pending;
	// What came since this page was loaded is not put under the reader's hand.
	const lede = $("html[data-page=approvals] .lede");
	if (!lede) return;
	const shown = new Set([...document.querySelectorAll("#approvals > li")].map((li) => li.dataset.index));
	const fresh = v.approvals.filter((a) => !shown.has(a.id)).length;
	if (!fresh || lede.dataset.fresh === String(fresh)) return;
	lede.dataset.fresh = fresh;
	const a = document.createElement("a");
	a.href = "/approvals";
	a.textContent = `${fresh} more since: show`;
	lede.replaceChildren(`${v.pending} waiting for a person, `, a);
}

// The overview's verdicts, as they change.
async function verdicts() {
	const list = document.querySelectorAll(".verdict > li");
	if (!list.length || document.hidden) return;
	const r = await fetch("/api/v1/overview").catch(() => null);
	if (!r?.ok) return;
	(await r.json()).verdict.forEach((v, k) => {
		const li = list[k];
		if (!li) return;
		li.className = "is-" + v.state;
		for (const part of ["state", "text"]) {
			const e = $("." + part, li);
			if (e.textContent !== v[part]) e.textContent = v[part];
		}
	});
}

// The progress of a verification; the page is loaded anew when it is done.
async function verification() {
	const box = $("#check");
	if (!box || box.dataset.running !== "true") return;
	const bar = $("progress", box);
	const r = await fetch("/api/v1/log").catch(() => null);
	if (r?.ok) {
		const v = (await r.json()).verified;
		if (!v.running) { location.replace("/log"); return; }
		bar.max = v.of || 1;
		bar.value = v.done;
	}
	setTimeout(verification, 300);
}

function countdown() {
	for (const e of document.querySelectorAll("[data-expires]")) {
		const left = Math.max(0, Math.round((new Date(e.dataset.expires) - Date.now()) / 1000));
		const text = left ? `${left >= 120 ? Math.floor(left / 60) + " min" : left + " s"} left` : "expired";
		if (e.textContent !== text) e.textContent = text;
		if (!left) for (const b of e.closest("li").querySelectorAll("button")) b.disabled = true;
	}
}

// Security keys (WebAuthn). The daemon makes the challenge and checks the
// answer; this hands both on.
const encode = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const decode = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

async function challenge(about) {
	const r = await fetch("/api/v1/keys/challenge", { method: "POST", headers: { "X-Form-Token": formToken() }, body: new URLSearchParams({ about }) });
	const v = await r.json();
	if (!r.ok) throw new Error(v.error + (v.hint ? "; " + v.hint : ""));
	return v;
}

async function touch(bytes, keys) {
	const c = await navigator.credentials.get({ publicKey: {
		challenge: decode(bytes), rpId: location.hostname, timeout: 60000, userVerification: "preferred",
		allowCredentials: keys.map((id) => ({ type: "public-key", id: decode(id) })),
	} });
	return JSON.stringify({ id: encode(c.rawId), authenticator_data: encode(c.response.authenticatorData), client_data: encode(c.response.clientDataJSON), signature: encode(c.response.signature) });
}

function answers() {
	for (const form of document.querySelectorAll("form.answer")) {
		form.addEventListener("submit", async (e) => {
			const verb = e.submitter?.value;
			if (verb !== "approve" || form.assertion.value || !window.PublicKeyCredential) return;
			e.preventDefault();
			const say = $("[role=status]", form);
			try {
				const c = await challenge("approve:" + form.dataset.id);
				if (c.keys.length) {
					say.textContent = "Touch your security key";
					form.assertion.value = await touch(c.challenge, c.keys);
				}
			} catch (err) {
				say.textContent = "Not approved: " + err.message;
				return;
			}
			form.submit();
		});
	}
}

function registration() {
	const form = $("#register");
	if (!form || !window.PublicKeyCredential) return;
	form.hidden = false;
	form.addEventListener("submit", async (e) => {
		if (form.key.value) return;
		e.preventDefault();
		const say = $("[role=status]", form);
		try {
			const c = await challenge("register");
			if (c.touch) {
				say.textContent = "Touch a key that is registered already";
				form.assertion.value = await touch(c.touch, c.keys);
			}
			say.textContent = "Touch the new key";
			const user = document.querySelector(".who span").firstChild.textContent.trim();
			const made = await navigator.credentials.create({ publicKey: {
				challenge: decode(c.challenge), rp: { name: "GhostBridge", id: location.hostname },
				user: { id: new TextEncoder().encode(user), name: user, displayName: user },
				pubKeyCredParams: [{ type: "public-key", alg: -7 }, { type: "public-key", alg: -8 }, { type: "public-key", alg: -257 }],
				authenticatorSelection: { userVerification: "preferred", residentKey: "discouraged" },
				excludeCredentials: c.keys.map((id) => ({ type: "public-key", id: decode(id) })), attestation: "none", timeout: 60000,
			} });
			form.key.value = JSON.stringify({ id: encode(made.rawId), public_key: encode(made.response.getPublicKey()), authenticator_data: encode(made.response.getAuthenticatorData()),
				client_data: encode(made.response.clientDataJSON), name: form.key_name.value });
		} catch (err) {
			say.textContent = "Not registered: " + err.message;
			form.assertion.value = form.key.value = "";
			return;
		}
		form.submit();
	});
}

// A bar of the histogram leads to its time. The chart is a picture for those who
// can't see it; since and until do the same.
function zoom() {
	$("#histogram")?.addEventListener("click", (e) => {
		const query = e.target.closest("[data-query]")?.dataset.query;
		if (query) location.href = "/timeline?" + query;
	});
}

export function views() {
	zoom();
	pending();
	setInterval(pending, 5000);
	setInterval(verdicts, 5000);
	verification();
	answers();
	registration();
	if ($("[data-expires]")) setInterval(countdown, 1000);
}
