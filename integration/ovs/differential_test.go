//go:build linux

package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// TestDifferential applies random desired states, each on top of the one
// before and of changes by others, and by ovs-vsctl to a second database. Both
// must hold the same.
func TestDifferential(t *testing.T) { differential(t, 50) }

func TestDifferentialLong(t *testing.T) {
	require.Torture(t)
	differential(t, 1000)
}

func differential(t *testing.T, seeds uint64) {
	ours := vswitch.Start(t, vswitch.Options{NoSwitch: true})
	theirs := vswitch.Start(t, vswitch.Options{NoSwitch: true})
	a, b := dial(t, ours), dial(t, theirs)
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 0))
		for _, s := range []*vswitch.Switch{ours, theirs} { // from empty
			if _, err := s.Vsctl("--no-wait", "--", "clear", "Open_vSwitch", ".", "bridges", "external_ids", "other_config"); err != nil {
				t.Fatal(err)
			}
		}
		before := &memory{bridges: make(map[string]ovs.Bridge), foreign: make(map[string]bool)}
		for step := range 4 {
			config := randomConfig(r)
			text, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			config, err = ovs.Parse(text)
			if err != nil {
				t.Fatalf("seed %d: %v: %s", seed, err, text)
			}
			if err := apply(a, config); err != nil {
				t.Fatalf("seed %d step %d: %v: %s", seed, step, err, text)
			}
			if argv := before.vsctlFor(config); len(argv) > 0 {
				if _, err := theirs.Vsctl(append([]string{"--no-wait"}, argv...)...); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
			}
			if got, want := normalised(t, a), normalised(t, b); got != want {
				t.Fatalf("seed %d step %d: %s\nours differs from ovs-vsctl's:\n%s", seed, step, text, firstDifference(got, want))
			}
			if plan := planFor(t, a, config); !plan.Empty() {
				t.Fatalf("seed %d step %d: a second apply would change %v", seed, step, plan.Changes)
			}
			// What others do in between, the same to both.
			others := before.others(r, step)
			for _, s := range []*vswitch.Switch{ours, theirs} {
				if _, err := s.Vsctl(append([]string{"--no-wait"}, others...)...); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
			}
		}
	}
}

// Whatever somebody else changes between reading and committing, of what the
// plan rests on: nothing is done, and the next plan has it right.
func TestPlanIsGuarded(t *testing.T) {
	s := vswitch.Start(t, vswitch.Options{NoSwitch: true})
	db := dial(t, s)
	parse := func(text string) *ovs.Config {
		c, err := ovs.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := parse(`{"bridges": {"br0": {"ports": {"p0": {"tag": 1}, "p1": {}}}}}`)
	then := parse(`{"bridges": {"br0": {"mac": "02:00:00:00:00:01", "ports": {"p0": {"tag": 2}, "p2": {}}}, "br1": {}}}`)
	for name, other := range map[string]string{
		"a column that changes":  "set Port p0 tag=7",
		"a port that goes":       "del-port br0 p1",
		"a port that comes":      "add-port br0 p9",
		"the port that is added": "add-port br0 p2",
		"a bridge that comes":    "add-br br1",
		"the bridge goes":        "del-br br0",
		"a key of a shared map":  "set Bridge br0 other_config:x=y",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Vsctl("--no-wait", "--", "clear", "Open_vSwitch", ".", "bridges", "external_ids", "other_config"); err != nil {
				t.Fatal(err)
			}
			if err := apply(db, first); err != nil {
				t.Fatal(err)
			}
			plan := planFor(t, db, then)
			if _, err := s.Vsctl(append([]string{"--no-wait", "--"}, strings.Fields(other)...)...); err != nil {
				t.Fatal(err)
			}
			before := normalised(t, db)
			if _, err := plan.Commit(context.Background(), db, "test"); !errors.Is(err, ovsdb.ErrConflict) {
				t.Errorf("the outdated plan was committed: %v", err)
			}
			if after := normalised(t, db); after != before {
				t.Errorf("the refused plan changed something:\n%s", firstDifference(before, after))
			}
			if strings.HasPrefix(other, "add-port br0 p2") || strings.HasPrefix(other, "add-br") {
				return // theirs now, and adopted: seen in plans' own tests
			}
			if err := apply(db, then); err != nil {
				t.Fatal(err)
			}
			if plan := planFor(t, db, then); !plan.Empty() {
				t.Errorf("still to do: %v", plan.Changes)
			}
		})
	}
}

