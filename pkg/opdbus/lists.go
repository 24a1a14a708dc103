package opdbus

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// readList is the methods that change nothing: a bus name, an interface and a
// member a line.
//
//go:embed readlist.txt
var readList string

// A ReadEntry is a line of the read list.
type ReadEntry struct{ Name, Interface, Member string }

// ReadList returns the methods that change nothing.
var ReadList = sync.OnceValue(func() []ReadEntry {
	var list []ReadEntry
	for n, line := range strings.Split(readList, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			panic(fmt.Sprintf("readlist.txt:%d: want NAME INTERFACE MEMBER", n+1))
		}
		list = append(list, ReadEntry{f[0], f[1], f[2]})
	}
	return list
})

var readSet = sync.OnceValue(func() map[ReadEntry]bool {
	set := map[ReadEntry]bool{}
	for _, e := range ReadList() {
		set[e] = true
	}
	return set
})

// IsRead says whether an action is on the read list.
func IsRead(a Action) bool {
	if a.Kind != KindCall {
		return false
	}
	set := readSet()
	return set[ReadEntry{a.Name, a.Interface, a.Member}] || set[ReadEntry{"*", a.Interface, a.Member}]
}

// A member of an interface, with a pattern each, and why it is on a list.
type listed struct{ iface, member, why string }

const systemdManager = "org.freedesktop.systemd1.Manager"

// neverList is called by nobody. It goes by interface, since a service can be
// reached under several names.
var neverList = []listed{
	{systemdManager, "Exit", "it ends the service manager"},
	{systemdManager, "KExec", "it replaces the kernel"},
	{systemdManager, "SwitchRoot", "it replaces the root file system"},
	{systemdManager, "SoftReboot", "it restarts user space"},
	{systemdManager, "*Environment", "it changes the environment of every service"},
	{systemdManager, "UnsetAndSetEnvironment", "it changes the environment of every service"},
	{"org.freedesktop.PolicyKit1.*", "*", "polkit decides about us"},
	{"org.freedesktop.DBus", "*", "it changes the bus itself"},
	{"org.freedesktop.DBus.Monitoring", "*", "it reads everybody's messages"},
	{"org.freedesktop.DBus.Debug.*", "*", "it changes the bus itself"},
	{names.BusInterface + ".Approvals", "*", "approvals are given by people, with opdbus approvals"},
	{loginsInterface, "*", "only gb-web speaks for people who have logged in to it"},
	{names.BusInterface + ".Policy", "*", "the policy is changed in its file"},
}

// rootList is as good as a root shell.
var rootList = []listed{
	{systemdManager, "StartTransientUnit", "a transient unit"},
	{systemdManager, "StartAuxiliaryScope", "a transient unit"},
	{systemdManager, "PowerOff", "it ends the host"},
	{systemdManager, "Halt", "it ends the host"},
	{systemdManager, "Reboot", "it restarts the host"},
	{systemdManager, "*UnitFiles*", "it changes what is started at boot"},
	{systemdManager, "SetUnitProperties", "it changes how a unit runs"},
	{systemdManager, "AttachProcessesToUnit", "it moves processes between units"},
	{systemdManager, "BindMountUnit", "it changes what a unit sees"},
	{systemdManager, "MountImageUnit", "it changes what a unit sees"},
	{systemdManager, "SetDefaultTarget", "it changes what is booted"},
	{"org.freedesktop.systemd1.Unit", "SetProperties", "it changes how a unit runs"},
	{"org.freedesktop.systemd1.*", "BindMount", "it changes what a unit sees"},
	{"org.freedesktop.systemd1.*", "MountImage", "it changes what a unit sees"},
	{"org.freedesktop.login1.Manager", "PowerOff*", "it ends the host"},
	{"org.freedesktop.login1.Manager", "Reboot*", "it restarts the host"},
	{"org.freedesktop.login1.Manager", "Halt*", "it ends the host"},
	{"org.freedesktop.login1.Manager", "Suspend*", "it stops the host"},
	{"org.freedesktop.login1.Manager", "Hibernate*", "it stops the host"},
	{"org.freedesktop.login1.Manager", "HybridSleep*", "it stops the host"},
	{"org.freedesktop.login1.Manager", "Sleep", "it stops the host"},
	{"org.freedesktop.login1.Manager", "ScheduleShutdown", "it ends the host"},
	{"org.freedesktop.login1.Manager", "SetReboot*", "it changes what is booted"},
	{"org.freedesktop.machine1.*", "OpenShell", "a shell in a machine"},
	{"org.freedesktop.machine1.*", "OpenMachineShell", "a shell in a machine"},
	{"org.freedesktop.machine1.*", "*Bind*", "it mounts into a machine"},
	{"org.freedesktop.machine1.*", "Copy*", "it copies files between machines"},
	{"org.freedesktop.machine1.*", "Create*", "it makes a machine"},
	{"org.freedesktop.portable1.*", "Attach*", "it brings units with it"},
	{"org.freedesktop.PackageKit.*", "*", "packages bring scripts that root runs"},
	{"org.freedesktop.UDisks2.*", "*", "it changes disks"},
	{"org.freedesktop.Accounts*", "*", "it changes accounts"},
	{"org.freedesktop.home1.*", "*", "it changes accounts"},
	{"org.freedesktop.sysupdate1.*", "*", "it replaces the system"},
}

func find(list []listed, a Action) string {
	for _, l := range list {
		if glob(l.iface, a.Interface) && glob(l.member, a.Member) {
			return l.why
		}
	}
	return ""
}

// never says why an action is never done, "" if it may be.
func never(a Action) string {
	if IsRead(a) {
		return ""
	}
	if ownByPeople(a) {
		return ""
	}
	if a.Interface == systemdManager && a.Member == "StartTransientUnit" && strings.Contains(string(a.Args), `"Exec`) {
		return "a transient unit that runs a command"
	}
	return find(neverList, a)
}

// rootEquivalent says why an action is as good as a root shell, "" if it is
// not.
func rootEquivalent(a Action) string { return find(rootList, a) }

// builtin returns the polkit action that alone decides about an action of our
// own which no rule names: approving, and going back.
func builtin(a Action) string {
	if a.Name != names.BusName {
		return ""
	}
	switch {
	case personally(a) != "":
		return personally(a)
	case a.Interface == names.BusInterface+".Manager" && (a.Member == "Rollback" || a.Member == "Confirm"):
		return PolkitRollback
	}
	return ""
}

// defaultPolkit returns the action that polkit is asked about where a rule
// names none.
func defaultPolkit(a Action) string {
	switch {
	case a.Interface == names.BusInterface+".Manager" && a.Member == "Apply":
		return PolkitApply
	case a.Interface == names.BusInterface+".Network.OpenFlow":
		return PolkitNetwork
	case a.Kind == KindSet:
		return PolkitSet
	}
	return PolkitCall
}

// kindOwn marks actions that one of our own entrances has built from a caller's
// words; a generic call can't have it.
const kindOwn = "own"

// personally returns the polkit action by which a person proves to be one, for
// what only people do; "" for the rest.
func personally(a Action) string {
	switch {
	case ownByPeople(a):
		return PolkitApprove
	case a.Kind == kindOwn && a.Interface == tokensInterface:
		return PolkitTokens
	}
	return ""
}

// ownByPeople says whether an action is the answer of a person to an approval,
// given through an entrance for people. opdbus call can't make one.
func ownByPeople(a Action) bool {
	return a.Kind == kindOwn && (a.Interface == names.BusInterface+".Approvals" || a.Interface == loginsInterface)
}
