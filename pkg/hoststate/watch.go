package hoststate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// services are the D-Bus services whose signals tell that a plugin's state may
// have changed, by plugin.
var services = map[string]struct{ name, path string }{
	hostnamePlugin: {hostname1, hostname1Path},
	"timedate":     {"org.freedesktop.timedate1", "/org/freedesktop/timedate1"},
	"resolved":     {"org.freedesktop.resolve1", "/org/freedesktop/resolve1"},
	"login":        {"org.freedesktop.login1", "/org/freedesktop/login1"},
}

// unitPath is the object of a unit: bus_label_escape of systemd.
func unitPath(name string) string {
	var b strings.Builder
	for i, r := range []byte(name) {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' && i > 0 {
			b.WriteByte(r)
		} else {
			fmt.Fprintf(&b, "_%02x", r)
		}
	}
	return systemd1Path + "/unit/" + b.String()
}

// Signals returns what to watch on the bus for a document.
func (d *Document) Signals() []bus.Match {
	var list []bus.Match
	for _, plugin := range d.names() {
		if s, ok := services[plugin]; ok {
			list = append(list, bus.Match{Sender: s.name, Path: s.path, Interface: "org.freedesktop.DBus.Properties", Member: "PropertiesChanged"})
		}
	}
	if d.Plugins.Systemd != nil {
		list = append(list,
			bus.Match{Sender: systemd1, PathNamespace: systemd1Path + "/unit", Interface: "org.freedesktop.DBus.Properties", Member: "PropertiesChanged"},
			bus.Match{Sender: systemd1, Path: systemd1Path, Interface: systemd1Manager, Member: "UnitFilesChanged"})
	}
	return list
}

// Concerns says whether a signal may tell of something that the document
// names.
func (d *Document) Concerns(s bus.Signal) bool {
	if !strings.HasPrefix(s.Path, systemd1Path+"/unit/") || d.Plugins.Systemd == nil {
		return true
	}
	return slices.ContainsFunc(keys(d.Plugins.Systemd.Units), func(u string) bool { return unitPath(u) == s.Path })
}

// HasSwitch says whether the document names bridges or flows.
func (d *Document) HasSwitch() bool { return d.Plugins.OVS != nil || d.Plugins.OpenFlow != nil }

// names returns the plugins that the document names.
func (d *Document) names() (list []string) {
	for name, there := range map[string]bool{hostnamePlugin: d.Plugins.Hostname != nil, systemdPlugin: d.Plugins.Systemd != nil,
		ovsPlugin: d.Plugins.OVS != nil, openflowPlugin: d.Plugins.OpenFlow != nil, snapshotsPlugin: d.Plugins.Snapshots != nil,
		"timedate": d.Plugins.Timedate != nil, "resolved": d.Plugins.Resolved != nil, "login": d.Plugins.Login != nil, packagesPlugin: d.Plugins.Packages != nil} {
		if there {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
