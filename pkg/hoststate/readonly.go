package hoststate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Timedate is what timedated knows; it is read only.
type Timedate struct {
	Timezone *string `json:"timezone,omitempty" doc:"such as Europe/Berlin; read only"`
	NTP      *bool   `json:"ntp,omitempty" doc:"whether the clock is synchronised; read only"`
	LocalRTC *bool   `json:"local_rtc,omitempty" doc:"whether the hardware clock has local time; read only"`
}

// Resolved is what resolved knows; it is read only.
type Resolved struct {
	DNS          *[]string `json:"dns,omitempty" doc:"servers that are not a link's; read only"`
	DNSSEC       *string   `json:"dnssec,omitempty" doc:"no, allow-downgrade or yes; read only"`
	DNSOverTLS   *string   `json:"dns_over_tls,omitempty" doc:"no, opportunistic or yes; read only"`
	LLMNR        *string   `json:"llmnr,omitempty" doc:"no, resolve or yes; read only"`
	MulticastDNS *string   `json:"multicast_dns,omitempty" doc:"no, resolve or yes; read only"`
}

// Login is what logind knows; it is read only.
type Login struct {
	KillUserProcesses *bool   `json:"kill_user_processes,omitempty" doc:"whether processes end with their session; read only"`
	IdleAction        *string `json:"idle_action,omitempty" doc:"what an idle host does; read only"`
	HandlePowerKey    *string `json:"handle_power_key,omitempty" doc:"what the power key does; read only"`
	HandleLidSwitch   *string `json:"handle_lid_switch,omitempty" doc:"what a closed lid does; read only"`
}

// Packages is what is installed, as dpkg knows it; it is read only.
type Packages struct {
	Installed *[]string `json:"installed,omitempty" doc:"packages that are there; read only"`
	Absent    *[]string `json:"absent,omitempty" doc:"packages that are not; read only"`
}

// A ReadOnlyPlugin compares properties of a D-Bus service with what a document
// says of them, and changes none: what differs is blocked, with what would
// change it.
type ReadOnlyPlugin struct {
	Bus   Bus
	NixOS bool

	kind *readOnlyKind
}

type readOnlyKind struct {
	name, doc            string
	service, path, iface string
	part                 func(*Plugins) any // nil if the document does not name it
	properties           map[string]string  // by key
	convert              func(key string, v any) any
	hint                 func(key string, want json.RawMessage) string
	nix                  func(key string, want any) string
}

var readOnlyKinds = []*readOnlyKind{
	{
		name: "timedate", doc: "time zone and clock", service: "org.freedesktop.timedate1", path: "/org/freedesktop/timedate1", iface: "org.freedesktop.timedate1",
		part: func(p *Plugins) any {
			if p.Timedate == nil {
				return nil
			}
			return p.Timedate
		},
		properties: map[string]string{"timezone": "Timezone", "ntp": "NTP", "local_rtc": "LocalRTC"},
		hint: func(key string, want json.RawMessage) string {
			return map[string]string{"timezone": "timedatectl set-timezone ", "ntp": "timedatectl set-ntp ", "local_rtc": "timedatectl set-local-rtc "}[key] + strings.Trim(string(want), `"`)
		},
		nix: func(key string, want any) string {
			return map[string]string{"timezone": "time.timeZone", "ntp": "services.timesyncd.enable", "local_rtc": "time.hardwareClockInLocalTime"}[key] + " = " + nixValue(want) + ";"
		},
	},
	{
		name: "resolved", doc: "name resolution", service: "org.freedesktop.resolve1", path: "/org/freedesktop/resolve1", iface: "org.freedesktop.resolve1.Manager",
		part: func(p *Plugins) any {
			if p.Resolved == nil {
				return nil
			}
			return p.Resolved
		},
		properties: map[string]string{"dns": "DNS", "dnssec": "DNSSEC", "dns_over_tls": "DNSOverTLS", "llmnr": "LLMNR", "multicast_dns": "MulticastDNS"},
		convert: func(key string, v any) any {
			if key == "dns" {
				return globalServers(v)
			}
			return v
		},
		hint: func(key string, want json.RawMessage) string {
			return "a file in /etc/systemd/resolved.conf.d with " + map[string]string{"dns": "DNS", "dnssec": "DNSSEC", "dns_over_tls": "DNSOverTLS", "llmnr": "LLMNR", "multicast_dns": "MulticastDNS"}[key] + "="
		},
		nix: func(key string, want any) string {
			switch key {
			case "dns":
				return "networking.nameservers = " + nixValue(want) + ";"
			case "dnssec":
				return "services.resolved.dnssec = " + nixValue(fmt.Sprint(want)) + ";"
			case "llmnr":
				return "services.resolved.llmnr = " + nixValue(fmt.Sprint(want)) + ";"
			case "dns_over_tls":
				return "services.resolved.dnsovertls = " + nixValue(fmt.Sprint(want)) + ";"
			}
			return `services.resolved.extraConfig = "MulticastDNS=` + fmt.Sprint(want) + `";`
		},
	},
	{
		name: "login", doc: "sessions and power keys", service: "org.freedesktop.login1", path: "/org/freedesktop/login1", iface: "org.freedesktop.login1.Manager",
		part: func(p *Plugins) any {
			if p.Login == nil {
				return nil
			}
			return p.Login
		},
		properties: map[string]string{"kill_user_processes": "KillUserProcesses", "idle_action": "IdleAction", "handle_power_key": "HandlePowerKey", "handle_lid_switch": "HandleLidSwitch"},
		hint: func(key string, _ json.RawMessage) string {
			return "a file in /etc/systemd/logind.conf.d with " + map[string]string{"kill_user_processes": "KillUserProcesses", "idle_action": "IdleAction", "handle_power_key": "HandlePowerKey", "handle_lid_switch": "HandleLidSwitch"}[key] + "="
		},
		nix: func(key string, want any) string {
			option := map[string]string{"kill_user_processes": "KillUserProcesses", "idle_action": "IdleAction", "handle_power_key": "HandlePowerKey", "handle_lid_switch": "HandleLidSwitch"}[key]
			return "services.logind.settings.Login." + option + " = " + nixValue(want) + ";"
		},
	},
}

