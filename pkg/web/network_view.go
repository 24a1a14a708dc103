package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// A Switch is Open vSwitch, to look at.
type Switch interface {
	// Status returns what gb-ovs-setup status shows.
	Status(ctx context.Context, who access.Session) (*ovs.Status, error)
	// Flows returns the flows of a bridge, one a string, as ovs-ofctl writes them.
	Flows(ctx context.Context, who access.Session, bridge string) ([]string, error)
}

// A DaemonSwitch has the daemon look.
type DaemonSwitch struct{ Daemon Daemon }

// Status implements Switch.
func (d DaemonSwitch) Status(ctx context.Context, who access.Session) (*ovs.Status, error) {
	results, err := d.Daemon.Call(ctx, who, nil, MethodCall{Interface: "Network", Member: "Status"})
	if err != nil {
		return nil, err
	}
	var text string
	if len(results) != 1 || json.Unmarshal(results[0], &text) != nil {
		return nil, fmt.Errorf("the daemon's answer to Network.Status can't be read")
	}
	st := new(ovs.Status)
	return st, json.Unmarshal([]byte(text), st)
}

const openflowPath = "/org/freedesktop/opdbus/network/openflow"

// Flows implements Switch.
func (d DaemonSwitch) Flows(ctx context.Context, who access.Session, bridge string) ([]string, error) {
	results, err := d.Daemon.Call(ctx, who, nil, MethodCall{Path: openflowPath, Interface: "Network.OpenFlow", Member: "DumpFlows", Signature: "s", Args: []any{bridge}})
	if err != nil {
		return nil, err
	}
	var flows []string
	if len(results) != 1 || json.Unmarshal(results[0], &flows) != nil {
		return nil, fmt.Errorf("the daemon's answer to DumpFlows can't be read")
	}
	return flows, nil
}

// A networkView is the switch.
type networkView struct {
	Status  *ovs.Status `json:"status"`
	Drawing *drawing    `json:"-"`
	Wanted  bool        `json:"managed"`          // there is a configuration in force
	Bridge  string      `json:"bridge,omitempty"` // whose flows are shown
	Flows   []string    `json:"flows,omitempty"`
	FlowErr string      `json:"flows_error,omitempty"`
	More    int         `json:"more_flows,omitempty"`
	NoVNC   string      `json:"novnc,omitempty"`
}

const maxFlows = 1000

func (s *Server) network(r *request) (any, error) {
	if s.Switch == nil {
		return nil, fail(http.StatusServiceUnavailable, "there is no switch here").hint("gb-web asks the daemon opdbus, which gb-web serve --bus finds")
	}
	st, err := s.Switch.Status(r.ctx, r.session)
	if err != nil {
		return nil, err
	}
	v := &networkView{Status: st, NoVNC: s.NoVNC, Wanted: st.Confirmed != "" || st.Pending != "" || len(st.Drift) > 0}
	for _, b := range st.Bridges {
		v.Wanted = v.Wanted || b.Ours
	}
	if v.Bridge, err = r.text("bridge", 100); err != nil {
		return nil, err
	}
	if v.Bridge != "" {
		flows, err := s.Switch.Flows(r.ctx, r.session, v.Bridge)
		if err != nil {
			v.FlowErr = failureOf(err).Text
		}
		for _, f := range flows {
			if len(v.Flows) == maxFlows {
				v.More = len(flows) - maxFlows
				break
			}
			v.Flows = append(v.Flows, line(f, 2000))
		}
	}
	v.Drawing = draw(st)
	return v, nil
}

// A drawing is bridges with their ports.
type drawing struct {
	Width, Height int
	Boxes         []drawnBox
	Lines         []drawnLine
	Label         string
}

type drawnBox struct {
	X, Y, W, H int
	Text, Sub  string
	Look       string // bridge, port, down, error
	Title      string
}

type drawnLine struct{ X1, Y1, X2, Y2 int }

const (
	boxWidth   = 150
	boxHeight  = 36
	boxGap     = 14
	bridgeGap  = 30
	perRow     = 6
	drawnPorts = 60 // of a bridge; the table has all
)

func draw(st *ovs.Status) *drawing {
	d := &drawing{}
	y := 8
	ports := 0
	for _, b := range st.Bridges {
		list := b.Ports
		more := 0
		if len(list) > drawnPorts {
			more, list = len(list)-drawnPorts, list[:drawnPorts]
		}
		rows := max((len(list)+perRow-1)/perRow, 1)
		width := min(max(len(list), 2), perRow)*(boxWidth+boxGap) - boxGap
		sub := strings.Join(b.Addresses, " ")
		if more > 0 {
			sub += fmt.Sprintf(" and %d more ports", more)
		}
		d.Boxes = append(d.Boxes, drawnBox{8, y, width, boxHeight, line(b.Name, 30), line(sub, 60), "bridge", "bridge " + clean(b.Name)})
		for i, p := range list {
			x := 8 + i%perRow*(boxWidth+boxGap)
			py := y + boxHeight + bridgeGap + i/perRow*(boxHeight+boxGap)
			look, sub := "port", p.Link
			if p.Type != "" {
				sub = p.Type + " " + sub
			}
			switch {
			case p.Error != "":
				look, sub = "error", p.Error
			case p.Link != "" && p.Link != "up":
				look = "down"
			}
			d.Boxes = append(d.Boxes, drawnBox{x, py, boxWidth, boxHeight, line(p.Name, 20), line(sub, 24), look, clean(p.Name + ": " + sub)})
			if i < perRow {
				d.Lines = append(d.Lines, drawnLine{x + boxWidth/2, y + boxHeight, x + boxWidth/2, py})
			} else {
				d.Lines = append(d.Lines, drawnLine{x + boxWidth/2, py - boxGap, x + boxWidth/2, py})
			}
			ports++
		}
		d.Width = max(d.Width, width+16)
		y += boxHeight + bridgeGap + rows*(boxHeight+boxGap) + bridgeGap
	}
	if len(st.Bridges) == 0 {
		return nil
	}
	d.Height = y - bridgeGap
	d.Label = fmt.Sprintf("%d bridges with %d ports; the table below has the same", len(st.Bridges), ports)
	return d
}
