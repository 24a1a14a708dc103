// The keyboard.
const $ = (s, e = document) => e.querySelector(s);

const rows = () => [...document.querySelectorAll("#events [data-index], #approvals > li")].filter((r) => !r.hidden);

export const selected = () => $("#events [aria-selected=true], #approvals > [aria-selected=true]");

function select(row) {
	const old = selected();
	if (old) old.removeAttribute("aria-selected");
	if (!row) return;
	row.setAttribute("aria-selected", "true");
	row.scrollIntoView({ block: "nearest" });
	say(row.textContent.replace(/\s+/g, " ").trim().slice(0, 200));
}

export function say(text) {
	$("#status").textContent = text;
}

function move(by) {
	const list = rows();
	if (!list.length) return;
	const at = list.indexOf(selected());
	select(list[Math.min(Math.max(at + by, 0), list.length - 1)] ?? list[0]);
}

function typing(t) {
	return t.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(t.tagName);
}

export function keys() {
	let going = 0;
	document.addEventListener("keydown", (e) => {
		if (e.ctrlKey || e.metaKey || e.altKey) return;
		if (typing(e.target)) {
			if (e.key === "Escape") e.target.blur();
			return;
		}
		if (going && Date.now() - going < 1500) {
			going = 0;
			const a = $(`.side a[data-key="${CSS.escape(e.key)}"]`);
			if (a) { e.preventDefault(); a.click(); }
			return;
		}
		const help = $("#help");
		if (help.open && e.key !== "?") return;
		switch (e.key) {
		case "/": { const q = $("main input[type=search]#q") ?? $("#ask"); if (q) { q.focus(); q.select(); } break; }
		case "j": move(1); break;
		case "k": move(-1); break;
		case "Enter": case "o": {
			const a = selected()?.querySelector(".m a, .hit-text a, a");
			if (!a || e.target.closest("a, button, summary")) return;
			a.click();
			break;
		}
		case "[": $("main a[rel=prev]")?.click(); break;
		case "]": $("main a[rel=next]")?.click(); break;
		case " ": if (e.target.closest("button, a, summary") || !$("#pause") || $("#live").hidden) return; $("#pause").click(); break;
		case "a": case "d": {
			const item = selected() ?? rows().find((r) => r.matches("#approvals > li"));
			const b = item?.querySelector(e.key === "a" ? "button[value=approve]" : "button[value=deny]");
			if (!b) return;
			b.focus(); // a second Enter, or a click, does it: one key is too easily pressed
			say(b.textContent + "? Enter does it.");
			break;
		}
		case "g": going = Date.now(); break;
		case "?": help.open ? help.close() : help.showModal(); break;
		case "Escape": select(null); break;
		default: return;
		}
		e.preventDefault();
	});
}
