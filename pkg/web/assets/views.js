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

// The progress of a verification; the page is loaded anew when it is done.
async function verification() {
	const box = $("#check");
	if (!box || box.dataset.running !== "true") return;
	const bar = $("progress", box);
	const r = await fetch("/api/v1/log").catch(() => null);
	if (r?.ok) {
		const v = (await r.json()).verified;
		if (!v.running) { location.reload(); return; }
		bar.max = v.of || 1;
		bar.value = v.done;
	}
	setTimeout(verification, 300);
}

export function views() {
	verification();
	pending();
	setInterval(pending, 10000);
}
