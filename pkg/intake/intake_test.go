package intake

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// accepted converts line and returns the event that the log would store.
func accepted(t testing.TB, c Converter, line string) *event.Event {
	t.Helper()
	got, err := c([]byte(line))
	if err != nil {
		t.Fatalf("%.100q: %v", line, err)
	}
	if got == nil {
		return nil
	}
	var p event.Parser
	d, err := p.Parse(got)
	if err != nil {
		t.Fatalf("%.100q became %.300q, which the log refuses: %v", line, got, err)
	}
	stored, err := d.Append(nil, event.Stamp{Host: "h", At: time.Unix(1, 0)})
	if event.TooLong(err) {
		moved, _, _ := d.Externalize()
		stored, err = moved.Append(nil, event.Stamp{Host: "h", At: time.Unix(1, 0)})
	}
	if err != nil {
		t.Fatalf("%.100q: %v", line, err)
	}
	e, err := event.Decode(stored)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConverters(t *testing.T) {
	for _, c := range []struct {
		format, line               string
		source, typ, subject, mess string
		severity                   event.Severity
		time                       string
	}{
		{"text", "hello\tthere\x1b[31m \xff", "text", "line", "", "hello there[31m \uFFFD", event.Info, ""},
		{"journald", `{"__REALTIME_TIMESTAMP":"1700000000000001","MESSAGE":"Started sshd.","PRIORITY":"6","_SYSTEMD_UNIT":"init.scope","UNIT":"ssh.service","SYSLOG_IDENTIFIER":"systemd","_HOSTNAME":"h1","_UID":"0"}`,
			"journald", "journal.systemd", "ssh.service", "Started sshd.", event.Info, "2023-11-14T22:13:20.000001Z"},
		{"journald", `{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":[104,105,0,255],"PRIORITY":"3","SYSLOG_IDENTIFIER":["a b","c"]}`,
			"journald", "journal.a-b-c", "a b c", "hi\uFFFD", event.Error, ""},
		{"journald", `{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":null}`, "journald", "journal", "", "", event.Info, ""},
		{"kmsg", `6,339,5140900,-;NET: Registered PF_INET6 protocol family`, "kernel", "kernel.message", "NET", "NET: Registered PF_INET6 protocol family", event.Info, "2026-01-01T00:00:05.1409Z"},
		{"kmsg", `11,1,2,-,caller=T1;usb 1-1: gone`, "kernel", "kernel.message", "", "usb 1-1: gone", event.Error, "2026-01-01T00:00:00.000002Z"},
		{"busctl", `{"type":"signal","endian":"l","flags":1,"version":1,"cookie":4,"timestamp-realtime":1700000000000000,"sender":":1.2","path":"/org/x","interface":"org.x","member":"Changed","payload":{"type":"s","data":["v"]}}`,
			"dbus", "dbus.Changed", "/org/x", "signal org.x.Changed from :1.2 at /org/x", event.Info, "2023-11-14T22:13:20Z"},
	} {
		conv, err := New(c.format, Options{Boot: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
		if err != nil {
			t.Fatal(err)
		}
		e := accepted(t, conv, c.line)
		if e.Source != c.source || e.Type != c.typ || e.Subject != c.subject || e.Message != c.mess || e.Severity != c.severity {
			t.Errorf("%s:\n got %q %q %q %q %v", c.line, e.Source, e.Type, e.Subject, e.Message, e.Severity)
		}
		if want, err := time.Parse(time.RFC3339, c.time); err == nil && !e.Time.Equal(want) {
			t.Errorf("%s: time %v, want %v", c.line, e.Time, want)
		}
	}
}

func TestLeftOut(t *testing.T) {
	for format, line := range map[string]string{
		"text": "  \t ", "kmsg": " SUBSYSTEM=pci", "busctl": `{"type":"method_call","payload":{}}`,
	} {
		c, _ := New(format, Options{})
		if got, err := c([]byte(line)); got != nil || err != nil {
			t.Errorf("%s: %q, %v", format, got, err)
		}
	}
}

// Our own units start each second: that is not recorded, that one of them fails
// is, and so is what others do.
func TestOwnRoutineIsLeftOut(t *testing.T) {
	journal := func(unit, id string) string {
		return `{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":"x","SYSLOG_IDENTIFIER":"systemd","UNIT":"` + unit + `","MESSAGE_ID":"` + id + `"}`
	}
	signal := func(path, member, data string) string {
		return `{"type":"signal","sender":":1.0","path":"/org/freedesktop/systemd1` + path + `","interface":"i","member":"` + member + `","payload":{"type":"s","data":` + data + `}}`
	}
	const started, failed = "39f53479d3a045ac8e11786248231fbf", "d9b373ed55a64feb8242e02dbe79a49c"
	for _, c := range []struct {
		format, line string
		out          bool
	}{
		{"journald", journal("btrfs-snapshot.service", started), true},
		{"journald", journal("gb-vecsync@7-1-0.service", started), true},
		{"journald", journal("btrfs-snapshot.service", failed), false},
		{"journald", journal("ssh.service", started), false},
		{"busctl", signal("/unit/btrfs_2dsnapshot_2eservice", "PropertiesChanged", `["a",{"ActiveState":{"type":"s","data":"inactive"}},[]]`), true},
		{"busctl", signal("/unit/btrfs_2dsnapshot_2eservice", "PropertiesChanged", `["a",{"ActiveState":{"type":"s","data":"failed"}},[]]`), false},
		{"busctl", signal("/unit/ssh_2eservice", "PropertiesChanged", `[]`), false},
		{"busctl", signal("", "JobRemoved", `[7,"/org/freedesktop/systemd1/job/7","btrfs-snapshot.service","done"]`), true},
		{"busctl", signal("", "JobRemoved", `[7,"/org/freedesktop/systemd1/job/7","btrfs-snapshot.service","timeout"]`), false},
		{"busctl", signal("", "JobNew", `[7,"/org/freedesktop/systemd1/job/7","ssh.service"]`), false},
		{"busctl", signal("/job/7", "PropertiesChanged", `[]`), true},
		{"busctl", signal("", "UnitNew", `["gb-vecsync@1-2.service","/x"]`), true},
		{"busctl", strings.ReplaceAll(signal("", "UnitNew", `["btrfs-snapshot.service","/x"]`), "systemd1", "other"), false},
	} {
		conv, err := New(c.format, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if e := accepted(t, conv, c.line); (e == nil) != c.out {
			t.Errorf("%s: left out: %v", c.line, e == nil)
		}
	}
}

func TestNotTheFormat(t *testing.T) {
	for _, format := range []string{"journald", "kmsg", "busctl"} {
		c, _ := New(format, Options{})
		if got, err := c([]byte("Hello, world")); err == nil {
			t.Errorf("%s: took %q", format, got)
		}
	}
	if _, err := New("nope", Options{}); err == nil || !strings.Contains(err.Error(), "journald") {
		t.Error(err)
	}
}

// Whatever a converter makes of a line, the log takes.
func FuzzConvertedLinesAreAccepted(f *testing.F) {
	f.Add("journald", `{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":[104,105,0,255],"log":"\u0000"}`)
	f.Add("kmsg", `6,339,5140900,-;log: \x1b`)
	f.Add("busctl", `{"type":"signal","member":"log","payload":{"data":[{"a":1}]}}`)
	f.Add("text", "log \xff\x00")
	f.Fuzz(func(t *testing.T, format, line string) {
		c, err := New(format, Options{Source: line, Type: line})
		if err != nil {
			t.Skip()
		}
		if _, err := c([]byte(line)); err == nil {
			accepted(t, c, line)
		}
	})
}

func TestLongFieldsAreCapped(t *testing.T) {
	c, _ := New("journald", Options{})
	fields := map[string]string{"__REALTIME_TIMESTAMP": "1700000000000000", "MESSAGE": strings.Repeat("é", 1<<20)}
	for i := range 500 {
		fields[strings.Repeat("K", i+1)] = strings.Repeat("v", 10000)
	}
	line, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if e := accepted(t, c, string(line)); len(e.Message) > maxMessage+3 || e.Blob == nil && len(e.Data) > event.MaxLine {
		t.Errorf("message of %d bytes, data of %d", len(e.Message), len(e.Data))
	}
}
