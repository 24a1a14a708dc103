package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
)

// A Status is how the switch is.
type Status struct {
	Healthy   bool           `json:"healthy"`
	Problems  []string       `json:"problems"`
	Version   string         `json:"ovs_version,omitempty"`
	Behind    bool           `json:"behind"` // the switch has not taken the latest configuration
	Pending   string         `json:"pending,omitempty"`
	ConfirmBy time.Time      `json:"confirm_by,omitzero"`
	Confirmed string         `json:"confirmed,omitempty"` // hash of what boots apply
	Bridges   []BridgeStatus `json:"bridges"`
	Offload   []Offload      `json:"offload"`
	Drift     []Change       `json:"drift"`
	Foreign   []Report       `json:"foreign,omitempty"`
	Warnings  []string       `json:"warnings,omitempty"`
}

// A BridgeStatus is how a bridge is.
type BridgeStatus struct {
	Name      string       `json:"name"`
	Ours      bool         `json:"ours"`
	Datapath  string       `json:"datapath_type"`
	FailMode  string       `json:"fail_mode,omitempty"`
	Addresses []string     `json:"addresses"`
	Flows     *FlowStatus  `json:"flows,omitempty"` // of a bridge whose flows are ours
	Ports     []PortStatus `json:"ports"`
}

// A FlowStatus counts a bridge's flows.
type FlowStatus struct {
	Wanted  int  `json:"wanted"`
	Missing int  `json:"missing"`
	Extra   int  `json:"extra"`
	Foreign int  `json:"foreign"`
	Meter   bool `json:"meter_ok"`
}

// A PortStatus is how a port is.
type PortStatus struct {
	Name   string `json:"name"`
	Ours   bool   `json:"ours"`
	Type   string `json:"type"`
	OFPort int64  `json:"ofport,omitempty"`
	Error  string `json:"error,omitempty"`
	MAC    string `json:"mac,omitempty"`
	MTU    int64  `json:"mtu,omitempty"`
	Admin  string `json:"admin_state,omitempty"`
	Link   string `json:"link_state,omitempty"`

	Statistics map[string]int64 `json:"statistics,omitempty"` // rx_bytes, tx_dropped and so on, as the switch counts
}

// statistics returns what the switch has counted, by interface; nothing if it
// can't be read. It is read for itself: it changes all the time, and no plan
// is about it.
func (s *Setup) statistics(ctx context.Context) map[string]map[string]int64 {
	db, err := s.connect(ctx)
	if err != nil {
		return nil
	}
	res, err := db.Transact(ctx, Database, ovsdb.Select("Interface", "", "_uuid", "name", "statistics"))
	if err != nil || len(res) != 1 {
		return nil
	}
	out := make(map[string]map[string]int64, len(res[0].Rows))
	for _, r := range res[0].Rows {
		m, _ := r["statistics"].(ovsdb.Map)
		counts := make(map[string]int64, len(m))
		for k, v := range m {
			name, ok := k.(string)
			switch n := v.(type) {
			case int64:
				counts[name] = n
			case float64:
				counts[name] = int64(n)
			case json.Number:
				counts[name], err = n.Int64()
				ok = ok && err == nil
			}
			if !ok {
				delete(counts, name)
			}
		}
		out[r.String("name")] = counts
	}
	return out
}

// InForce returns the configuration that counts now: that of a change that
// awaits its confirmation, else the confirmed one, else fallback.
func (s *Setup) InForce(fallback *Config) (*Config, error) {
	pending, err := s.Store.Pending()
	if err != nil {
		return nil, err
	}
	if pending != "" {
		if point, err := s.Store.Load(pending); err == nil {
			return Parse(point.Config)
		}
	}
	c, _, err := s.Store.confirmedConfig()
	if c != nil || err != nil {
		return c, err
	}
	return fallback, nil
}