// nixValue writes a string, boolean or list of strings in the Nix language.
func nixValue(v any) string {
	switch x := v.(type) {
	case bool:
		return fmt.Sprint(x)
	case []any:
		var b strings.Builder
		b.WriteString("[ ")
		for _, e := range x {
			b.WriteString(nixValue(e) + " ")
		}
		return b.String() + "]"
	}
	return nixString(fmt.Sprint(v))
}

// globalServers returns the addresses of a property a(iiay) of resolved that
// belong to no link.
func globalServers(v any) any {
	list := []string{}
	rows, _ := v.([]any)
	for _, r := range rows {
		row, _ := r.([]any)
		if len(row) != 3 || row[0] != int32(0) {
			continue
		}
		raw, ok := row[2].([]byte)
		if !ok {
			continue
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			list = append(list, a.String())
		}
	}
	return list
}

// ReadOnlyPlugins returns those for timedated, resolved and logind.
func ReadOnlyPlugins(b Bus, nixos bool) (list []Plugin) {
	for _, k := range readOnlyKinds {
		list = append(list, &ReadOnlyPlugin{Bus: b, NixOS: nixos, kind: k})
	}
	return list
}

// About implements Plugin.
func (r *ReadOnlyPlugin) About() About {
	return About{Name: r.kind.name, Doc: r.kind.doc, ReadOnly: true}
}

// Available implements Plugin.
func (r *ReadOnlyPlugin) Available(ctx context.Context) string {
	_, err := properties(ctx, r.Bus, r.kind.service, r.kind.path, r.kind.iface)
	return missing(err)
}

func (r *ReadOnlyPlugin) read(ctx context.Context) (map[string]json.RawMessage, error) {
	have, err := properties(ctx, r.Bus, r.kind.service, r.kind.path, r.kind.iface)
	if err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage)
	for key, property := range r.kind.properties {
		v, there := have[property]
		if !there {
			continue
		}
		if r.kind.convert != nil {
			v = r.kind.convert(key, v)
		}
		out[key] = mustJSON(v)
	}
	return out, nil
}

// Read implements Plugin.
func (r *ReadOnlyPlugin) Read(ctx context.Context, _ *Document) (any, error) { return r.read(ctx) }

