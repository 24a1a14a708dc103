package hoststate

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Hostname is the part of a document about the host's names: hostnamectl(1).
type Hostname struct {
	Static     *string `json:"static,omitempty" doc:"the name in /etc/hostname: letters, digits, - and ., at most 64"`
	Pretty     *string `json:"pretty,omitempty" doc:"a name for people"`
	Deployment *string `json:"deployment,omitempty" doc:"the environment, such as production: one word"`
	Location   *string `json:"location,omitempty" doc:"where the host stands, for people"`
}

const (
	hostname1      = "org.freedesktop.hostname1"
	hostname1Path  = "/org/freedesktop/hostname1"
	hostnamePlugin = "hostname"
)

// hostnames are the keys of the part, the property and the setter of each, and
// the variable of machine-info(5); the static name has a file of its own.
var hostnames = []struct {
	key, property, setter, info string
	of                          func(*Hostname) **string
}{
	{"static", "StaticHostname", "SetStaticHostname", "", func(h *Hostname) **string { return &h.Static }},
	{"pretty", "PrettyHostname", "SetPrettyHostname", "PRETTY_HOSTNAME", func(h *Hostname) **string { return &h.Pretty }},
	{"deployment", "Deployment", "SetDeployment", "DEPLOYMENT", func(h *Hostname) **string { return &h.Deployment }},
	{"location", "Location", "SetLocation", "LOCATION", func(h *Hostname) **string { return &h.Location }},
}

func checkHostname(p *Plugins) error {
	h := p.Hostname
	if h == nil {
		return nil
	}
	if h.Static != nil && *h.Static != "" && !validHostname(*h.Static) {
		return wrong("plugins.hostname.static", "%q is no host name: labels of letters, digits and -, joined by dots, at most 64 characters", *h.Static)
	}
	if h.Deployment != nil && strings.ContainsAny(*h.Deployment, " \t") {
		return wrong("plugins.hostname.deployment", "%q is not one word", *h.Deployment)
	}
	return nil
}

// validHostname is what hostnamed accepts (hostname_is_valid of systemd), small
// and capital letters alike.
func validHostname(s string) bool {
	if len(s) > 64 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// HostnamePlugin sets the host's names through org.freedesktop.hostname1.
type HostnamePlugin struct {
	Bus   Bus
	NixOS bool
}

// About implements Plugin.
func (h *HostnamePlugin) About() About {
	return About{Name: hostnamePlugin, Doc: "the host's names: static, pretty, deployment, location"}
}

// Available implements Plugin.
func (h *HostnamePlugin) Available(ctx context.Context) string {
	_, err := properties(ctx, h.Bus, hostname1, hostname1Path, hostname1)
	return missing(err)
}

// Read implements Plugin.
func (h *HostnamePlugin) Read(ctx context.Context, _ *Document) (any, error) {
	have, err := properties(ctx, h.Bus, hostname1, hostname1Path, hostname1)
	if err != nil {
		return nil, err
	}
	out := new(Hostname)
	for _, n := range hostnames {
		s := text(have, n.property)
		*n.of(out) = &s
	}
	return out, nil
}

// Plan implements Plugin.
func (h *HostnamePlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	want := d.Plugins.Hostname
	if want == nil {
		return nil
	}
	have, err := properties(ctx, h.Bus, hostname1, hostname1Path, hostname1)
	if err != nil {
		return err
	}
	basis := make(map[string]string)
	for _, n := range hostnames {
		w := *n.of(want)
		if w == nil {
			continue
		}
		now := text(have, n.property)
		basis[n.key] = now
		if now == *w {
			continue
		}
		p.differs(hostnamePlugin, n.key, now, *w)
		if h.NixOS {
			if n.info == "" {
				p.block(Blocked{Plugin: hostnamePlugin, Path: n.key, Reason: "Nix owns the host's name", Nix: fmt.Sprintf("networking.hostName = %s;", nixString(*w))})
			} else {
				p.block(Blocked{Plugin: hostnamePlugin, Path: n.key, Reason: "Nix owns /etc/machine-info", Nix: machineInfo(want, have)})
			}
			continue
		}
		undo := operation(hostname1, hostname1Path, hostname1, n.setter, "sb", now, false)
		p.Actions = append(p.Actions, Action{Plugin: hostnamePlugin, Object: n.key, Verb: "set", Before: mustJSON(now), After: mustJSON(*w),
			Do: operation(hostname1, hostname1Path, hostname1, n.setter, "sb", *w, false), Undo: &undo})
	}
	p.Basis[hostnamePlugin] = mustJSON(basis)
	return nil
}

// machineInfo is the NixOS setting of the whole of machine-info(5).
func machineInfo(want *Hostname, have map[string]any) string {
	var lines strings.Builder
	for _, n := range hostnames {
		if n.info == "" {
			continue
		}
		value := text(have, n.property)
		if w := *n.of(want); w != nil {
			value = *w
		}
		if value != "" {
			lines.WriteString(n.info + "=" + envString(value) + "\n")
		}
	}
	return `environment.etc."machine-info".text = ` + nixString(lines.String()) + ";"
}

// Do implements Plugin.
func (h *HostnamePlugin) Do(ctx context.Context, g Gate, a *Action, _ DoOptions) (json.RawMessage, error) {
	if err := h.unchanged(ctx, a); err != nil {
		return nil, err
	}
	return nil, g.Do(ctx, a.Do, sendOnly)
}

// unchanged says whether a name is still what the plan read.
func (h *HostnamePlugin) unchanged(ctx context.Context, a *Action) error {
	have, err := properties(ctx, h.Bus, hostname1, hostname1Path, hostname1)
	if err != nil {
		return err
	}
	for _, n := range hostnames {
		if n.key == a.Object {
			return expect(a, text(have, n.property))
		}
	}
	return fmt.Errorf("hostname: no name is called %q", a.Object)
}

// Undo implements Plugin.
func (h *HostnamePlugin) Undo(ctx context.Context, g Gate, a *Action, _ json.RawMessage) error {
	return g.Undo(ctx, *a.Undo, sendOnly)
}

// A MeanwhileError says that an object is not any more what the plan read.
type MeanwhileError struct {
	Object     string
	Have, Want string
}

func (e *MeanwhileError) Error() string {
	return fmt.Sprintf("%s has changed since it was looked at: it was %.200s and is %.200s", e.Object, e.Want, e.Have)
}

// expect compares what is with what the plan read.
func expect(a *Action, have any) error {
	if now := mustJSON(have); string(now) != string(a.Before) {
		return &MeanwhileError{a.Object, string(now), string(a.Before)}
	}
	return nil
}

// nixString writes a string in the Nix language.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", `\${`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// envString quotes a value as os-release(5) and its like have it.
func envString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}
