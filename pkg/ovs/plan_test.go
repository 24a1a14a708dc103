package ovs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// state makes a State of bridges, each "NAME[!] PORT[!] ...", where ! marks a
// row of ours.
func state(bridges ...string) *State {
	s := &State{Root: ovsdb.Row{"_uuid": ovsdb.UUID("root"), "bridges": ovsdb.Set{}, "other_config": ovsdb.Map{}, "external_ids": ovsdb.Map{}},
		Bridges: map[ovsdb.UUID]ovsdb.Row{}, Ports: map[ovsdb.UUID]ovsdb.Row{}, Interfaces: map[ovsdb.UUID]ovsdb.Row{}}
	ids := func(word string) (string, ovsdb.Map) {
		name, mine := strings.CutSuffix(word, "!")
		if mine {
			return name, ovsdb.Map{ownerKey: ownerValue}
		}
		return name, ovsdb.Map{}
	}
	var all ovsdb.Set
	for _, b := range bridges {
		words := strings.Fields(b)
		var ports ovsdb.Set
		for i, w := range words {
			name, owner := ids(w)
			typ := ""
			if i == 0 {
				typ = "internal"
			}
			iface, port := ovsdb.UUID("i-"+name), ovsdb.UUID("p-"+name)
			s.Interfaces[iface] = ovsdb.Row{"_uuid": iface, "name": name, "type": typ, "options": ovsdb.Map{}, "mtu_request": ovsdb.Set{}, "mac": ovsdb.Set{}, "external_ids": owner}
			s.Ports[port] = ovsdb.Row{"_uuid": port, "name": name, "interfaces": iface, "tag": ovsdb.Set{}, "trunks": ovsdb.Set{}, "vlan_mode": ovsdb.Set{}, "other_config": ovsdb.Map{}, "external_ids": owner}
			ports = append(ports, port)
		}
		name, owner := ids(words[0])
		id := ovsdb.UUID("b-" + name)
		s.Bridges[id] = ovsdb.Row{"_uuid": id, "name": name, "ports": ports, "datapath_type": "", "fail_mode": "standalone", "protocols": ovsdb.Set{}, "other_config": ovsdb.Map{}, "external_ids": owner}
		all = append(all, id)
	}
	s.Root["bridges"] = all
	return s
}

func TestPlanRemovesOnlyWhatIsOurs(t *testing.T) {
	for _, c := range []struct {
		name, config string
		have         []string
		want         string
	}{
		{"ours goes", `{"bridges":{}}`, []string{"b! p!"}, "delete bridge b"},
		{"theirs stays", `{"bridges":{}}`, []string{"b p"}, "foreign bridge b"},
		{"ours with theirs on it", `{"bridges":{}}`, []string{"b! p! q"}, "delete port p, foreign port q, foreign bridge b"},
		{"our port on theirs", `{"bridges":{}}`, []string{"b p!"}, "delete port p, foreign bridge b"},
		{"their port on ours", `{"bridges":{"b":{}}}`, []string{"b! q"}, "foreign port q"},
		{"as wanted", `{"bridges":{"b":{"ports":{"p":{}}}}}`, []string{"b! p!"}, ""},
		{"taken over", `{"bridges":{"b":{}}}`, []string{"b"}, "adopt bridge b, adopt port b, adopt interface b"},
		{"moved", `{"bridges":{"b":{},"c":{"ports":{"p":{}}}}}`, []string{"b! p!", "c!"}, "delete port p, create port p"},
		{"their port is wanted elsewhere", `{"bridges":{"b":{},"c":{"ports":{"p":{}}}}}`, []string{"b! p", "c!"}, "error p: is a port of b that is not ours"},
		{"a port is wanted where a bridge is", `{"bridges":{"c":{"ports":{"b":{}}}}}`, []string{"b!", "c!"}, "error b: is a bridge"},
		{"new", `{"bridges":{"b":{"ports":{"p":{"tag":3}}}}}`, nil, "create bridge b, create port b, create port p"},
	} {
		config, err := Parse([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		s := state(c.have...)
		s.Root["other_config"] = ovsdb.Map{"hw-offload": "false"}
		s.Root["external_ids"] = ovsdb.Map{keysKey: "o:hw-offload"}
		plan, err := NewPlan(config, s, Facts{})
		var got []string
		if err != nil {
			got = append(got, "error "+err.Error())
		} else {
			for _, ch := range plan.Changes {
				got = append(got, fmt.Sprintf("%s %s %s", ch.Action, ch.Kind, ch.Name))
			}
			for _, f := range plan.Foreign {
				got = append(got, "foreign "+f.Kind+" "+f.Name)
			}
			if plan.Empty() == plan.ChangesDatabase() {
				t.Errorf("%s: %d changes, and ChangesDatabase is %v", c.name, len(plan.Changes), plan.ChangesDatabase())
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

// Keys of shared maps that were ours and are no longer wanted go, others stay.
func TestPlanTakesBackItsKeys(t *testing.T) {
	s := state()
	s.Root["other_config"] = ovsdb.Map{"hw-offload": "true", "mine": "1", "theirs": "2"}
	s.Root["external_ids"] = ovsdb.Map{keysKey: "e:site,o:hw-offload,o:mine", "site": "x", "system-id": "y"}
	c, err := Parse([]byte(`{"bridges":{},"external_ids":{"new":"z"}}`))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(c, s, Facts{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Changes) != 1 {
		t.Fatalf("%+v", plan.Changes)
	}
	got := fmt.Sprint(plan.Changes[0].Fields["other_config"].To, plan.Changes[0].Fields["external_ids"].To)
	if want := "map[hw-offload:false theirs:2] map[gb-keys:e:new,o:hw-offload new:z system-id:y]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The flows drop what passes a patch between isolated bridges, over others
// too, at both ends.
func TestIsolationFollowsPatches(t *testing.T) {
	s := state("ovsbr0! toX", "ovsbr1! toY", "mid fromX fromY", "alone")
	n := int64(1)
	for name, peer := range map[string]string{"toX": "fromX", "fromX": "toX", "toY": "fromY", "fromY": "toY"} {
		row := s.Interfaces[ovsdb.UUID("i-"+name)]
		row["type"], row["options"], row["ofport"] = "patch", ovsdb.Map{"peer": peer}, n
		n++
	}
	c, err := Parse([]byte(`{"bridges":{"ovsbr0":{},"ovsbr1":{"flows":{"isolate":["ovsbr0"]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	sets := WantedFlows(c, s)
	drops := 0
	for bridge, set := range sets {
		for _, f := range set.Flows {
			if f.Actions == "drop" {
				drops++
				if bridge != "ovsbr1" && bridge != "mid" {
					t.Errorf("%s: %s", bridge, f)
				}
			}
		}
	}
	if drops != 2 {
		t.Errorf("%d drops, want one at each end of ovsbr1's patch: %v", drops, sets)
	}
	s.Interfaces["i-toX"]["options"] = ovsdb.Map{} // the way is cut
	for bridge, set := range WantedFlows(c, s) {
		for _, f := range set.Flows {
			if f.Actions == "drop" {
				t.Errorf("no way leads to ovsbr0, but %s has %s", bridge, f)
			}
		}
	}
}
