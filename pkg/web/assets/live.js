// The live tail. Rows stay where they are and change what they say, so that
// nothing moves under the reader. While a row is selected, hovered or focused,
// or the page is scrolled, what comes is held back and counted.
import { selected, say } from "./keys.js";

const $ = (s, e = document) => e.querySelector(s);

function fill(tr, e) {
	tr.className = "sev-" + e.look;
	tr.dataset.index = e.index;
	tr.removeAttribute("aria-hidden");
	const [t, s, o, m, a, i] = tr.children;
	const time = t.firstElementChild;
	time.dateTime = e.time;
	time.title = e.day;
	time.textContent = e.clock;
	s.firstElementChild.textContent = e.severity;
	o.children[0].textContent = e.source;
	o.children[1].textContent = e.type;
	m.firstElementChild.href = "/events/" + e.index;
	m.firstElementChild.firstElementChild.textContent = e.message || "(no message)";
	a.firstElementChild.textContent = e.actor ?? "";
	i.textContent = e.index;
}

function read(tr) {
	const [t, s, o, m, a] = tr.children;
	return {
		index: +tr.dataset.index, look: tr.className.replace("sev-", ""), time: t.firstElementChild.dateTime, day: t.firstElementChild.title,
		clock: t.textContent, severity: s.textContent, source: o.children[0].textContent, type: o.children[1].textContent,
		message: m.textContent, actor: a.textContent,
	};
}

export function live() {
	const box = $("#live"), body = $("#events tbody"), template = $("#row");
	if (!box || !("live" in box.dataset) || !body || !template || !window.EventSource) return;
	const button = $("#pause"), label = $(".label", button);
	const size = body.children.length;
	const shown = [...body.querySelectorAll("[data-index]")].map(read);
	let held = [], count = 0, paused = false, source, last = -1, frame = 0, retry = 0;
	box.hidden = false;
	// Empty rows become real ones.
	for (const pad of body.querySelectorAll(".pad")) {
		const tr = template.content.firstElementChild.cloneNode(true);
		tr.className = "pad";
		tr.setAttribute("aria-hidden", "true");
		tr.removeAttribute("data-index");
		pad.replaceWith(tr);
	}
	const rows = [...body.children];
	const busy = () => paused || window.scrollY > 60 || body.matches(":hover") || body.contains(document.activeElement) || selected();

	function draw() {
		frame = 0;
		if (held.length && !busy()) {
			shown.unshift(...held.reverse());
			shown.length = Math.min(shown.length, size);
			held = [];
			count = 0;
			const note = $(".list .empty");
			if (note) note.hidden = true;
			shown.forEach((e, k) => { if (rows[k].dataset.index !== String(e.index)) fill(rows[k], e); });
		}
		const text = paused ? "Paused" : source && source.readyState === 1 ? "Live" : "Reconnecting";
		label.textContent = count ? `${text}, ${count > 9999 ? "9999+" : count} new` : text;
	}
	const schedule = () => { frame ||= requestAnimationFrame(draw); };

	function connect() {
		const url = new URL(box.dataset.src, location.href);
		if (last >= 0) url.searchParams.set("from", last + 1);
		source = new EventSource(url);
		source.onopen = () => { box.classList.remove("lost"); retry = 0; schedule(); };
		source.onmessage = (m) => {
			last = +m.lastEventId;
			count++;
			held.push(JSON.parse(m.data));
			if (held.length > size) held.splice(0, held.length - size);
			schedule();
		};
		source.onerror = () => {
			box.classList.add("lost");
			schedule();
			// The browser comes back by itself unless the server refused it.
			if (source.readyState === 2) {
				source.close();
				fetch("/api/v1/events?limit=1").then((r) => { if (r.status === 401) location.reload(); }, () => {});
				setTimeout(connect, Math.min(500 * 2 ** retry++, 10000));
			}
		};
	}
	connect();
	button.addEventListener("click", () => {
		paused = !paused;
		button.setAttribute("aria-pressed", String(paused));
		say(paused ? "paused" : "live");
		if (!paused) { selected()?.removeAttribute("aria-selected"); window.scrollTo(0, 0); }
		schedule();
	});
	for (const what of ["mouseleave", "focusout"]) body.addEventListener(what, () => setTimeout(schedule));
	document.addEventListener("scroll", schedule, { passive: true });
	document.addEventListener("keyup", schedule);
	// A tab that nobody looks at does not hold a connection: browsers have few.
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) source.close();
		else if (source.readyState === 2) connect();
	});
	window.addEventListener("pagehide", () => source.close());

	// The histogram.
	const svg = $("#histogram");
	async function recount() {
		if (document.hidden || paused) return;
		const url = new URL(svg.dataset.src, location.href);
		for (const name of ["range", "since", "until"]) {
			const v = new URLSearchParams(location.search).get(name);
			if (v) url.searchParams.set(name, v);
		}
		const r = await fetch(url).catch(() => null);
		if (!r?.ok) return;
		const c = await r.json();
		const ns = "http://www.w3.org/2000/svg";
		const made = c.bars.map((b) => {
			const rect = document.createElementNS(ns, "rect"), title = document.createElementNS(ns, "title");
			rect.dataset.query = b.query;
			for (const [k, v] of [["x", b.x], ["y", b.y], ["width", b.w], ["height", b.h], ["class", "bar-" + b.look]]) rect.setAttribute(k, v);
			title.textContent = b.title;
			rect.append(title);
			return rect;
		});
		svg.replaceChildren(...made);
		$(".peak").textContent = "peak " + c.peak.toLocaleString("en").replaceAll(",", "\u202f");
		const axis = document.querySelectorAll(".axis span");
		c.axis.forEach((t, k) => { if (axis[k]) axis[k].textContent = t.text; });
		if (c.done) $(".counting")?.remove();
	}
	setInterval(recount, 5000);
}
