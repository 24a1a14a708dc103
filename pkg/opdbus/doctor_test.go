package opdbus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// Each check of the host's files says ok where it holds, and failed where not.
func TestDoctorReadsTheHost(t *testing.T) {
	loader := func(s string) string {
		out := "\x06\x00\x00\x00"
		for _, u := range utf16.Encode([]rune(s)) {
			out += string([]byte{byte(u), byte(u >> 8)})
		}
		return out
	}
	mounts := func(kind, options string) map[string]string {
		return map[string]string{"/proc/self/mountinfo": "30 1 0:20 / / rw - ext4 /dev/a rw\n" +
			"31 30 0:21 /a " + names.TimingDir + " rw shared:1 - " + kind + " /dev/b " + options + "\n" +
			"32 30 0:21 /b " + names.VectorsDir + " rw - btrfs /dev/b rw,compress=zstd:3\n"}
	}
	for _, c := range []struct {
		check string
		files map[string]string
		want  string
	}{
		{"mounts", mounts("btrfs", "rw,compress=zstd:3"), StateOK}, {"mounts", mounts("btrfs", "rw,compress-force=lzo"), StateOK},
		{"mounts", mounts("btrfs", "rw"), StateFailed}, {"mounts", mounts("xfs", "rw,compress=zstd"), StateFailed}, {"mounts", map[string]string{"/proc/self/mountinfo": ""}, StateFailed},
		{"mounts", map[string]string{"/proc/self/mountinfo": mounts("btrfs", "rw,compress=zstd:3")["/proc/self/mountinfo"] + "33 30 0:21 /@work /work rw - btrfs /dev/b rw,nodatacow\n"}, StateFailed},
		{"boot loader", map[string]string{loaderInfo: loader("systemd-boot 257")}, StateOK}, {"boot loader", map[string]string{loaderInfo: loader("GRUB")}, StateFailed}, {"boot loader", nil, StateFailed},
		{"SSH keys", nil, StateOK}, {"SSH keys", map[string]string{"/etc/ssh/ssh_host_ed25519_key": ""}, StateOK}, {"SSH keys", map[string]string{"/etc/ssh/ssh_host_rsa_key": ""}, StateFailed},
		{"SSH keys", map[string]string{"/etc/ssh/ssh_host_ed25519_key": "", "/etc/ssh/ssh_host_dsa_key": ""}, StateFailed},
		{"declarative", map[string]string{"/etc/NIXOS": ""}, StateOK}, {"declarative", nil, StateFailed},
	} {
		d := &Doctor{Root: t.TempDir()}
		for path, text := range c.files {
			file := filepath.Join(d.Root, path)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		found := false
		for _, check := range Checks() {
			if check.Name != c.check {
				continue
			}
			found = true
			if f := d.Run(t.Context(), check); f.State != c.want || f.Evidence == "" || (f.Remedy == "") != (c.want == StateOK) {
				t.Errorf("%v: %+v, want %s", c.files, f, c.want)
			}
		}
		if !found {
			t.Errorf("there is no check %s", c.check)
		}
	}
}

// The bridges are what gb-ovs-setup status says of them, a double of which
// prints and ends as told.
func TestDoctorAsksForTheBridges(t *testing.T) {
	for _, c := range []struct{ prints, code, state, evidence string }{
		{`{"healthy":true,"ovs_version":"3.1.0","problems":[],"bridges":[{"name":"ovsbr0","addresses":["10.0.2.15/24"]},{"name":"ovsbr1"}]}`, "0", StateOK, "ovsbr0 10.0.2.15/24, ovsbr1 (Open vSwitch 3.1.0)"},
		{`{"healthy":true,"ovs_version":"3.1.0","problems":[],"bridges":[]}`, "0", StateOK, "none, and none is wanted (Open vSwitch 3.1.0)"},
		{`{"healthy":false,"problems":["flows ovsbr1 is not as it should be","more"]}`, "1", StateFailed, "flows ovsbr1 is not as it should be; more"},
		{`{"healthy":false,"problems":[]}`, "1", StateFailed, "not as they should be"},
		{`gb-ovs-setup: no`, "2", StateFailed, "gb-ovs-setup: exit status 2"},
		{``, "0", StateFailed, "gb-ovs-setup status: unexpected end of JSON input"},
	} {
		d := &Doctor{Tools: t.TempDir()}
		double := "#!/bin/sh\n[ \"$*\" = 'status --json --exit-code' ] || exit 99\ncat <<'EOF'\n" + c.prints + "\nEOF\nexit " + c.code + "\n"
		if err := os.WriteFile(filepath.Join(d.Tools, names.GBOVSSetup), []byte(double), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, check := range Checks() {
			if check.Name != "bridges" {
				continue
			}
			if f := d.Run(t.Context(), check); f.State != c.state || !strings.HasPrefix(f.Evidence, c.evidence) {
				t.Errorf("%s: %+v, want %s: %s", c.prints, f, c.state, c.evidence)
			}
		}
	}
}

// A process that has ended is told from a later one with its number.
func TestProcessIsGone(t *testing.T) {
	self := thisProcess()
	if self.Started == "" || self.Boot == "" || self.gone() {
		t.Errorf("%+v", self)
	}
	for _, p := range []process{{self.PID, "1", self.Boot}, {self.PID, self.Started, "another"}, {1 << 22, self.Started, self.Boot}} {
		if !p.gone() {
			t.Errorf("%+v runs", p)
		}
	}
}

// What a method is, and whether it is on the read list, agree.
func TestKindsAgreeWithReadList(t *testing.T) {
	for path, n := range nodes() {
		for _, i := range n.Interfaces {
			for _, m := range i.Methods {
				a := Action{Kind: KindCall, Name: names.BusName, Interface: i.Name, Member: m.Name}
				_, own, err := findMethod(incoming(path, i.Name, m.Name))
				if err != nil {
					continue // a standard one
				}
				if read := own.kind != changing && (own.kind != agents || m.Name != "Call"); read != IsRead(a) {
					t.Errorf("%s.%s: changes nothing %v, on the read list %v", i.Name, m.Name, read, IsRead(a))
				}
			}
		}
	}
}

func incoming(path, iface, member string) bus.Incoming {
	return bus.Incoming{Path: path, Interface: iface, Member: member}
}
