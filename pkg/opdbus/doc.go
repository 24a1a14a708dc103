// Package opdbus is what stands before every change that goes through D-Bus:
//
//	authorise (policy, approval, polkit)
//	record the intent, durably
//	act, on the unique name of the owner that was checked
//	record the outcome
//
// Gate does this, in this order, for the command line, the daemon on the bus,
// MCP and the web alike. Nothing else in this program calls a method that is
// not on the read list; a test looks for who does.
//
// A policy is a file of ordered rules. What no rule names is denied. Every
// method counts as a change unless the read list, which is part of the
// program, names it. Some members are never called (neverList), and some are
// as good as a root shell (rootList): those need an approval whatever the
// rules say.
package opdbus
