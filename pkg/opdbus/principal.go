package opdbus

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
)

// Entrances.
const (
	EntranceDBus = "dbus"
	EntranceCLI  = "cli"
	EntranceMCP  = "mcp"
	EntranceWeb  = "web"
)

// A Principal is who asks, and through which entrance.
type Principal struct {
	Entrance string   `json:"entrance"`
	UID      uint32   `json:"uid"`
	User     string   `json:"user,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	PID      uint32   `json:"pid,omitempty"`
	Unit     string   `json:"unit,omitempty"`
	Client   string   `json:"client,omitempty"` // token of MCP, login of the web
	Scopes   []string `json:"scopes,omitempty"` // of the token
	Agent    *Agent   `json:"agent,omitempty"`  // what MCP says of it
	Key      string   `json:"key,omitempty"`    // security key that was touched for this

	// Subject is the unique name of the principal's own connection to the
	// system bus, which polkit can ask about; "" if it has none.
	Subject string `json:"-"`
	// Interactive says that polkit may ask the person.
	Interactive bool `json:"-"`
}

// Actor returns what events call the principal.
func (p Principal) Actor() string {
	if p.Client != "" {
		return p.Entrance + ":" + p.Client
	}
	return "uid:" + strconv.FormatUint(uint64(p.UID), 10)
}

// identities are what a rule's clients are compared with.
func (p Principal) identities() []string {
	list := []string{p.Entrance, "uid:" + strconv.FormatUint(uint64(p.UID), 10)}
	if p.Client != "" {
		list = append(list, p.Entrance+":"+p.Client)
	}
	if p.User != "" {
		list = append(list, "user:"+p.User)
	}
	for _, g := range p.Groups {
		list = append(list, "group:"+g)
	}
	if p.Unit != "" {
		list = append(list, "unit:"+p.Unit)
	}
	return list
}

// key tells principals apart for rate limits and approvals.
func (p Principal) key() string { return p.Entrance + "/" + p.Actor() }

// named fills in the names of user and groups.
func (p Principal) named() Principal {
	u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10))
	if err != nil {
		return p
	}
	p.User = u.Username
	ids, err := u.GroupIds()
	if err != nil {
		return p
	}
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			p.Groups = append(p.Groups, g.Name)
		}
	}
	return p
}

// Self returns the principal of this process at the command line; subject is
// its unique name on the system bus.
func Self(subject string, interactive bool) Principal {
	return Principal{Entrance: EntranceCLI, UID: uint32(os.Getuid()), PID: uint32(os.Getpid()), Unit: chain.UnitOf(os.Getpid()),
		Subject: subject, Interactive: interactive}.named()
}

// Caller returns the principal behind a unique name, as the bus knows it.
func Caller(ctx context.Context, c *bus.Conn, sender string, interactive bool) (Principal, error) {
	cr, err := c.Credentials(ctx, sender)
	if err != nil {
		return Principal{}, fmt.Errorf("caller %s: %w", sender, err)
	}
	if !cr.HasUID {
		return Principal{}, fmt.Errorf("caller %s: the bus does not know its user", sender)
	}
	p := Principal{Entrance: EntranceDBus, UID: cr.UID, PID: cr.PID, Subject: sender, Interactive: interactive}
	if cr.PID != 0 {
		p.Unit = chain.UnitOf(int(cr.PID))
	}
	return p.named(), nil
}
