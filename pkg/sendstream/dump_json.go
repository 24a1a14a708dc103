package sendstream

import (
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// JSONOptions says what WriteJSON prints.
type JSONOptions struct {
	// Data adds the data of write and encoded_write commands, the latter as
	// it stands in the stream.
	Data bool
}

// WriteJSON writes one JSON object a line for each header and command, of all
// streams that r gives.
//
// Every object has "command", the name as in the text dump, "header" or "end",
// and "offset", the position in the input in bytes; those of commands have "n",
// their number from 1. The other members are named after the attributes, in
// lower case:
//
//	header         version
//	subvol         path uuid ctransid
//	snapshot       path uuid ctransid clone_uuid clone_ctransid
//	mkfile mkdir   path ino
//	mknod mkfifo mksock
//	               path ino mode rdev
//	symlink        path ino path_link
//	rename         path path_to
//	link           path path_link
//	unlink rmdir   path
//	set_xattr      path xattr_name xattr_data len
//	remove_xattr   path xattr_name
//	write          path file_offset len [data]
//	clone          path file_offset clone_len clone_uuid clone_ctransid clone_path clone_offset
//	truncate       path size
//	chmod          path mode
//	chown          path uid gid
//	utimes         path atime mtime ctime [otime]
//	update_extent  path file_offset size
//	fallocate      path fallocate_mode file_offset size
//	fileattr       path fileattr
//	encoded_write  path file_offset len unencoded_file_len unencoded_len
//	               unencoded_offset compression encryption [data]
//	enable_verity  path verity_algorithm verity_block_size verity_salt_data verity_sig_data
//	end            (none)
//
// Numbers are JSON numbers of up to 64 bits; compression is the text of
// [Compression]. A mode is octal digits in a string. A time is RFC 3339 in UTC,
// with nanoseconds, or "@SECONDS.NANOSECONDS" from 1970 where that can't say
// it. A member that ends in _data, and data, is base64. Paths and names are
// strings; one that isn't UTF-8 has the replacement character for each byte
// that doesn't fit, and stands in base64 beside it, in a member with _base64
// added to the name.
func WriteJSON(w io.Writer, r *Reader, opts JSONOptions) error {
	var j jsonDumper
	for {
		c, err := r.Next()
		if err == nil {
			j.command(r, c, opts)
		}
		if err != nil || len(j.out) >= 64<<10 {
			if _, werr := w.Write(j.out); werr != nil {
				return fmt.Errorf("write dump: %w", werr)
			}
			j.out = j.out[:0]
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A jsonDumper appends members of an object to out.
type jsonDumper struct{ out []byte }

func (j *jsonDumper) command(r *Reader, c Command, opts JSONOptions) {
	j.out = append(j.out, `{"command":"`...)
	j.out = append(j.out, c.Kind().String()...)
	j.out = append(j.out, '"')
	if c.Kind() != KindHeader {
		j.num("n", r.Number())
	}
	j.num("offset", uint64(r.CommandOffset()))
	if path := c.Target(); path != nil {
		j.str("path", path)
	}
	j.attributes(c, opts)
	j.out = append(j.out, "}\n"...)
}

func (j *jsonDumper) attributes(c Command, opts JSONOptions) {
	switch c := c.(type) {
	case *Header:
		j.num("version", uint64(c.Version))
	case *Subvol:
		j.uuid("uuid", c.UUID)
		j.num("ctransid", c.Ctransid)
	case *Snapshot:
		j.uuid("uuid", c.UUID)
		j.num("ctransid", c.Ctransid)
		j.uuid("clone_uuid", c.ParentUUID)
		j.num("clone_ctransid", c.ParentCtransid)
	case *Mkfile:
		j.num("ino", c.Ino)
	case *Mkdir:
		j.num("ino", c.Ino)
	case *Mknod:
		j.special(c.Ino, c.Mode, c.Rdev)
	case *Mkfifo:
		j.special(c.Ino, c.Mode, c.Rdev)
	case *Mksock:
		j.special(c.Ino, c.Mode, c.Rdev)
	case *Symlink:
		j.num("ino", c.Ino)
		j.str("path_link", c.Dest)
	case *Rename:
		j.str("path_to", c.To)
	case *Link:
		j.str("path_link", c.Existing)
	case *SetXattr:
		j.str("xattr_name", c.Name)
		j.base64("xattr_data", c.Value)
		j.num("len", uint64(len(c.Value)))
	case *RemoveXattr:
		j.str("xattr_name", c.Name)
	case *Write:
		j.num("file_offset", c.Offset)
		j.num("len", uint64(len(c.Data)))
		if opts.Data {
			j.base64("data", c.Data)
		}
	case *Clone:
		j.num("file_offset", c.Offset)
		j.num("clone_len", c.Len)
		j.uuid("clone_uuid", c.SourceUUID)
		j.num("clone_ctransid", c.SourceCtransid)
		j.str("clone_path", c.SourcePath)
		j.num("clone_offset", c.SourceOffset)
	case *Truncate:
		j.num("size", c.Size)
	case *Chmod:
		j.mode(c.Mode)
	case *Chown:
		j.num("uid", c.UID)
		j.num("gid", c.GID)
	case *Utimes:
		j.time("atime", c.Atime)
		j.time("mtime", c.Mtime)
		j.time("ctime", c.Ctime)
		if c.HasOtime {
			j.time("otime", c.Otime)
		}
	case *UpdateExtent:
		j.num("file_offset", c.Offset)
		j.num("size", c.Len)
	case *Fallocate:
		j.num("fallocate_mode", uint64(c.Mode))
		j.num("file_offset", c.Offset)
		j.num("size", c.Len)
	case *Fileattr:
		j.num("fileattr", c.Flags)
	case *EncodedWrite:
		j.num("file_offset", c.Offset)
		j.num("len", uint64(len(c.Data)))
		j.num("unencoded_file_len", c.UnencodedFileLen)
		j.num("unencoded_len", c.UnencodedLen)
		j.num("unencoded_offset", c.UnencodedOffset)
		j.str("compression", []byte(c.Compression.String()))
		j.num("encryption", uint64(c.Encryption))
		if opts.Data {
			j.base64("data", c.Data)
		}
	case *EnableVerity:
		j.num("verity_algorithm", uint64(c.Algorithm))
		j.num("verity_block_size", uint64(c.BlockSize))
		j.base64("verity_salt_data", c.Salt)
		j.base64("verity_sig_data", c.Signature)
	}
}

func (j *jsonDumper) special(ino, mode, rdev uint64) {
	j.num("ino", ino)
	j.mode(mode)
	j.num("rdev", rdev)
}

func (j *jsonDumper) key(name string) {
	j.out = append(j.out, ',', '"')
	j.out = append(j.out, name...)
	j.out = append(j.out, '"', ':')
}

func (j *jsonDumper) num(name string, v uint64) {
	j.key(name)
	j.out = strconv.AppendUint(j.out, v, 10)
}

func (j *jsonDumper) mode(v uint64) {
	j.key("mode")
	j.out = append(j.out, '"')
	j.out = strconv.AppendUint(j.out, v, 8)
	j.out = append(j.out, '"')
}

func (j *jsonDumper) uuid(name string, v UUID) {
	j.key(name)
	j.out = append(j.out, '"')
	j.out = v.appendTo(j.out)
	j.out = append(j.out, '"')
}

func (j *jsonDumper) base64(name string, v []byte) {
	j.key(name)
	j.out = append(j.out, '"')
	j.out = base64.StdEncoding.AppendEncode(j.out, v)
	j.out = append(j.out, '"')
}

func (j *jsonDumper) time(name string, t Timespec) {
	j.key(name)
	j.out = append(j.out, '"')
	if utc := time.Unix(t.Sec, int64(t.Nsec)).UTC(); t.Sec > -1e12 && t.Sec < 1e12 && t.Nsec < 1e9 &&
		utc.Year() >= 0 && utc.Year() <= 9999 {
		j.out = utc.AppendFormat(j.out, "2006-01-02T15:04:05.000000000Z")
	} else {
		j.out = fmt.Appendf(j.out, "@%d.%09d", t.Sec, t.Nsec)
	}
	j.out = append(j.out, '"')
}

// str appends a string, and its bytes if they aren't text.
func (j *jsonDumper) str(name string, v []byte) {
	j.key(name)
	j.out = append(j.out, '"')
	for rest := v; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == '"' || r == '\\':
			j.out = append(j.out, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			j.out = fmt.Appendf(j.out, `\u%04x`, r)
		default:
			j.out = utf8.AppendRune(j.out, r)
		}
		rest = rest[size:]
	}
	j.out = append(j.out, '"')
	if !utf8.Valid(v) {
		j.base64(name+"_base64", v)
	}
}
