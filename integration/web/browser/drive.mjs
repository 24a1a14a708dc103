// Drives Chromium through gb-web: scenarios by name, all of them without one.
// It is started by the Go test, which gives it in the environment: GB_URL,
// GB_CONTROL (what it asks the Go side to do), GB_CHROMIUM, GB_MODULES.
// It prints a line of JSON for each scenario.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(process.env.GB_MODULES + "/");
const { chromium } = require("playwright-core");
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const base = process.env.GB_URL;
const views = ["/", "/timeline", "/search?q=disk+error", "/approvals", "/network", "/snapshots", "/dbus", "/dbus/org.example.Lamp?path=/org/example/Lamp", "/agents",
	"/policy?name=org.example.Lamp&path=/org/example/Lamp&member=org.example.Lamp.Switch&signature=b&args=%5Btrue%5D", "/log", "/events/7"];

const control = async (what, body = "") => {
	const r = await fetch(`${process.env.GB_CONTROL}/${what}`, { method: "POST", body });
	const text = await r.text();
	if (!r.ok) throw new Error(`${what}: ${text}`);
	return text;
};
const event = (message, more = {}) => JSON.stringify({ source: "test", type: "test.event", message, ...more }) + "\n";

const browser = await chromium.launch({ executablePath: process.env.GB_CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
let reports, strangers;

// open makes a context whose requests and CSP reports are watched.
async function open(options = {}) {
	const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, acceptDownloads: true, ...options });
	context.setDefaultTimeout(20000);
	await context.addInitScript(() => {
		document.addEventListener("securitypolicyviolation", (e) => console.error(`CSP ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}`));
	});
	context.on("request", (r) => { if (!r.url().startsWith(base + "/") && !r.url().startsWith("data:")) strangers.push(r.url()); });
	context.on("page", (p) => {
		if (process.env.GB_CONSOLE) p.on("console", (m) => console.error(m.text()));
		p.on("console", (m) => { if (/CSP |Content Security Policy|TrustedHTML|Trusted Type/.test(m.text())) reports.push(m.text()); });
		p.on("pageerror", (e) => reports.push("page error: " + e.message));
		p.on("dialog", (d) => { reports.push("dialog: " + d.message()); d.dismiss(); });
	});
	return context;
}

async function login(context, role = "approver") {
	const page = await context.newPage();
	await page.goto(await control("link/" + role));
	await page.click("button.main");
	await page.waitForURL(base + "/");
	return page;
}

const until = async (what, f, limit = 10000) => {
	for (const end = Date.now() + limit; ;) {
		const v = await f();
		if (v) return v;
		if (Date.now() > end) throw new Error("it did not come: " + what);
		await new Promise((r) => setTimeout(r, 20));
	}
};