func dial(t testing.TB, s *vswitch.Switch) *ovsdb.Client {
	t.Helper()
	c, err := ovsdb.Dial(context.Background(), s.DB)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func planFor(t testing.TB, db ovs.DB, c *ovs.Config) *ovs.Plan {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state, err := ovs.ReadState(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := ovs.NewPlan(c, state, ovs.Facts{MACs: macs})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func apply(db ovs.DB, c *ovs.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state, err := ovs.ReadState(ctx, db)
	if err != nil {
		return err
	}
	plan, err := ovs.NewPlan(c, state, ovs.Facts{MACs: macs})
	if err != nil || !plan.ChangesDatabase() {
		return err
	}
	_, err = plan.Commit(ctx, db, "test")
	return err
}

func normalised(t testing.TB, db ovs.DB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	snap, err := ovs.TakeSnapshot(ctx, db.(*ovsdb.Client))
	if err != nil {
		t.Fatal(err)
	}
	return string(snap.Normalise())
}

func firstDifference(a, b string) string {
	al, bl := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for _, l := range al {
		if !slices.Contains(bl, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range bl {
		if !slices.Contains(al, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

// macs are those of the NICs that the random states name.
var macs = func() map[string]string {
	m := map[string]string{}
	for i := range 8 {
		m[fmt.Sprintf("p%d", i)] = fmt.Sprintf("02:00:00:00:02:%02x", i)
	}
	return m
}()

// randomConfig makes a desired state of few names, so that states meet.
func randomConfig(r *rand.Rand) *ovs.Config {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	words := func(n int) map[string]string {
		m := map[string]string{}
		for range r.IntN(n + 1) {
			m[pick("k1", "k2", "stp-priority", "a b", `q"uote`, "ünï")] = pick("v", "", "x,y", `"q"`, "0x10", "true", "17", "sp ace")
		}
		return m
	}
	c := &ovs.Config{Bridges: map[string]ovs.Bridge{}, HWOffload: r.IntN(4) == 0, OtherConfig: words(2), ExternalIDs: words(2)}
	free := []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"}
	r.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	take := func() string { n := free[0]; free = free[1:]; return n }
	for _, name := range []string{"br0", "br1", "br2"} {
		if r.IntN(4) == 0 {
			continue
		}
		b := ovs.Bridge{DatapathType: pick("", "system", "netdev"), FailMode: pick("", "standalone", "secure"),
			OtherConfig: words(2), ExternalIDs: words(2), Ports: map[string]ovs.Port{}}
		if r.IntN(2) == 0 {
			b.MAC = fmt.Sprintf("02:00:00:00:00:%02x", r.IntN(256))
		}
		if r.IntN(3) == 0 {
			b.MTU = 1400 + r.IntN(200)
		}
		if r.IntN(3) == 0 {
			b.Protocols = []string{"OpenFlow10", "OpenFlow14", "OpenFlow15"}[:1+r.IntN(3)]
			b.Protocols = append(b.Protocols[:len(b.Protocols):len(b.Protocols)], "OpenFlow13")
		}
		for range r.IntN(3) {
			p := ovs.Port{Type: pick("", "system", "uplink", "internal"), OtherConfig: words(1), ExternalIDs: words(2)}
			for _, other := range b.Ports {
				if other.Type == "uplink" && p.Type == "uplink" {
					p.Type = "system"
				}
			}
			if r.IntN(2) == 0 {
				tag := r.IntN(4096)
				p.Tag = &tag
			} else if r.IntN(2) == 0 {
				p.Trunks = []int{r.IntN(2000), 2000 + r.IntN(2000)}
				p.VLANMode = pick("", "trunk")
			}
			if p.Type == "internal" && r.IntN(2) == 0 {
				p.MAC = fmt.Sprintf("02:00:00:00:01:%02x", r.IntN(256))
			}
			if r.IntN(3) == 0 {
				p.MTU = 1400 + r.IntN(200)
			}
			b.Ports[take()] = p
		}
		c.Bridges[name] = b
	}
	if _, ok := c.Bridges["br0"]; ok && r.IntN(2) == 0 {
		if _, ok := c.Bridges["br1"]; ok {
			x, y := take(), take()
			c.Bridges["br0"].Ports[x] = ovs.Port{Type: "patch", Peer: y}
			c.Bridges["br1"].Ports[y] = ovs.Port{Type: "patch", Peer: x}
		}
	}
	return c
}

// A memory is what somebody must know who keeps a switch by ovs-vsctl.
type memory struct {
	bridges     map[string]ovs.Bridge // ours that are there, as they were wanted last
	foreign     map[string]bool       // those that have ports of others
	other, root map[string]string     // of the root's row: other_config and external_ids
}

// others returns what others do: bridges and ports of theirs, keys of theirs
// in our rows, and changes of what is ours.
func (m *memory) others(r *rand.Rand, step int) []string {
	argv := []string{}
	run := func(words ...string) { argv = append(append(argv, "--"), words...) }
	run("set", "Open_vSwitch", ".", fmt.Sprintf("other_config:theirs%d=1", r.IntN(3)), fmt.Sprintf("external_ids:system-id=%d", r.IntN(3)))
	if r.IntN(3) == 0 {
		name := fmt.Sprintf("theirs%d", step)
		run("add-br", name)
		run("set", "Bridge", name, "external_ids:who=them", "fail_mode=secure")
	}
	for _, name := range slices.Sorted(maps.Keys(m.bridges)) {
		if r.IntN(4) == 0 {
			port := fmt.Sprintf("f%d%s", step, name)
			run("add-port", name, port, fmt.Sprintf("tag=%d", r.IntN(100)))
			m.foreign[name] = true
		}
		if r.IntN(3) == 0 {
			run("set", "Bridge", name, fmt.Sprintf("external_ids:theirs%d=x", r.IntN(2)), "fail_mode=secure", "other_config:drift=1")
		}
		for _, port := range slices.Sorted(maps.Keys(m.bridges[name].Ports)) {
			switch r.IntN(6) {
			case 0:
				run("del-port", name, port)
			case 1:
				run("set", "Port", port, "tag=99", "external_ids:vm=y")
			case 2:
				run("set", "Interface", port, "external_ids:iface-id=z", "mtu_request=1234")
			}
		}
	}
	return argv
}

// vsctlFor returns the commands of one ovs-vsctl run that bring a database
// from what is remembered to a desired state, as somebody would write them who
// knows both. It shares nothing with what it checks but the names of our tags.
func (m *memory) vsctlFor(c *ovs.Config) []string {
	var argv []string
	run := func(words ...string) { argv = append(append(argv, "--"), words...) }
	for _, name := range slices.Sorted(maps.Keys(m.bridges)) {
		b, stays := c.Bridges[name]
		if !stays && !m.foreign[name] {
			run("del-br", name)
			delete(m.bridges, name)
			continue
		}
		for _, port := range slices.Sorted(maps.Keys(m.bridges[name].Ports)) {
			if _, stays := b.Ports[port]; !stays {
				run("--if-exists", "del-port", name, port)
			}
		}
		if !stays { // with ports of others on it
			left := m.bridges[name]
			left.Ports = nil
			m.bridges[name] = left
		}
	}
	root := []string{}
	remove("Open_vSwitch", ".", "other_config", m.other, run)
	remove("Open_vSwitch", ".", "external_ids", m.root, run)
	setMap("Open_vSwitch", ".", "other_config", c.OtherConfig, run)
	setMap("Open_vSwitch", ".", "external_ids", c.ExternalIDs, run)
	run("set", "Open_vSwitch", ".", "other_config:hw-offload="+fmt.Sprint(c.HWOffload))
	m.other, m.root = c.OtherConfig, c.ExternalIDs
	for _, k := range slices.Sorted(maps.Keys(c.ExternalIDs)) {
		root = append(root, "e:"+k)
	}
	for _, k := range slices.Sorted(maps.Keys(with(c.OtherConfig, "hw-offload", ""))) {
		root = append(root, "o:"+k)
	}
	setMap("Open_vSwitch", ".", "external_ids", map[string]string{"gb-keys": strings.Join(root, ",")}, run)
	for _, name := range slices.Sorted(maps.Keys(c.Bridges)) {
		b := c.Bridges[name]
		run("--may-exist", "add-br", name)
		failMode := b.FailMode
		if failMode == "" {
			failMode = "standalone"
		}
		run("set", "Bridge", name, "fail_mode="+failMode, `datapath_type="`+strings.TrimPrefix(b.DatapathType, "system")+`"`)
		run("clear", "Bridge", name, "other_config", "protocols")
		remove("Bridge", name, "external_ids", owned(m.bridges[name].ExternalIDs), run)
		setMap("Bridge", name, "other_config", b.OtherConfig, run)
		mac := b.MAC
		for port, p := range b.Ports {
			if mac == "" && p.Type == "uplink" {
				mac = macs[port]
			}
		}
		if mac != "" {
			setMap("Bridge", name, "other_config", map[string]string{"hwaddr": mac}, run)
		}
		setMap("Bridge", name, "external_ids", owned(b.ExternalIDs), run)
		if len(b.Protocols) > 0 {
			run("set", "Bridge", name, "protocols="+strings.Join(b.Protocols, ","))
		}
		setPort(name, ovs.Port{Type: "internal", MTU: b.MTU}, ovs.Port{}, run)
		for _, port := range slices.Sorted(maps.Keys(b.Ports)) {
			run("--may-exist", "add-port", name, port)
			setPort(port, b.Ports[port], m.bridges[name].Ports[port], run)
		}
		m.bridges[name] = b
	}
	return argv
}

func setPort(name string, p, before ovs.Port, run func(...string)) {
	run("clear", "Port", name, "tag", "trunks", "vlan_mode", "other_config")
	run("clear", "Interface", name, "options", "mtu_request", "mac")
	remove("Port", name, "external_ids", map[string]string{"gb-keys": ""}, run)
	remove("Interface", name, "external_ids", owned(before.ExternalIDs), run)
	setMap("Port", name, "other_config", p.OtherConfig, run)
	setMap("Port", name, "external_ids", owned(nil), run)
	setMap("Interface", name, "external_ids", owned(p.ExternalIDs), run)
	if p.Tag != nil {
		run("set", "Port", name, fmt.Sprintf("tag=%d", *p.Tag))
	}
	if len(p.Trunks) > 0 {
		run("set", "Port", name, strings.ReplaceAll(fmt.Sprintf("trunks=%v", p.Trunks), " ", ","))
	}
	if p.VLANMode != "" {
		run("set", "Port", name, "vlan_mode="+p.VLANMode)
	}
	switch p.Type {
	case "internal":
		run("set", "Interface", name, "type=internal")
	case "patch":
		run("set", "Interface", name, "type=patch", "options:peer="+p.Peer)
	default:
		run("set", "Interface", name, `type=""`)
	}
	if p.MTU != 0 {
		run("set", "Interface", name, fmt.Sprintf("mtu_request=%d", p.MTU))
	}
	if p.MAC != "" {
		run("set", "Interface", name, `mac="`+p.MAC+`"`)
	}
}

func owned(ids map[string]string) map[string]string {
	m := with(ids, "gb-owner", "gb-ovs-setup")
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(ids)) {
		keys = append(keys, "e:"+k)
	}
	if len(keys) > 0 {
		m["gb-keys"] = strings.Join(keys, ",")
	}
	return m
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	maps.Copy(out, m)
	return out
}

// remove takes the keys of m out of a column.
func remove(table, record, column string, m map[string]string, run func(...string)) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		run("remove", table, record, column, quoted(k))
	}
}

func setMap(table, record, column string, m map[string]string, run func(...string)) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		run("set", table, record, column+":"+quoted(k)+"="+quoted(m[k]))
	}
}

// quoted is a JSON string, which ovs-vsctl reads as one.
func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