// Status looks at everything. c may be nil: then nothing is wanted, and
// nothing drifts. What can't be looked at is a problem, not an error.
func (s *Setup) Status(ctx context.Context, c *Config) *Status {
	st := &Status{Problems: []string{}, Bridges: []BridgeStatus{}, Offload: []Offload{}, Drift: []Change{}}
	problem := func(format string, args ...any) { st.Problems = append(st.Problems, fmt.Sprintf(format, args...)) }
	if last, err := s.Store.Confirmed(); err == nil && last != nil {
		st.Confirmed = last.Hash
	}
	if id, err := s.Store.Pending(); err != nil {
		problem("%v", err)
	} else if id != "" {
		st.Pending = id
		if point, err := s.Store.Load(id); err != nil {
			problem("%v", err)
		} else if st.ConfirmBy = point.Deadline; point.overdue() {
			problem("the change %s should have been rolled back at %s", id, point.Deadline.Format(time.RFC3339))
		}
	}
	wanted := c
	if c == nil {
		wanted = &Config{}
	}
	v, err := s.Survey(ctx, wanted)
	if err != nil {
		problem("%v", err)
		return st
	}
	if c != nil {
		st.Drift = append(st.Drift, v.Plan.Changes...)
		st.Foreign, st.Warnings = v.Plan.Foreign, v.Plan.Warnings
		st.Offload = append(st.Offload, v.Offload...)
	}
	st.Version = v.State.Root.String("ovs_version")
	if _, st.Behind = v.State.behind(); st.Behind {
		problem("ovs-vswitchd has not taken the latest configuration")
	}
	if p := s.flows().Ping(ctx); p != nil {
		problem("%v", p)
	}
	for _, d := range st.Drift {
		problem("%s %s is not as it should be", d.Kind, d.Name)
	}
	counted := s.statistics(ctx)
	for _, b := range sortedRows(v.State.Bridges) {
		bs := BridgeStatus{Name: b.String("name"), Ours: ours(b), Datapath: b.String("datapath_type"), FailMode: b.String("fail_mode"), Addresses: []string{}, Ports: []PortStatus{}}
		if bs.Datapath == "" {
			bs.Datapath = "system"
		}
		if list, err := rtnetlink.Addresses(bs.Name); err == nil {
			for _, a := range list {
				bs.Addresses = append(bs.Addresses, a.CIDR.String())
			}
		} else if !errors.Is(err, rtnetlink.ErrNoLink) {
			problem("%v", err)
		}
		if d := v.Flows[bs.Name]; d != nil {
			bs.Flows = &FlowStatus{Wanted: len(v.sets[bs.Name].Flows), Missing: len(d.Missing), Extra: len(d.Extra), Foreign: len(d.Foreign), Meter: !d.Meter}
		}
		for _, p := range v.State.portsOf(b) {
			for _, i := range v.State.interfacesOf(p) {
				ps := PortStatus{Name: i.String("name"), Ours: ours(p), Type: i.String("type"), Error: i.String("error"), MAC: i.String("mac_in_use"),
					Admin: i.String("admin_state"), Link: i.String("link_state")}
				ps.OFPort, _ = i.Int("ofport")
				ps.MTU, _ = i.Int("mtu")
				ps.Statistics = counted[ps.Name]
				if f := faultOf(i); f != "" && (ours(p) || ours(b)) {
					problem("%s: %s", ps.Name, f)
				}
				bs.Ports = append(bs.Ports, ps)
			}
		}
		st.Bridges = append(st.Bridges, bs)
	}
	st.Healthy = len(st.Problems) == 0
	return st
}

// WriteMetrics writes a status in Prometheus' text format (version 0.0.4).
func (st *Status) WriteMetrics(w io.Writer) error {
	var b strings.Builder
	head := func(name, help string) {
		fmt.Fprintf(&b, "# HELP ghostbridge_ovs_%s %s\n# TYPE ghostbridge_ovs_%[1]s gauge\n", name, help)
	}
	metric := func(name string, value any, labels ...string) {
		var l []string
		for i := 0; i+1 < len(labels); i += 2 {
			l = append(l, fmt.Sprintf(`%s="%s"`, labels[i], strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD"))))
		}
		if len(l) > 0 {
			fmt.Fprintf(&b, "ghostbridge_ovs_%s{%s} %v\n", name, strings.Join(l, ","), value)
		} else {
			fmt.Fprintf(&b, "ghostbridge_ovs_%s %v\n", name, value)
		}
	}
	number := func(v bool) int {
		if v {
			return 1
		}
		return 0
	}
	head("healthy", "Whether everything is as it should be.")
	metric("healthy", number(st.Healthy))
	head("problems", "Things that are not as they should be.")
	metric("problems", len(st.Problems))
	head("drift", "Differences between the configuration in force and the switch.")
	metric("drift", len(st.Drift))
	head("behind", "Whether the switch has not taken the latest configuration.")
	metric("behind", number(st.Behind))
	head("pending", "Whether a change awaits its confirmation.")
	metric("pending", number(st.Pending != ""))
	head("port_up", "Whether the switch has brought a port up.")
	for _, br := range st.Bridges {
		for _, p := range br.Ports {
			metric("port_up", number(p.Error == "" && p.OFPort > 0), "bridge", br.Name, "port", p.Name)
		}
	}
	head("flows_missing", "Flows that should be there and are not.")
	for _, br := range st.Bridges {
		if br.Flows != nil {
			metric("flows_missing", br.Flows.Missing, "bridge", br.Name)
		}
	}
	head("flows_foreign", "Flows that others have put on a bridge whose flows are ours.")
	for _, br := range st.Bridges {
		if br.Flows != nil {
			metric("flows_foreign", br.Flows.Foreign, "bridge", br.Name)
		}
	}
	head("offload_on", "Offloads that should be off and are not.")
	for _, o := range st.Offload {
		metric("offload_on", len(o.On), "nic", o.NIC, "end", end(o))
	}
	head("offload_fixed", "Offloads that should be off and that the driver does not let go of.")
	for _, o := range st.Offload {
		metric("offload_fixed", len(o.Fixed), "nic", o.NIC, "end", end(o))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func end(o Offload) string {
	if o.Peer {
		return "other"
	}
	return "near"
}
