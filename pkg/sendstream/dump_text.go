package sendstream

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"
)

// A Progs is a release of btrfs-progs whose text a dump imitates.
type Progs string

const (
	// ProgsNewest is 6.19. Since 6.10 all names and values are escaped.
	ProgsNewest Progs = ""
	// Progs62 is 6.2, the one of Debian 12: it prints the names and values of
	// attributes and the source of a clone as they are, a value only up to
	// its first NUL, and commas in encoded_write.
	Progs62 Progs = "6.2"
)

// TextOptions says how WriteText prints.
type TextOptions struct {
	Progs    Progs
	Location *time.Location // for time stamps; nil means the local one
	// All goes on after the first END. Without it WriteText stops there, as
	// btrfs receive --dump does, be there more streams or not.
	All bool
}

// WriteText writes, to the byte, what btrfs receive --dump prints for the
// streams that r gives: one line a command, none for headers and END.
//
// On an error, what came before it has been written, as there. It refuses
// more streams than btrfs does: see [Reader] and [CheckPath].
func WriteText(w io.Writer, r *Reader, opts TextOptions) error {
	if opts.Progs != ProgsNewest && opts.Progs != Progs62 {
		return fmt.Errorf("btrfs-progs %s: no such compatibility", opts.Progs)
	}
	if opts.Location == nil {
		opts.Location = time.Local
	}
	t := textDumper{opts: opts, subvol: []byte(".")}
	for {
		c, err := r.Next()
		if err == nil {
			if terr := t.command(c); terr != nil {
				err = &Error{Offset: r.CommandOffset(), Command: r.Number(), Kind: c.Kind(), Err: terr}
			}
		}
		if err == nil && c.Kind() == KindEnd && !opts.All {
			err = io.EOF
		}
		if err != nil || len(t.out) >= 64<<10 {
			if _, werr := w.Write(t.out); werr != nil {
				return fmt.Errorf("write dump: %w", werr)
			}
			t.out = t.out[:0]
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

type textDumper struct {
	opts   TextOptions
	subvol []byte // path of the current subvolume
	out    []byte
}

// pathMax is PATH_MAX: longer paths are an error in btrfs-progs.
const pathMax = 4096

// command appends the line of a command to t.out, or nothing on an error.
func (t *textDumper) command(c Command) error {
	switch c := c.(type) {
	case *Header, *End, *Unknown:
		return nil
	case *Subvol:
		return t.begin(c.Kind(), c.Path, func() {
			t.text("uuid=").uuid(c.UUID).text(" transid=").num(c.Ctransid)
		})
	case *Snapshot:
		return t.begin(c.Kind(), c.Path, func() {
			t.text("uuid=").uuid(c.UUID).text(" transid=").num(c.Ctransid)
			t.text(" parent_uuid=").uuid(c.ParentUUID).text(" parent_transid=").num(c.ParentCtransid)
		})
	}
	for _, p := range [][]byte{c.Target(), secondPath(c)} {
		if len(t.subvol)+len(p)+2 >= pathMax {
			return fmt.Errorf("%w: longer than %d bytes with the subvolume's", ErrPath, pathMax)
		}
	}
	if u, ok := c.(*Utimes); ok {
		for _, ts := range []Timespec{u.Atime, u.Mtime, u.Ctime} {
			if err := t.checkYear(ts); err != nil {
				return err
			}
		}
	}

	width := t.head(c.Kind(), t.subvol, c.Target())
	switch c.(type) {
	case *Mkfile, *Mkdir, *Mkfifo, *Mksock, *Unlink, *Rmdir:
		t.text("\n")
		return nil
	}
	t.pad(width)
	switch c := c.(type) {
	case *Mknod:
		t.text("mode=").octal(c.Mode).text(" dev=0x").hex(c.Rdev)
	case *Symlink:
		t.text("dest=").escaped(c.Dest)
	case *Rename:
		t.text("dest=").escaped(t.subvol).text("/").escaped(c.To)
	case *Link:
		t.text("dest=").escaped(c.Existing)
	case *SetXattr:
		if t.opts.Progs == Progs62 {
			value, _, _ := bytes.Cut(c.Value, []byte{0})
			t.text("name=").raw(c.Name).text(" data=").raw(value)
		} else {
			t.text("name=").escaped(c.Name).text(" ").escaped(c.Value)
		}
		t.text(" len=").num(uint64(len(c.Value)))
	case *RemoveXattr:
		if t.opts.Progs == Progs62 {
			t.text("name=").raw(c.Name)
		} else {
			t.text("name=").escaped(c.Name)
		}
	case *Write:
		t.text("offset=").num(c.Offset).text(" len=").num(uint64(len(c.Data)))
	case *Clone:
		t.text("offset=").num(c.Offset).text(" len=").num(c.Len).text(" from=")
		if t.opts.Progs == Progs62 {
			t.raw(t.subvol).text("/").raw(c.SourcePath)
		} else {
			t.escaped(t.subvol).text("/").escaped(c.SourcePath)
		}
		t.text(" clone_offset=").num(c.SourceOffset)
	case *Truncate:
		t.text("size=").num(c.Size)
	case *Chmod:
		t.text("mode=").octal(c.Mode)
	case *Chown:
		t.text("gid=").num(c.GID).text(" uid=").num(c.UID)
	case *Utimes:
		t.text("atime=").time(c.Atime).text(" mtime=").time(c.Mtime).text(" ctime=").time(c.Ctime)
	case *UpdateExtent:
		t.text("offset=").num(c.Offset).text(" len=").num(c.Len)
	case *Fallocate:
		t.text("mode=").signed(int64(int32(c.Mode))).text(" offset=").num(c.Offset).text(" len=").num(c.Len)
	case *Fileattr:
		t.text("fileattr=0x").num(c.Flags) // decimal digits after 0x, as printed there
	case *EncodedWrite:
		sep := " "
		if t.opts.Progs == Progs62 {
			sep = ", "
		}
		t.text("offset=").num(c.Offset).text(" len=").num(uint64(len(c.Data)))
		t.text(sep + "unencoded_file_len=").num(c.UnencodedFileLen)
		t.text(sep + "unencoded_len=").num(c.UnencodedLen)
		t.text(sep + "unencoded_offset=").num(c.UnencodedOffset)
		t.text(sep + "compression=").num(uint64(c.Compression))
		t.text(sep + "encryption=").num(uint64(c.Encryption))
	case *EnableVerity:
		t.text("algorithm=").num(uint64(c.Algorithm)).text(" block_size=").num(uint64(c.BlockSize))
		t.text(" salt_len=").num(uint64(len(c.Salt))).text(" sig_len=").num(uint64(len(c.Signature)))
	}
	t.text("\n")
	return nil
}

// secondPath returns the path besides Target that is printed with the
// subvolume's.
func secondPath(c Command) []byte {
	switch c := c.(type) {
	case *Rename:
		return c.To
	case *Clone:
		return c.SourcePath
	}
	return nil
}

func (t *textDumper) begin(kind Kind, path []byte, rest func()) error {
	if len("./")+len(path)+1 >= pathMax {
		return fmt.Errorf("%w: longer than %d bytes", ErrPath, pathMax)
	}
	t.subvol = append(append(t.subvol[:0], "./"...), path...)
	t.pad(t.headOne(kind, t.subvol))
	rest()
	t.text("\n")
	return nil
}

// head prints the command's name in 16 columns and a path, and returns how
// many columns the path took.
func (t *textDumper) head(kind Kind, subvol, path []byte) int {
	width := t.headOne(kind, subvol)
	before := len(t.out)
	t.text("/").escaped(path)
	return width + len(t.out) - before
}

func (t *textDumper) headOne(kind Kind, path []byte) int {
	name := kindNames[kind]
	t.text(name).text("                "[min(len(name), 16):])
	before := len(t.out)
	t.escaped(path)
	return len(t.out) - before
}

// pad aligns what follows a path to 32 columns, with one space at least.
func (t *textDumper) pad(width int) {
	for {
		t.out = append(t.out, ' ')
		if width++; width >= 32 {
			return
		}
	}
}

func (t *textDumper) text(s string) *textDumper {
	t.out = append(t.out, s...)
	return t
}

func (t *textDumper) raw(b []byte) *textDumper {
	t.out = append(t.out, b...)
	return t
}

func (t *textDumper) num(v uint64) *textDumper {
	t.out = strconv.AppendUint(t.out, v, 10)
	return t
}

func (t *textDumper) signed(v int64) *textDumper {
	t.out = strconv.AppendInt(t.out, v, 10)
	return t
}

func (t *textDumper) octal(v uint64) *textDumper {
	t.out = strconv.AppendUint(t.out, v, 8)
	return t
}

func (t *textDumper) hex(v uint64) *textDumper {
	t.out = strconv.AppendUint(t.out, v, 16)
	return t
}

func (t *textDumper) uuid(u UUID) *textDumper {
	t.out = u.appendTo(t.out)
	return t
}

// escaped prints bytes with C's escapes for what could break a line: those
// with a letter, a space and a backslash after a backslash, the other ones
// outside ASCII's printable range as three octal digits.
func (t *textDumper) escaped(b []byte) *textDumper {
	for _, c := range b {
		if letter := escapeLetters[c]; letter != 0 {
			t.out = append(t.out, '\\', letter)
		} else if c < 0x20 || c > 0x7e {
			t.out = append(t.out, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		} else {
			t.out = append(t.out, c)
		}
	}
	return t
}

var escapeLetters = [256]byte{
	'\a': 'a', '\b': 'b', 0x1b: 'e', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', ' ': ' ', '\\': '\\',
}

// time prints what strftime(3) makes of %FT%T%z. A year above 2^31-1 wraps, as
// there.
func (t *textDumper) time(ts Timespec) *textDumper {
	local := time.Unix(ts.Sec, 0).In(t.opts.Location)
	t.signed(int64(int32(local.Year())))
	t.out = local.AppendFormat(t.out, "-01-02T15:04:05-0700")
	return t
}

// checkYear refuses a time that localtime(3) can't express: its year, counted
// from 1900, has 32 bits.
func (t *textDumper) checkYear(ts Timespec) error {
	const most = 68e15 // seconds; package time is exact far beyond
	if ts.Sec < most && ts.Sec > -most {
		year := int64(time.Unix(ts.Sec, 0).In(t.opts.Location).Year()) - 1900
		if year == int64(int32(year)) {
			return nil
		}
	}
	return fmt.Errorf("%w: no local time is %d seconds from 1970", ErrAttribute, ts.Sec)
}
