// A whole session of an agent, with an official client of one of the two lines:
//
//   session.mjs LINE WHERE [PROGRAM ARG...]
//
// LINE is v1 (@modelcontextprotocol/sdk, 2025-11-25), v2-legacy, v2-auto or
// v2-pinned (@modelcontextprotocol/client, 2026-07-28); WHERE is a URL, with the
// token in GB_TOKEN, or stdio, with what to start. Where the server asks the
// user, the user runs GB_PERSON with the approval's id. Each step is printed as a
// line of JSON; the test reads what came of it.
import { execFileSync } from 'node:child_process';

const [line, where, ...argv] = process.argv.slice(2);
const step = (name, value) => console.log(JSON.stringify({ step: name, ...value }));

const asked = [];
const answer = (params) => {
  asked.push(params);
  if (process.env.GB_DECLINE) return { action: 'decline' };
  const id = params.mode === 'url' ? params.url.split('/').pop() : /approvals approve ([0-9a-f]{16})/.exec(params.message)[1];
  execFileSync(process.env.GB_PERSON, ['approvals', 'approve', id]);
  return params.mode === 'url' ? { action: 'accept' } : { action: 'accept', content: { answered: true } };
};

let client, transport;
const capabilities = { elicitation: { form: {}, url: {} } };
const info = { name: `session-${line}`, version: '1.0.0' };
if (line === 'v1') {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { StdioClientTransport } = await import('@modelcontextprotocol/sdk/client/stdio.js');
  const { ElicitRequestSchema } = await import('@modelcontextprotocol/sdk/types.js');
  client = new Client(info, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, async (r) => answer(r.params));
  transport = where === 'stdio' ? new StdioClientTransport({ command: argv[0], args: argv.slice(1), env: process.env })
    : new StreamableHTTPClientTransport(new URL(where), { requestInit: { headers: { Authorization: `Bearer ${process.env.GB_TOKEN}` } } });
} else {
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const mode = { 'v2-legacy': 'legacy', 'v2-auto': 'auto', 'v2-pinned': { pin: '2026-07-28' } }[line];
  client = new Client(info, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler('elicitation/create', async (r) => answer(r.params));
  transport = where === 'stdio' ? new StdioClientTransport({ command: argv[0], args: argv.slice(1), env: process.env })
    : new StreamableHTTPClientTransport(new URL(where), { requestInit: { headers: { Authorization: `Bearer ${process.env.GB_TOKEN}` } } });
}
let agreed;
if (line === 'v1' && !transport.setProtocolVersion) transport.setProtocolVersion = (v) => { agreed = v; };
await client.connect(transport);
const negotiated = agreed ?? transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.() ?? '';
step('connect', { protocol: negotiated, server: client.getServerVersion()?.name, instructions: (client.getInstructions?.() ?? '').length });

const call = async (name, args) => {
  const r = await client.callTool({ name, arguments: args });
  if (r.structuredContent && JSON.stringify(JSON.parse(r.content[0].text)) !== JSON.stringify(r.structuredContent)) throw new Error(`${name}: text and structured content differ`);
  step(name, { error: r.isError ?? false, out: r.structuredContent ?? null, text: r.structuredContent ? '' : r.content.map((c) => c.text).join('') });
  return r.structuredContent;
};
const until = async (what, done) => {
  for (let i = 0; i < 100; i++) {
    if (await done()) return;
    await new Promise((ok) => setTimeout(ok, 100));
  }
  throw new Error(`${what} did not come`);
};

// Discover.
const { tools } = await client.listTools();
step('tools', { names: tools.map((t) => t.name), undescribed: tools.filter((t) => !t.description || !t.outputSchema || !t.annotations || t.annotations.openWorldHint !== false).map((t) => t.name) });
step('resources', { uris: (await client.listResources()).resources.map((r) => r.uri), templates: (await client.listResourceTemplates()).resourceTemplates.map((r) => r.uriTemplate) });
step('prompts', { names: (await client.listPrompts()).prompts.map((p) => p.name) });
step('completion', (await client.complete({ ref: { type: 'ref/resource', uri: 'state://units/{unit}' }, argument: { name: 'unit', value: 'ng' } })).completion);
await call('find_services', { query: 'hostname1' });

// Read.
await call('read_properties', { name: 'org.freedesktop.hostname1', path: '/org/freedesktop/hostname1', interface: 'org.freedesktop.hostname1', property: 'StaticHostname' });
step('unit', { text: (await client.readResource({ uri: 'state://units/nginx.service' })).contents[0].text });
const prompt = await client.getPrompt({ name: 'diagnose_failed_unit', arguments: { unit: 'broken.service' } });
step('prompt', { kinds: prompt.messages.map((m) => m.content.type) });

// Plan.
const state = { version: 1, plugins: { hostname: { static: 'web-1' } } };
const { plan } = await call('plan_changes', { state });

// Be refused: by the policy, and by a person who does not answer.
await call('act_on_unit', { unit: 'sshd.service', action: 'stop' });
process.env.GB_DECLINE = '1';
await call('apply_changes', { state, plan: plan.hash });
delete process.env.GB_DECLINE;

// Get approved, and apply.
const applied = await call('apply_changes', { state, plan: plan.hash });
await call('read_properties', { name: 'org.freedesktop.hostname1', path: '/org/freedesktop/hostname1', interface: 'org.freedesktop.hostname1', property: 'StaticHostname' });
step('asked', { modes: asked.map((p) => p.mode ?? 'form') });

// A subscription hears of what is changed.
let updates = 0;
const uri = 'state://units/nginx.service';
if (line === 'v1') {
  const { ResourceUpdatedNotificationSchema } = await import('@modelcontextprotocol/sdk/types.js');
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, () => { updates++; });
  await client.subscribeResource({ uri });
} else {
  client.setNotificationHandler('notifications/resources/updated', () => { updates++; });
  if (line === 'v2-legacy') await client.subscribeResource({ uri });
  else await client.listen({ resourceSubscriptions: [uri] });
}
await call('act_on_unit', { unit: 'nginx.service', action: 'stop' });
await until('a notification', async () => updates > 0);
step('updated', { updates });

// Roll back.
await call('roll_back', { change: applied.change.id });
await call('read_properties', { name: 'org.freedesktop.hostname1', path: '/org/freedesktop/hostname1', interface: 'org.freedesktop.hostname1', property: 'StaticHostname' });
await client.close();
step('end', {});
process.exit(0);