const scenarios = {
	async login() {
		const context = await open();
		const page = await context.newPage();
		await page.goto(base + "/timeline?severity=err");
		assert.match(page.url(), /\/login\?next=/, "who is not logged in is asked to");
		const link = await control("link/viewer");
		await page.goto(link);
		assert.match(await page.textContent("main"), /logs you in as root, viewer/);
		await page.goto(link); // looking does not use it up
		await page.click("button.main");
		await page.waitForURL(base + "/");
		const [cookie] = await context.cookies();
		assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, "Strict", "/"]);
		assert.ok(Math.abs(cookie.expires - Date.now() / 1000 - 12 * 3600) < 60, "12 hours");
		assert.equal(await page.evaluate(() => document.cookie), "", "no script sees the cookie");
		const again = await open();
		const other = await again.newPage();
		const answer = await other.goto(link);
		assert.equal(answer.status(), 410);
		assert.match(await other.textContent("[role=alert]"), /used already/);
		await page.click("text=Log out");
		await page.waitForURL(/\/login/);
		await page.goto(base + "/");
		assert.match(page.url(), /\/login/);
	},

	async tail() {
		const page = await login(await open());
		await page.goto(base + "/timeline");
		await page.waitForFunction(() => document.querySelector("#pause .label")?.textContent === "Live");
		await page.evaluate(() => {
			window.shift = 0;
			new PerformanceObserver((l) => { for (const e of l.getEntries()) { window.shift += e.value; console.log("shift", e.value, ...e.sources.map((s) => s.node?.outerHTML?.slice(0, 80) + JSON.stringify([s.previousRect, s.currentRect]))); } }).observe({ type: "layout-shift", buffered: false });
		});
		const took = [];
		for (let i = 0; i < 5; i++) {
			const text = `tail ${i} ${Math.random()}`;
			const start = Date.now();
			await control("append", event(text));
			await page.waitForFunction((t) => document.querySelector("#events tbody .m")?.textContent === t, text, { polling: 10 });
			took.push(Date.now() - start);
		}
		took.sort((a, b) => a - b);
		assert.ok(took[2] <= 1500 && took[4] <= 5000, `an event took ${took} ms`);
		await control("append", Array.from({ length: 300 }, (_, i) => event("burst " + i)).join(""));
		await page.waitForFunction(() => document.querySelector("#events tbody .m")?.textContent === "burst 299");
		const shift = await page.evaluate(() => window.shift);
		assert.ok(shift < 0.0005, `layout shift of ${shift}`); // 0.1 is what passes for good
		assert.equal(await page.evaluate(() => document.querySelectorAll("#events tbody tr").length), 100);
		// Who reads is not disturbed.
		await page.hover("#events tbody tr:nth-child(3)");
		await control("append", event("while the pointer is there"));
		await page.waitForFunction(() => /, 1 new/.test(document.querySelector("#pause .label").textContent));
		assert.equal(await page.textContent("#events tbody .m"), "burst 299");
		await page.mouse.move(5, 5);
		await page.waitForFunction(() => document.querySelector("#events tbody .m").textContent === "while the pointer is there");
		await page.keyboard.press("Space");
		await control("append", event("while paused"));
		await page.waitForFunction(() => document.querySelector("#pause .label").textContent === "Paused, 1 new");
		await page.click("#pause");
		await page.waitForFunction(() => document.querySelector("#events tbody .m").textContent === "while paused");
		return { median_ms: took[2], slowest_ms: took[4], layout_shift: shift };
	},

	// Only what is chosen comes.
	async filter() {
		const page = await login(await open(), "viewer");
		await page.goto(base + "/timeline?source=chosen");
		await page.waitForFunction(() => document.querySelector("#pause .label")?.textContent === "Live");
		await control("append", event("not this") + event("this", { source: "chosen" }) + event("nor this"));
		await page.waitForFunction(() => document.querySelector("#events tbody .m")?.textContent === "this");
		assert.equal(await page.evaluate(() => document.querySelectorAll("#events tbody tr[data-index]").length), 1);
		await page.goto(base + "/timeline?text=NOT+this");
		assert.equal(await page.textContent("#events tbody .m"), "not this");
	},

	async hostile() {
		const page = await login(await open(), "viewer");
		await page.goto(base + "/timeline");
		await page.waitForFunction(() => document.querySelector("#pause .label")?.textContent === "Live");
		const markup = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>{{.}}`;
		const turned = "abc\u202Egnp.exe\u2066\u200B\u0007\u001b[31m";
		await control("append", event(markup, { actor: markup, subject: markup, host: "<b>h</b>" }) + event(turned) + event("long " + "x".repeat(60000)) + event("") .replace('"message":""', '"data":{"k":"</script><script>window.pwned=1</script>"}'));
		await page.waitForFunction(() => /k":"<\/script>/.test(document.querySelector("#events tbody .m")?.textContent));
		const check = async () => {
			const texts = await page.evaluate(() => [...document.querySelectorAll("#events tbody tr[data-index]")].slice(0, 4).map((r) => r.querySelector(".m").textContent));
			assert.equal(texts[3], markup);
			assert.equal(texts[2], "abc\\u202egnp.exe\\u2066\\u200b\\x07\\x1b[31m");
			assert.ok(texts[1].startsWith("long xxx") && texts[1].length < 500);
			assert.equal(await page.evaluate(() => window.pwned), undefined);
		};
		await check();
		await page.goto(base + "/timeline");
		await check();
		const index = await page.evaluate(() => +document.querySelector("#events tbody tr:nth-child(4)").dataset.index);
		await page.goto(`${base}/events/${index}`);
		assert.equal(await page.textContent(".message"), markup);
		assert.ok((await page.textContent(".fields")).includes(markup));
		assert.equal(await page.evaluate(() => window.pwned), undefined);
		await page.goto(`${base}/events/${index + 2}`);
		assert.ok((await page.textContent(".message")).length > 60000);
		for (const path of [`/timeline?text=${encodeURIComponent(markup)}`, `/search?q=${encodeURIComponent(markup)}`, `/policy?name=${encodeURIComponent(markup)}`, `/timeline?source=${encodeURIComponent(markup)}`, `/dbus?match=${encodeURIComponent(markup)}`]) {
			await page.goto(base + path);
			assert.equal(await page.evaluate(() => window.pwned), undefined, path);
			assert.equal(await page.locator("main img").count(), 0, path);
		}
	},

	async search() {
		const page = await login(await open(), "viewer");
		await page.keyboard.press("/");
		await page.keyboard.type("which disk failed");
		await page.keyboard.press("Enter");
		await page.waitForURL(/\/search\?q=/);
		assert.ok(await page.locator(".hits li").count() > 0, "hits");
		assert.ok(await page.locator(".hits mark").count() > 0, "the words are marked");
		assert.match(await page.textContent(".hits li:first-child"), /mdadm|blk_update_request/);
		await page.keyboard.press("j");
		await page.keyboard.press("Enter");
		await page.waitForURL(/\/events\/\d+$/);
		await page.click("text=Similar events");
		await page.waitForURL(/like=/);
		assert.match(await page.textContent("main"), /Events similar to event/);
		await page.goto(base + "/search?q=zzzzqqqq");
		assert.match(await page.textContent(".empty"), /Nothing answers that/);
	},

	async approvals() {
		const page = await login(await open());
		const first = await control("ask/Switch");
		await page.goto(base + "/approvals");
		assert.match(await page.textContent("#approvals"), /org\.example\.Lamp\.Switch/);
		assert.match(await page.textContent("#approvals pre"), /true/);
		assert.ok(await page.textContent("#approvals .left"), "countdown");
		await page.keyboard.press("d"); // the button, not yet the answer
		assert.equal(await control("state/" + first), "pending");
		await page.keyboard.press("Enter");
		await page.waitForFunction(() => !document.querySelector("#approvals"));
		assert.equal(await control("state/" + first), "denied");
		const second = await control("ask/Connect");
		await page.goto(base + "/approvals/" + second);
		await page.click("button:has-text('Approve')");
		await page.waitForURL(base + "/approvals");
		assert.equal(await control("state/" + second), "approved");
		assert.match(await page.textContent("table"), /root through web/);
		await control("ask/Switch");
		await page.click("text=more since: show");
		await page.waitForFunction(() => document.querySelectorAll("#approvals > li").length === 1);
		await page.goto(base + "/");
		await page.waitForFunction(() => /one change waits/.test(document.querySelector(".verdict").textContent));
		await control("ask/Old");
		await page.waitForFunction(() => /2 changes wait/.test(document.querySelector(".verdict").textContent));
		const viewer = await login(await open(), "viewer");
		await control("ask/Switch");
		await viewer.goto(base + "/approvals");
		assert.equal(await viewer.locator("#approvals button").count(), 0, "a viewer answers nothing");
		assert.match(await viewer.textContent("#approvals .note"), /log in as approver/);
	},

	// What the same user asks needs a touch of a security key.
	async key() {
		const page = await login(await open());
		const cdp = await page.context().newCDPSession(page);
		await cdp.send("WebAuthn.enable");
		await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "usb", hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } });
		await page.goto(base + "/dbus/org.example.Lamp?path=/org/example/Lamp");
		await page.click("summary:has-text('Switch')");
		await page.selectOption("details[open] select[name=arg0]", "true");
		await page.click("details.member[open] button");
		assert.match(await page.textContent("main"), /A person would have to approve this very call first/);
		await page.click("text=Ask for it");
		await page.click(".note a");
		const id = page.url().split("/").pop();
		await page.click("button:has-text('Approve')");
		assert.match(await page.textContent("[role=alert]"), /same user/);
		await page.goto(base + "/approvals");
		await page.fill("#register input[name=key_name]", "blue key");
		await page.click("#register button");
		await page.waitForFunction(() => /blue key/.test(document.querySelector("#keys ul")?.textContent));
		await page.goto(base + "/approvals/" + id);
		await page.click("button:has-text('Approve')");
		await page.waitForURL(base + "/approvals");
		assert.equal(await control("state/" + id), "approved");
		assert.match(await page.textContent("table"), /with the key blue key/);
	},

	async dbus() {
		const page = await login(await open(), "operator");
		await page.goto(base + "/dbus?match=lamp");
		await page.click("text=org.example.Lamp");
		await page.goto(base + "/dbus/org.example.Lamp?path=/org/example/Lamp");
		assert.match(await page.textContent(".badge >> nth=0"), /approve/);
		await page.click("summary:has-text('Blink')");
		await page.fill("details.member[open] input[name=arg0]", "18446744073709551615");
		await page.fill("details.member[open] textarea[name=arg1]", '["a","b"]');
		await page.click("details.member[open] button");
		assert.match(await page.textContent("main"), /It would be done, and recorded/);
		await page.click("text=Call it");
		assert.match(await page.textContent("pre"), /18446744073709551615/);
		await page.goto(base + "/timeline?type=opdbus.*");
		assert.match(await page.textContent("#events tbody tr:nth-child(2)"), /Blink/);
		await page.goto(base + "/dbus/org.example.Lamp?path=/org/example/Lamp");
		await page.click("summary:has-text('Fail')");
		await page.click("details.member[open] button");
		assert.match(await page.textContent("main"), /It would be refused/);
		assert.equal(await page.locator("main form button.main").count(), 0);
	},

	async proof() {
		const page = await login(await open(), "viewer");
		await page.goto(base + "/events/123");
		const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Download the proof")]);
		assert.equal(download.suggestedFilename(), "event-123.tlog-proof");
		const path = await download.path();
		assert.match(await control("check", readFileSync(path, "utf8")), /event 123|"index":123|123/);
		const bad = readFileSync(path, "utf8").replace(/^index 123$/m, "index 124");
		await assert.rejects(control("check", bad));
	},

	// The server is restarted while events come: the page shows all of them.
	async reconnect() {
		const page = await login(await open(), "viewer");
		await page.goto(base + "/timeline");
		await page.waitForFunction(() => document.querySelector("#pause .label")?.textContent === "Live");
		const tag = "r" + Math.random().toString(36).slice(2);
		for (let i = 0; i < 10; i++) await control("append", event(`${tag} ${i}`));
		await control("stop");
		for (let i = 10; i < 30; i++) await control("append", event(`${tag} ${i}`));
		await page.waitForFunction(() => document.querySelector("#pause .label")?.textContent.startsWith("Reconnecting"));
		await control("start");
		for (let i = 30; i < 40; i++) await control("append", event(`${tag} ${i}`));
		await page.waitForFunction((t) => document.querySelector("#events tbody .m")?.textContent === t, `${tag} 39`, { timeout: 20000 });
		const seen = await page.evaluate((t) => [...document.querySelectorAll("#events tbody .m")].map((m) => m.textContent).filter((x) => x.startsWith(t)), tag);
		assert.deepEqual(seen, Array.from({ length: 40 }, (_, i) => `${tag} ${39 - i}`), "each once, in order");
		await page.goto(base + "/"); // still logged in
		assert.equal(page.url(), base + "/");
	},

	async keyboard() {
		const page = await login(await open(), "viewer");
		await page.keyboard.press("g");
		await page.keyboard.press("t");
		await page.waitForURL(/timeline/);
		await page.keyboard.press("?");
		assert.ok(await page.isVisible("#help"));
		await page.keyboard.press("Escape");
		assert.ok(!await page.isVisible("#help"));
		await page.keyboard.press("j");
		await page.keyboard.press("j");
		await page.keyboard.press("k");
		const index = await page.getAttribute("#events [aria-selected=true]", "data-index");
		assert.ok(index);
		await page.keyboard.press("Enter");
		await page.waitForURL(`${base}/events/${index}`);
		await page.keyboard.press("]");
		await page.waitForURL(`${base}/events/${index - 1}`);
		await page.goto(base + "/timeline");
		await page.keyboard.press("]");
		await page.waitForURL(/before=/);
		// All of a page can be reached with Tab, and what is reached is seen.
		await page.goto(base + "/log");
		await page.keyboard.press("Tab");
		assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
		await page.keyboard.press("Enter");
		await page.keyboard.press("Tab");
		assert.equal(await page.evaluate(() => document.activeElement.textContent), "Verify all now");
		assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
	},

	async verify() {
		const page = await login(await open(), "viewer");
		await page.goto(base + "/log");
		await page.click("text=Verify all now");
		await page.waitForFunction(() => document.querySelector("#check .state")?.textContent === "verified" && document.querySelector("#check").dataset.running === "false");
		assert.match(await page.textContent("#check"), /all of it was read/);
	},

	async nojs() {
		const context = await open({ javaScriptEnabled: false });
		const page = await login(context);
		for (const v of views) {
			const answer = await page.goto(base + v);
			assert.equal(answer.status(), 200, v);
			assert.ok((await page.textContent("main")).length > 80, v);
		}
		await page.goto(base + "/timeline");
		await page.click("a[rel=next]");
		assert.match(page.url(), /before=/);
		await page.click(".facets a >> nth=0");
		assert.match(page.url(), /source=/);
		await page.fill("#ask", "bridge");
		await page.press("#ask", "Enter");
		await page.waitForURL(/search/);
		assert.ok(await page.locator(".hits li").count() > 0);
		const id = await control("ask/Switch");
		await page.goto(base + "/approvals/" + id);
		await page.click("button:has-text('Deny')");
		await page.waitForURL(base + "/approvals");
		assert.equal(await control("state/" + id), "denied");
	},

	async axe() {
		let checked = 0;
		const found = [];
		await control("ask/Switch");
		for (const colorScheme of ["light", "dark"]) {
			const context = await open({ colorScheme, bypassCSP: true });
			const page = await context.newPage();
			const link = await control("link/approver");
			for (const v of ["login", ...views, "/events/99999999", "/nowhere", "/approvals/" + await control("ask/Connect")]) {
				await page.goto(v === "login" ? link : base + v);
				await page.evaluate(axeSource);
				const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
				const bad = violations.filter((x) => ["serious", "critical", "moderate"].includes(x.impact));
				found.push(...bad.map((x) => `${v} ${colorScheme} ${x.impact} ${x.id}: ${x.nodes[0].html.slice(0, 160)} ${x.nodes[0].failureSummary.slice(0, 200)}`));
				checked++;
				if (v === "login") await page.click("button.main");
			}
		}
		assert.deepEqual(found, []);
		return { pages: checked };
	},

	async sizes() {
		for (const [width, height] of [[360, 740], [768, 1024], [3840, 2160]]) {
			const page = await login(await open({ viewport: { width, height } }));
			for (const v of views) {
				await page.goto(base + v);
				const [have, room] = await page.evaluate(() => [document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]);
				assert.ok(have <= room, `${v} is ${have} wide, there are ${room}`);
			}
		}
	},
};

// Screenshots of each view, light and dark.
async function screenshots(dir) {
	for (const colorScheme of ["light", "dark"]) {
		for (const [name, width, height] of [["", 1440, 900], ["-narrow", 360, 740]]) {
			const page = await login(await open({ colorScheme, viewport: { width, height }, reducedMotion: "reduce" }));
			for (const [file, path] of [["overview", "/"], ["timeline", "/timeline?range=15m"], ["event", "/events/" + process.env.GB_EVENT], ["search", "/search?q=which+disk+failed"], ["approvals", "/approvals"], ["network", "/network"],
				["snapshots", "/snapshots"], ["dbus", "/dbus/org.example.Lamp?path=/org/example/Lamp"], ["agents", "/agents"], ["policy", views[9]], ["log", "/log"]]) {
				if (name && !["overview", "timeline", "approvals"].includes(file)) continue;
				await page.goto(base + path);
				if (file === "dbus") await page.click("summary:has-text('Blink')");
				await page.waitForTimeout(file === "timeline" ? 900 : 150);
				await page.screenshot({ path: `${dir}/${file}${name}-${colorScheme}.png` });
			}
		}
	}
}

const line = (v) => console.log(JSON.stringify(v));
if (process.env.GB_SCREENSHOTS) {
	strangers = []; reports = [];
	await screenshots(process.env.GB_SCREENSHOTS);
} else {
	for (const name of process.argv.slice(2).length ? process.argv.slice(2) : Object.keys(scenarios)) {
		strangers = []; reports = [];
		const start = Date.now();
		let error = "", figures;
		try {
			figures = await scenarios[name]();
			assert.deepEqual(reports, [], "reports of the content security policy, and errors of the page");
			assert.deepEqual(strangers, [], "requests to other origins");
		} catch (e) {
			error = e.stack ?? String(e);
			const page = browser.contexts().at(-1)?.pages().at(-1);
			if (page) error += `\n${page.url()}\n${(await page.textContent("main").catch(() => "")).replace(/\s+/g, " ").slice(0, 600)}`;
		}
		for (const c of browser.contexts()) await c.close();
		line({ name, error, figures, ms: Date.now() - start });
	}
}
await browser.close();
