//go:build linux && cgo

package subvol

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Property is what new files in a directory inherit from it, however the file
// system was mounted.
type Property struct {
	Compression string // lzo, zlib or zstd; "" if it has none
	NoCopy      bool   // written in place: not copied, compressed, nor checked
}

const noCopy = 0x00800000 // FS_NOCOW_FL of <linux/fs.h>

// Property returns what is said of the directory dir, which is on btrfs.
func (System) Property(dir string) (Property, error) {
	f, err := openDir(dir)
	if err != nil {
		return Property{}, err
	}
	defer f.Close()
	var p Property
	value := make([]byte, 64)
	n, err := unix.Fgetxattr(int(f.Fd()), "btrfs.compression", value)
	switch {
	case err == nil:
		p.Compression, _, _ = strings.Cut(string(value[:n]), ":")
	case !errors.Is(err, unix.ENODATA):
		return Property{}, &os.PathError{Op: "btrfs.compression of", Path: dir, Err: err}
	}
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return Property{}, fmt.Errorf("attributes of %s: %w", dir, err)
	}
	p.NoCopy = flags&noCopy != 0
	return p, nil
}
