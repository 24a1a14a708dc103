// What single views do.
const $ = (s, e = document) => e.querySelector(s);

async function pending() {
	const badge = $("#pending");
	if (!badge || document.hidden) return;
	const r = await fetch("/api/v1/approvals?state=pending").catch(() => null);
	if (!r?.ok) return;
	const n = (await r.json()).pending;
	badge.textContent = n;
	badge.hidden = !n;
}

export function views() {
	pending();
	setInterval(pending, 10000);
}
