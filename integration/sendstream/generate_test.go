//go:build linux

package sendstream_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A generator changes the tree below root at random, each choice drawn from a
// seeded source. Operations that the state of the tree forbids are passed over.
type generator struct {
	t     testing.TB
	r     *rand.Rand
	root  string
	other string // a directory of another subvolume with files to clone from
	log   []string
}

func newGenerator(t testing.TB, seed uint64, root, other string) *generator {
	return &generator{t: t, r: rand.New(rand.NewPCG(seed, 0x67656e)), root: root, other: other}
}

var oddNames = []string{
	"new\nline", `back\slash`, "\xff\xfe", "tab\there", "a b", "-dash", ".hidden", "ü", "$(x)", "*", "o257-8-0", "o260-10-0",
	strings.Repeat("long", 63), "\x01\x7f\x1b", `quote"'`,
}

func (g *generator) name() string {
	if g.r.IntN(5) == 0 {
		return oddNames[g.r.IntN(len(oddNames))]
	}
	return string(rune('a' + g.r.IntN(12)))
}

// pick returns a random path, relative to root, of a file for which want is
// true, and false if there is none.
func (g *generator) pick(want func(fs.FileInfo) bool) (string, bool) {
	var all []string
	err := filepath.Walk(g.root, func(path string, info fs.FileInfo, err error) error {
		if err == nil && path != g.root && want(info) {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	if len(all) == 0 {
		return "", false
	}
	return all[g.r.IntN(len(all))], true
}

func isRegular(i fs.FileInfo) bool { return i.Mode().IsRegular() }
func isDir(i fs.FileInfo) bool     { return i.IsDir() }
func isAny(fs.FileInfo) bool       { return true }
func notDir(i fs.FileInfo) bool    { return !i.IsDir() }

// dir returns a random directory, the root as often as any other.
func (g *generator) dir() string {
	d, ok := g.pick(isDir)
	if !ok || g.r.IntN(3) == 0 {
		return g.root
	}
	return d
}

func (g *generator) fresh() (string, bool) {
	path := filepath.Join(g.dir(), g.name())
	_, err := os.Lstat(path)
	return path, err != nil
}

// data returns n bytes: zeros, text that compresses, or noise.
func (g *generator) data(n int) []byte {
	b := make([]byte, n)
	switch g.r.IntN(4) {
	case 0:
		for i := range b {
			b[i] = byte(g.r.Uint32())
		}
	case 1: // zeros
	default:
		word := fmt.Sprintf("line %d of the log\n", g.r.IntN(1000))
		for i := 0; i < n; i += len(word) {
			copy(b[i:], word)
			if g.r.IntN(8) == 0 {
				word = fmt.Sprintf("%x %s", g.r.Uint64(), word[:10])
			}
		}
	}
	return b
}

// size favours what lies near the boundaries of blocks and extents.
func (g *generator) size() int {
	switch g.r.IntN(6) {
	case 0:
		return g.r.IntN(200)
	case 1:
		return 4096*g.r.IntN(40) + g.r.IntN(3)
	case 2:
		return 131072 + g.r.IntN(5) - 2
	case 3:
		return g.r.IntN(400000)
	}
	return g.r.IntN(20000)
}

func (g *generator) withFile(path string, do func(f *os.File, size int64) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return do(f, info.Size())
}

// A operation is drawn with its weight.
type operation struct {
	weight int
	name   string
	do     func(g *generator) error
}

var errPass = fmt.Errorf("nothing to do this to")

var operations = []operation{
	{20, "append", func(g *generator) error { return g.change(0, false) }},
	{10, "append and fsync", func(g *generator) error { return g.change(0, true) }},
	{8, "overwrite", func(g *generator) error { return g.change(1, g.r.IntN(3) == 0) }},
	{6, "truncate", func(g *generator) error {
		path, ok := g.pick(isRegular)
		if !ok {
			return errPass
		}
		return g.withFile(path, func(f *os.File, size int64) error {
			return f.Truncate(g.r.Int64N(size + 50000))
		})
	}},
	{12, "create", func(g *generator) error {
		path, ok := g.fresh()
		if !ok {
			return errPass
		}
		return writeFile(path, g.data(g.size()), fs.FileMode(g.r.IntN(0o1000)))
	}},
	{6, "unlink", func(g *generator) error {
		path, ok := g.pick(notDir)
		if !ok {
			return errPass
		}
		return os.Remove(path)
	}},
	{3, "unlink and create", func(g *generator) error {
		path, ok := g.pick(notDir)
		if !ok {
			return errPass
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return writeFile(path, g.data(g.size()), 0o600)
	}},
	{8, "rename", func(g *generator) error {
		from, ok := g.pick(isAny)
		if !ok {
			return errPass
		}
		return unix.Rename(from, filepath.Join(g.dir(), g.name()))
	}},
	{4, "rename over", func(g *generator) error {
		from, ok := g.pick(notDir)
		to, _ := g.pick(notDir)
		if !ok {
			return errPass
		}
		return unix.Rename(from, to)
	}},
	{4, "exchange", func(g *generator) error {
		a, ok := g.pick(isAny)
		b, _ := g.pick(isAny)
		if !ok {
			return errPass
		}
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}},
	{4, "move directory", func(g *generator) error {
		from, ok := g.pick(isDir)
		if !ok {
			return errPass
		}
		return unix.Rename(from, filepath.Join(g.dir(), g.name()))
	}},
	{3, "parent under child", func(g *generator) error { // a/b becomes b/a
		child, ok := g.pick(isDir)
		parent := filepath.Dir(child)
		if !ok || parent == g.root {
			return errPass
		}
		up := filepath.Join(filepath.Dir(parent), filepath.Base(child)+"^")
		if err := unix.Rename(child, up); err != nil {
			return err
		}
		return unix.Rename(parent, filepath.Join(up, filepath.Base(parent)))
	}},
	{6, "link", func(g *generator) error {
		from, ok := g.pick(notDir)
		to, free := g.fresh()
		if !ok || !free {
			return errPass
		}
		return os.Link(from, to)
	}},
	{3, "symlink", func(g *generator) error {
		path, ok := g.fresh()
		if !ok {
			return errPass
		}
		dest := []string{"a", "../../../etc/passwd", "/nowhere", "\xff new\nline", strings.Repeat("x/", 300)}
		return os.Symlink(dest[g.r.IntN(len(dest))], path)
	}},
	{7, "mkdir", func(g *generator) error {
		path, ok := g.fresh()
		if !ok {
			return errPass
		}
		return os.Mkdir(path, 0o755)
	}},
	{3, "rmdir", func(g *generator) error {
		path, ok := g.pick(isDir)
		if !ok {
			return errPass
		}
		return unix.Rmdir(path)
	}},
	{1, "rm -r", func(g *generator) error {
		path, ok := g.pick(isDir)
		if !ok {
			return errPass
		}
		return os.RemoveAll(path)
	}},
	{3, "mknod", func(g *generator) error {
		path, ok := g.fresh()
		if !ok {
			return errPass
		}
		mode := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}[g.r.IntN(4)]
		// Majors that no driver has: the tree holds nodes that open nothing.
		dev := unix.Mkdev(uint32(2048+g.r.IntN(2048)), uint32(g.r.IntN(1<<20)))
		return unix.Mknod(path, mode|uint32(g.r.IntN(0o1000)), int(dev))
	}},
	{6, "reflink", func(g *generator) error { return g.reflink() }},
	{6, "holes", func(g *generator) error {
		path, ok := g.pick(isRegular)
		if !ok {
			return errPass
		}
		return g.withFile(path, func(f *os.File, size int64) error {
			modes := []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE,
				unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE, 0}
			offset := g.r.Int64N(size + 20000)
			if g.r.IntN(2) == 0 {
				offset &^= 4095
			}
			return unix.Fallocate(int(f.Fd()), modes[g.r.IntN(len(modes))], offset, 1+g.r.Int64N(100000))
		})
	}},
	{3, "sparse", func(g *generator) error {
		path, ok := g.pick(isRegular)
		if !ok {
			return errPass
		}
		return g.withFile(path, func(f *os.File, size int64) error {
			_, err := f.WriteAt(g.data(1+g.r.IntN(9000)), size+g.r.Int64N(3<<20))
			return err
		})
	}},
	{6, "xattr", func(g *generator) error {
		path, ok := g.pick(isAny)
		if !ok {
			return errPass
		}
		names := []string{"user.a", "user.b", "user.\xff\nodd", "trusted.t"}
		name := names[g.r.IntN(len(names))]
		sizes := []int{0, 1, 40, 3000}
		return unix.Lsetxattr(path, name, g.data(sizes[g.r.IntN(len(sizes))]), 0)
	}},
	{3, "remove xattr", func(g *generator) error {
		// A few tries to find a file that has any.
		for range 20 {
			path, ok := g.pick(isAny)
			if !ok {
				break
			}
			names := make([]byte, 1<<10)
			if n, err := unix.Llistxattr(path, names); err == nil && n > 0 {
				list := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
				return unix.Lremovexattr(path, list[g.r.IntN(len(list))])
			}
		}
		return errPass
	}},
	{2, "acl", func(g *generator) error {
		path, ok := g.pick(func(i fs.FileInfo) bool { return i.IsDir() || i.Mode().IsRegular() })
		if !ok {
			return errPass
		}
		name := "system.posix_acl_access"
		if g.r.IntN(2) == 0 {
			name = "system.posix_acl_default"
		}
		return unix.Lsetxattr(path, name, acl(uint32(g.r.IntN(3000)), uint16(g.r.IntN(8))), 0)
	}},
	{1, "capability", func(g *generator) error {
		path, ok := g.pick(isRegular)
		if !ok {
			return errPass
		}
		// VFS_CAP_REVISION_2 with one permitted bit (linux/capability.h).
		value := binary.LittleEndian.AppendUint32(nil, 0x02000001)
		value = append(value, make([]byte, 16)...)
		binary.LittleEndian.PutUint32(value[4:], 1<<g.r.IntN(20))
		return unix.Lsetxattr(path, "security.capability", value, 0)
	}},
	{4, "chmod", func(g *generator) error {
		path, ok := g.pick(func(i fs.FileInfo) bool { return i.Mode()&fs.ModeSymlink == 0 })
		if !ok {
			return errPass
		}
		return unix.Chmod(path, uint32(g.r.IntN(0o10000)))
	}},
	{3, "chown", func(g *generator) error {
		path, ok := g.pick(isAny)
		if !ok {
			return errPass
		}
		return os.Lchown(path, g.r.IntN(3000), g.r.IntN(3000))
	}},
	{3, "utimes", func(g *generator) error {
		path, ok := g.pick(isAny)
		if !ok {
			return errPass
		}
		when := []unix.Timespec{{Sec: g.r.Int64N(1 << 33), Nsec: g.r.Int64N(1e9)}, {Sec: -g.r.Int64N(1 << 31), Nsec: 1}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW)
	}},
	{2, "chattr", func(g *generator) error {
		path, ok := g.pick(func(i fs.FileInfo) bool { return i.IsDir() || i.Mode().IsRegular() })
		if !ok {
			return errPass
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		flags := []int{0x80, 0x4, 0x400, 0x40, 0} // FS_{NOATIME,COMPR,NOCOMP,NODUMP}_FL of linux/fs.h
		return unix.IoctlSetPointerInt(int(f.Fd()), fsIocSetFlags, flags[g.r.IntN(len(flags))])
	}},
	{5, "rotate", func(g *generator) error { return g.rotate() }},
	{2, "copytruncate", func(g *generator) error {
		path, ok := g.pick(isRegular)
		if !ok {
			return errPass
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := writeFile(path+".1", b, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, 0)
	}},
	{2, "swap through a third name", func(g *generator) error {
		a, ok := g.pick(isAny)
		b, _ := g.pick(isAny)
		if !ok || a == b || strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/") {
			return errPass
		}
		tmp := filepath.Join(g.root, "swap")
		if err := unix.Rename(a, tmp); err != nil {
			return err
		}
		if err := unix.Rename(b, a); err != nil {
			return err
		}
		return unix.Rename(tmp, b)
	}},
}

// acl is the stored form of an access control list with one named user.
func acl(uid uint32, perm uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, perm, uid}, {4, 4, ^uint32(0)}, {16, 7, ^uint32(0)}, {32, 4, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// change writes at the end of a file, or anywhere in it.
func (g *generator) change(anywhere int64, sync bool) error {
	path, ok := g.pick(isRegular)
	if !ok {
		return errPass
	}
	return g.withFile(path, func(f *os.File, size int64) error {
		offset := size
		if anywhere != 0 {
			offset = g.r.Int64N(size + 1)
		}
		if _, err := f.WriteAt(g.data(g.size()), offset); err != nil || !sync {
			return err
		}
		return f.Sync()
	})
}

// reflink clones a file, or a range of one, from this subvolume or the other.
func (g *generator) reflink() error {
	from, ok := g.pick(isRegular)
	if g.other != "" && g.r.IntN(3) == 0 {
		from, ok = filepath.Join(g.other, fmt.Sprint(g.r.IntN(otherFiles))), true
	}
	if !ok {
		return errPass
	}
	to, free := g.fresh()
	if !free || g.r.IntN(2) == 0 {
		if to, ok = g.pick(isRegular); !ok {
			return errPass
		}
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer dst.Close()
	if g.r.IntN(2) == 0 {
		return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	}
	offset := g.r.Int64N(info.Size()+1) &^ 4095
	length := g.r.Int64N(info.Size()-offset+1) &^ 4095
	if g.r.IntN(2) == 0 {
		length = info.Size() - offset // to an end that may be no boundary
	}
	if length == 0 {
		return errPass
	}
	return unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(offset), Src_length: uint64(length),
		Dest_offset: uint64(g.r.Int64N(40)) * 4096,
	})
}

// writeFile creates or overwrites a file. It follows no link that an earlier
// operation made, and does not wait for a reader of a pipe.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// rotate moves log.1 to log.2, log to log.1, and begins a new log, as logrotate
// does.
func (g *generator) rotate() error {
	log := filepath.Join(g.dir(), "log")
	for i := 3; i > 0; i-- {
		from := fmt.Sprintf("%s.%d", log, i-1)
		if i == 1 {
			from = log
		}
		if err := unix.Rename(from, fmt.Sprintf("%s.%d", log, i)); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return writeFile(log, g.data(g.size()), 0o640)
}

// run does n operations.
func (g *generator) run(n int) {
	total := 0
	for _, op := range operations {
		total += op.weight
	}
	for range n {
		draw := g.r.IntN(total)
		for _, op := range operations {
			if draw -= op.weight; draw < 0 {
				outcome := "done"
				if err := op.do(g); err != nil {
					outcome = err.Error()
				}
				g.log = append(g.log, op.name+": "+outcome)
				break
			}
		}
	}
}

const fsIocSetFlags = 0x40086602 // FS_IOC_SETFLAGS

const otherFiles = 4

// makeOther fills the subvolume that others clone from.
func (g *generator) makeOther(dir string) error {
	for i := range otherFiles {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), g.data(4096*(1+g.r.IntN(60))), 0o644); err != nil {
			return err
		}
	}
	return nil
}
