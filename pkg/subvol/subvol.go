package subvol

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrUnsupported says that this build, kernel or file system can't do it.
var ErrUnsupported = errors.New("btrfs is not supported here")

// ErrNotSubvolume says that a path is no btrfs subvolume.
var ErrNotSubvolume = errors.New("not a btrfs subvolume")

// System is the btrfs of this host's kernel. The zero value is ready.
type System struct{}

// A UUID is a subvolume's. The zero UUID means none.
type UUID [16]byte

// String returns u in lower case as 8-4-4-4-12.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero says whether u means none.
func (u UUID) IsZero() bool { return u == UUID{} }

// MarshalText returns String, and nothing for the zero UUID.
func (u UUID) MarshalText() ([]byte, error) {
	if u.IsZero() {
		return nil, nil
	}
	return []byte(u.String()), nil
}

// UnmarshalText is ParseUUID; an empty text is the zero UUID.
func (u *UUID) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*u = UUID{}
		return nil
	}
	*u, err = ParseUUID(string(text))
	return err
}

// ParseUUID reads a UUID as String writes it, in either case.
func ParseUUID(s string) (u UUID, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("%q is no UUID", s)
	}
	if _, err := hex.Decode(u[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return UUID{}, fmt.Errorf("%q is no UUID", s)
	}
	return u, nil
}

// Info is what the kernel knows of a subvolume (struct
// btrfs_ioctl_get_subvol_info_args).
type Info struct {
	ID         uint64 // never used again; of two snapshots the later has the greater
	UUID       UUID
	ParentUUID UUID // of what this is a snapshot of
	Received   UUID // of what this was received from
	Generation uint64
	CTransID   uint64 // transaction of the last change of content; equal in a snapshot and an unchanged source
	OTransID   uint64 // transaction that created it
	CTime      time.Time
	OTime      time.Time
	ReadOnly   bool
}

// Compression is what a subvolume's data was made to take, in bytes. Blocks that
// a short write leaves half empty count in full, so that a log of many small
// appends may take more than it is long.
type Compression struct {
	Data uint64 // in its extents, before compression
	Disk uint64 // that they take
}

// Space is how full a file system is, in bytes.
type Space struct {
	Size      uint64 // as statfs(2) gives it
	Available uint64 // as statfs(2) gives it: what can still be written, mirrors taken into account

	// As SPACE_INFO gives it: what is allocated to chunks of a kind, and used
	// in them. Zero without root.
	DataTotal, DataUsed         uint64
	MetadataTotal, MetadataUsed uint64
}

// A Stamp stands for the metadata of all files of a subvolume: names, inode
// numbers, sizes, modes and times. It moves with a write that has not reached
// the disk yet, which Info does not. A snapshot has the stamp of its source at
// that time.
type Stamp struct {
	Sum     [32]byte
	Entries int // files and directories seen
}

// A SendJob is one stream to send.
type SendJob struct {
	Path       string   // the read-only subvolume to send
	UUID       UUID     // which must be its UUID
	ParentPath string   // the read-only subvolume that the receiver has; "" for a full stream
	ParentUUID UUID     // which must be its UUID
	Version    int      // of the stream; 0 for the best that kernel and this package know
	Out        *os.File // a pipe, socket or file in blocking mode
}

// A WrongSubvolumeError says that a path is another subvolume than expected.
type WrongSubvolumeError struct {
	Path      string
	Want, Got UUID
}

func (e *WrongSubvolumeError) Error() string {
	return fmt.Sprintf("%s is subvolume %s, not %s", e.Path, e.Got, e.Want)
}

// pathError is an error of an operation on path, in the form of package os.
func pathError(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// below says whether path a is b or below it.
func below(a, b string) (bool, error) {
	a, err := filepath.Abs(a)
	if err != nil {
		return false, err
	}
	if b, err = filepath.Abs(b); err != nil {
		return false, err
	}
	return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/"), nil
}