// Plan implements Plugin.
func (r *ReadOnlyPlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	part := r.kind.part(&d.Plugins)
	if part == nil {
		return nil
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(mustJSON(part), &want); err != nil {
		return err
	}
	have, err := r.read(ctx)
	if err != nil {
		return err
	}
	basis := make(map[string]json.RawMessage)
	for _, key := range keys(want) {
		basis[key] = have[key]
		if have[key] == nil {
			basis[key] = json.RawMessage("null")
		}
		if string(have[key]) == string(want[key]) {
			continue
		}
		p.differs(r.kind.name, key, basis[key], want[key])
		b := Blocked{Plugin: r.kind.name, Path: key, Reason: "it is only read, for now", Hint: r.kind.hint(key, want[key])}
		if r.NixOS {
			var v any
			if err := json.Unmarshal(want[key], &v); err != nil {
				return err
			}
			b.Nix = r.kind.nix(key, v)
		}
		p.block(b)
	}
	p.Basis[r.kind.name] = mustJSON(basis)
	return nil
}

var errReadOnly = errors.New("it is only read")

// Do implements Plugin: there is nothing to do.
func (r *ReadOnlyPlugin) Do(context.Context, Gate, *Action, DoOptions) (json.RawMessage, error) {
	return nil, errReadOnly
}

// Undo implements Plugin.
func (r *ReadOnlyPlugin) Undo(context.Context, Gate, *Action, json.RawMessage) error {
	return errReadOnly
}

// A PackagesPlugin reads the database of dpkg(1): paragraphs of fields, see
// deb-control(5), in which Status says what is installed.
type PackagesPlugin struct {
	Root  string
	NixOS bool
}

const (
	packagesPlugin = "packages"
	dpkgStatus     = "var/lib/dpkg/status"
)

// About implements Plugin.
func (k *PackagesPlugin) About() About {
	return About{Name: packagesPlugin, Doc: "what dpkg has installed", ReadOnly: true}
}

// Available implements Plugin.
func (k *PackagesPlugin) Available(context.Context) string {
	if _, err := os.Stat(filepath.Join(k.Root, dpkgStatus)); errors.Is(err, fs.ErrNotExist) {
		return "this host has no dpkg"
	} else if err != nil {
		return err.Error()
	}
	return ""
}

func (k *PackagesPlugin) installed() (map[string]bool, error) {
	f, err := os.Open(filepath.Join(k.Root, dpkgStatus))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := make(map[string]bool)
	name := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "Package":
			name = value
		case "Status":
			if strings.HasSuffix(value, " installed") {
				out[name] = true
			}
		}
	}
	return out, lines.Err()
}

// Read implements Plugin.
func (k *PackagesPlugin) Read(context.Context, *Document) (any, error) {
	have, err := k.installed()
	if err != nil {
		return nil, err
	}
	list := keys(have)
	return Packages{Installed: &list}, nil
}

// Plan implements Plugin.
func (k *PackagesPlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	want := d.Plugins.Packages
	if want == nil {
		return nil
	}
	have := map[string]bool{}
	if why := k.Available(ctx); why == "" {
		var err error
		if have, err = k.installed(); err != nil {
			return err
		}
	} else if !k.NixOS {
		p.block(Blocked{Plugin: packagesPlugin, Path: "installed", Reason: why})
		return nil
	}
	basis := make(map[string]bool)
	look := func(key string, list *[]string, wanted bool) {
		if list == nil {
			return
		}
		for _, name := range *list {
			basis[name] = have[name]
			if have[name] == wanted {
				continue
			}
			b := Blocked{Plugin: packagesPlugin, Path: key + "." + name, Reason: "packages are only read, for now", Hint: "apt-get install " + name}
			if !wanted {
				b.Hint = "apt-get remove " + name
			}
			if k.NixOS {
				if !wanted {
					continue // what is there is what the configuration names
				}
				b.Reason, b.Nix, b.Hint = "Nix owns what is installed, and can't be asked here", "environment.systemPackages = [ pkgs."+nixString(name)+" ];", ""
			}
			p.differs(packagesPlugin, key+"."+name, have[name], wanted)
			p.block(b)
		}
	}
	look("installed", want.Installed, true)
	look("absent", want.Absent, false)
	p.Basis[packagesPlugin] = mustJSON(basis)
	return nil
}

func checkPackages(p *Plugins) error {
	if p.Packages == nil || p.Packages.Installed == nil || p.Packages.Absent == nil {
		return nil
	}
	for _, name := range *p.Packages.Absent {
		if slices.Contains(*p.Packages.Installed, name) {
			return wrong("plugins.packages.absent", "%.80q is to be installed too", name)
		}
	}
	return nil
}

// Do implements Plugin: there is nothing to do.
func (k *PackagesPlugin) Do(context.Context, Gate, *Action, DoOptions) (json.RawMessage, error) {
	return nil, errReadOnly
}

// Undo implements Plugin.
func (k *PackagesPlugin) Undo(context.Context, Gate, *Action, json.RawMessage) error {
	return errReadOnly
}
