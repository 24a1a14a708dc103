package access

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
	"golang.org/x/sys/unix"
)

// A Door is the Unix socket at which logins are asked for. The kernel says who
// asks. A request is a line of JSON, {"role":"viewer"}; the answer is one too:
// {"url":...,"expires":...} or, with "token":true in the request, {"token":...}
// for programs, or {"error":...}.
type Door struct {
	Sessions *Sessions
	Base     func() string // the URL that people use, without a slash at its end
	// Groups whose members may log in, and as what; uid 0 may as everything.
	Groups map[string]Role
	Logger *slog.Logger
}

// DefaultGroups are the groups of a Door.
func DefaultGroups() map[string]Role {
	return map[string]Role{names.ReadersGroup: Viewer, names.OperatorsGroup: Operator, names.ApproversGroup: Approver}
}

// A Request asks for a login.
type Request struct {
	Role  Role `json:"role,omitzero"` // the highest that the user may have if it is left out
	Token bool `json:"token,omitempty"`
}

// An Answer is a Door's.
type Answer struct {
	URL     string    `json:"url,omitempty"`
	Token   string    `json:"token,omitempty"`
	User    string    `json:"user,omitempty"`
	Role    Role      `json:"role,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Error   string    `json:"error,omitempty"`
	Hint    string    `json:"hint,omitempty"`
}

// Serve answers on l until it is closed.
func (d *Door) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go d.answer(conn)
	}
}

func (d *Door) answer(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	a := d.ask(conn)
	if a.Error != "" {
		d.Logger.Warn("login refused", "user", a.User, "why", a.Error)
	} else {
		d.Logger.Info("login link given", "user", a.User, "role", a.Role.String())
	}
	json.NewEncoder(conn).Encode(a)
}

func (d *Door) ask(conn net.Conn) Answer {
	refuse := func(who, text, hint string) Answer { return Answer{User: who, Error: text, Hint: hint} }
	uid, gid, err := peer(conn)
	if err != nil {
		return refuse("", "the kernel does not say who asks: "+err.Error(), "")
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadBytes('\n')
	if err != nil {
		return refuse("", "the request is no line", "")
	}
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return refuse("", "the request can't be read: "+err.Error(), "")
	}
	name, highest := d.highest(uid, gid)
	if highest == Nobody {
		return refuse(name, fmt.Sprintf("user %s may not log in", name), "root may, and members of the groups "+d.groupList())
	}
	if r.Role == Nobody {
		r.Role = highest
	}
	if r.Role > highest {
		return refuse(name, fmt.Sprintf("user %s may be %s at most", name, highest), "members of gb-approvers may approve")
	}
	login := Login{UID: uid, User: name, Role: r.Role}
	if r.Token {
		token, login, err := d.Sessions.Begin(login)
		if err != nil {
			return refuse(name, err.Error(), "")
		}
		return Answer{Token: token, User: name, Role: r.Role, Expires: login.Expires}
	}
	token, expires, err := d.Sessions.Ticket(login)
	if err != nil {
		return refuse(name, err.Error(), "")
	}
	return Answer{URL: d.Base() + "/login?ticket=" + token, User: name, Role: r.Role, Expires: expires.UTC()}
}

func (d *Door) groupList() string {
	text := ""
	for r := Viewer; r <= Approver; r++ {
		for g, role := range d.Groups {
			if role == r {
				if text != "" {
					text += ", "
				}
				text += g
			}
		}
	}
	return text
}

// highest returns a user's name and the highest role that it may have.
func (d *Door) highest(uid, gid uint32) (string, Role) {
	name := strconv.FormatUint(uint64(uid), 10)
	ids := []string{strconv.FormatUint(uint64(gid), 10)}
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
		if more, err := u.GroupIds(); err == nil {
			ids = append(ids, more...)
		}
	}
	if uid == 0 {
		return name, Approver
	}
	role := Nobody
	for g, r := range d.Groups {
		if have, err := user.LookupGroup(g); err == nil && slices.Contains(ids, have.Gid) {
			role = max(role, r)
		}
	}
	return name, role
}

// peer returns who has connected, as the kernel says.
func peer(conn net.Conn) (uid, gid uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, 0, errors.New("not a Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, 0, cerr
	}
	if err != nil {
		return 0, 0, err
	}
	return cred.Uid, cred.Gid, nil
}

// Ask asks a Door at a Unix socket.
func Ask(ctx context.Context, socket string, r Request) (*Answer, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return nil, err
	}
	var a Answer
	if err := json.NewDecoder(io.LimitReader(conn, 1<<16)).Decode(&a); err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	return &a, nil
}
