package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Writers says which uid may write events of which source through the daemon.
// The nil Writers lets root and the daemon's own uid write everything and
// nobody else anything.
type Writers map[uint32][]string

// LoadWriters reads a file of writers:
//
//	{"writers":[{"user":"ovs","sources":["ovs"]},{"uid":1000,"sources":["*"]}]}
//
// "*" stands for every source. The file must belong to root and be writable
// for nobody else, since it decides what the log believes. A file that does
// not exist, and an empty path, is the nil Writers.
func LoadWriters(path string) (Writers, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("writers: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("writers: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Uid != 0 && int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0) {
		return nil, &configError{fmt.Errorf("writers: %s can be changed by others than root", path), "chown root " + path + " and chmod go-w it"}
	}
	var file struct {
		Writers []struct {
			UID     *uint32  `json:"uid"`
			User    string   `json:"user"`
			Sources []string `json:"sources"`
		} `json:"writers"`
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("writers: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, &configError{fmt.Errorf("writers: %s: %w", path, err), ""}
	}
	w := make(Writers)
	for i, e := range file.Writers {
		uid := e.UID
		if (uid == nil) == (e.User == "") {
			return nil, &configError{fmt.Errorf("writers: %s: entry %d wants either uid or user", path, i+1), ""}
		}
		if uid == nil {
			u, err := user.Lookup(e.User)
			if err != nil {
				continue // a user of a part that is not installed
			}
			n, err := strconv.ParseUint(u.Uid, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("writers: %s: user %s has uid %q", path, e.User, u.Uid)
			}
			id := uint32(n)
			uid = &id
		}
		w[*uid] = append(w[*uid], e.Sources...)
	}
	return w, nil
}

// Allowed says whether uid may write events of source.
func (w Writers) Allowed(uid uint32, source string) bool {
	if uid == 0 || int(uid) == os.Getuid() {
		return true
	}
	for _, s := range w[uid] {
		if s == "*" || s == source {
			return true
		}
	}
	return false
}

// any says whether uid may write events of any source.
func (w Writers) any(uid uint32) bool {
	return uid == 0 || int(uid) == os.Getuid() || len(w[uid]) > 0
}
