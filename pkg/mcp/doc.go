// Package mcp is the MCP server of opdbus: it lets AI agents see a host, and
// change it as far as policy and people allow. It is built on the official SDK
// and speaks both eras of the protocol, 2025-11-25 with sessions and 2026-07-28
// without, on one URL or on standard input and output.
//
// The server has no privileges of its own. All that it sees and does goes
// through the daemon org.freedesktop.opdbus, in the name of the agent (a
// Claim), where policy, approvals and the log are. It never decides whether a
// change may be made, and nothing that a client answers counts as an approval:
// the daemon's stored one does.
//
// What comes from the host is written by strangers. It is returned as data,
// marked untrusted, without control characters, capped and without what looks
// like a secret; neither tool lists nor descriptions are made of it.
package mcp
