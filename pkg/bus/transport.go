package bus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A transport stands between the bus and godbus, so that bodies of messages
// are read and written by dbusjson. godbus decodes a body before anybody can
// look at it, closes the connection on legal ones (a{gs}, depth 64), and keeps
// neither the order nor the twins of a dict; a stranger could end the daemon
// with one message. So a body goes past it as one of bytes:
//
//	incoming  (g y ay as)  signature, byte order, body, kinds of descriptors
//	outgoing  (g ay)       signature, body in little endian
//
// Messages of the bus driver with simple bodies pass as they are: godbus itself
// reads those. Descriptors are looked at and closed.
type transport struct {
	conn *net.UnixConn
	in   *bufio.Reader
	fds  *fdReader

	begun bool         // authentication is over; set by Write before the first message
	out   bytes.Buffer // rest of the rewritten message that Read is giving out

	wmu sync.Mutex
}

func newTransport(conn *net.UnixConn) *transport {
	t := &transport{conn: conn, fds: &fdReader{conn: conn}}
	t.in = bufio.NewReaderSize(t.fds, 64<<10)
	return t
}

// maxBody bounds a body; the system bus allows 32 MiB a message.
const maxBody = 48 << 20

var errProtocol = errors.New("bus: malformed message")

func (t *transport) Close() error { return t.conn.Close() }

func (t *transport) Read(p []byte) (int, error) {
	if !t.begun {
		return t.in.Read(p)
	}
	for t.out.Len() == 0 {
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	return t.out.Read(p)
}

// Write gets one line of the authentication, or one whole message.
func (t *transport) Write(p []byte) (int, error) {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if !t.begun {
		if bytes.Equal(p, []byte("BEGIN\r\n")) {
			if err := t.negotiate(); err != nil {
				return 0, err
			}
			t.begun = true
		}
		return t.conn.Write(p)
	}
	m, err := unwrap(p)
	if err != nil {
		return 0, err
	}
	if _, err := t.conn.Write(m); err != nil {
		return 0, err
	}
	return len(p), nil
}

// negotiate asks for descriptors: without, the bus keeps back each message
// that has one, and its receiver waits for nothing.
func (t *transport) negotiate() error {
	if _, err := io.WriteString(t.conn, "NEGOTIATE_UNIX_FD\r\n"); err != nil {
		return err
	}
	line, err := t.in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "AGREE_UNIX_FD") && !strings.HasPrefix(line, "ERROR") {
		return fmt.Errorf("bus: answer %.40q to NEGOTIATE_UNIX_FD", line)
	}
	return nil
}

// Header fields (D-Bus Specification, "Header Fields").
const (
	fieldInterface   = 2
	fieldErrorName   = 4
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8
	fieldUnixFDs     = 9
)

const (
	typeCall = 1 + iota
	typeReturn
	typeError
	typeSignal
)

var (
	fieldsType = mustTypes("a(yv)")
	inTypes    = mustTypes("gyayas")
	outTypes   = mustTypes("gay")
)

func mustTypes(sig string) []*dbusjson.Type {
	t, err := dbusjson.ParseSignature(sig)
	if err != nil {
		panic(err)
	}
	return t
}

// A frame is a message, its header taken apart.
type frame struct {
	order  binary.ByteOrder
	fixed  [12]byte // endian, type, flags, version, body length, serial
	fields []any
	body   []byte
}

func (f *frame) field(code uint8) any {
	for _, x := range f.fields {
		if s := x.([]any); s[0].(uint8) == code {
			return s[1].(dbusjson.Variant).Value
		}
	}
	return nil
}

// set replaces a field; nil removes it.
func (f *frame) set(code uint8, t string, v any) {
	kept := f.fields[:0:0]
	for _, x := range f.fields {
		if x.([]any)[0].(uint8) != code {
			kept = append(kept, x)
		}
	}
	if v != nil {
		kept = append(kept, []any{code, dbusjson.Variant{Type: mustTypes(t)[0], Value: v}})
	}
	f.fields = kept
}

func byteOrder(c byte) (binary.ByteOrder, error) {
	switch c {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, errProtocol
}

func pad8(n int) int { return (n + 7) &^ 7 }

// next reads a message of the bus and puts what godbus is to see into t.out.
func (t *transport) next() error {
	var start [16]byte
	if _, err := io.ReadFull(t.in, start[:]); err != nil {
		return err
	}
	order, err := byteOrder(start[0])
	if err != nil {
		return err
	}
	bodyLen, fieldsLen := int(order.Uint32(start[4:])), int(order.Uint32(start[12:]))
	if bodyLen > dbusjson.MaxMessage || fieldsLen > 64<<20 {
		return errProtocol
	}
	raw := make([]byte, 16+pad8(fieldsLen), 16+pad8(fieldsLen)+min(bodyLen, 1<<20))
	copy(raw, start[:])
	if _, err := io.ReadFull(t.in, raw[16:]); err != nil {
		return err
	}
	fields, err := decodeFields(raw[12:16+fieldsLen], order)
	if err != nil {
		return err
	}
	f := &frame{order: order, fields: fields}
	copy(f.fixed[:], start[:12])
	var kinds []string
	if n, ok := f.field(fieldUnixFDs).(uint32); ok && n > 0 {
		if kinds, err = t.fds.take(int(n)); err != nil {
			return err
		}
		f.set(fieldUnixFDs, "", nil)
	}
	if bodyLen > maxBody {
		if _, err := io.CopyN(io.Discard, t.in, int64(bodyLen)); err != nil {
			return err
		}
		return t.tooLarge(f, bodyLen)
	}
	if f.body, err = readBody(t.in, bodyLen); err != nil {
		return err
	}
	// godbus answers Peer itself, GetMachineId with something else.
	peer := f.fixed[1] == typeCall && f.field(fieldInterface) == peerInterface
	if peer {
		f.set(fieldInterface, "s", peerAlias)
	}
	sig, _ := f.field(fieldSignature).(dbusjson.Signature)
	sender, _ := f.field(fieldSender).(string)
	if sig == "" || sender == driverName && !strings.ContainsAny(string(sig), "a(vh") {
		if kinds == nil && !peer {
			t.out.Write(raw)
			t.out.Write(f.body)
			return nil
		}
		if sig == "" {
			return t.give(f)
		}
	}
	list := make([]any, len(kinds))
	for i, k := range kinds {
		list[i] = k
	}
	f.body, err = dbusjson.Encode(inTypes, []any{sig, start[0], f.body, list})
	if err != nil {
		return err
	}
	f.set(fieldSignature, "g", dbusjson.Signature("gyayas"))
	return t.give(f)
}

// readBody reads n bytes and does not believe n before they come.
func readBody(r io.Reader, n int) ([]byte, error) {
	if n <= 1<<20 {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// tooLarge turns an answer whose body is too large into an error; other
// messages are dropped.
func (t *transport) tooLarge(f *frame, n int) error {
	if f.fixed[1] != typeReturn && f.fixed[1] != typeError {
		return nil
	}
	f.fixed[1] = typeError
	f.set(fieldErrorName, "s", "org.freedesktop.DBus.Error.LimitsExceeded")
	f.set(fieldSignature, "g", dbusjson.Signature("gyayas"))
	text, err := dbusjson.Encode(mustTypes("s"), []any{fmt.Sprintf("the answer is %d bytes long, more than %d", n, maxBody)})
	if err != nil {
		return err
	}
	if f.body, err = dbusjson.Encode(inTypes, []any{dbusjson.Signature("s"), byte('l'), text, []any{}}); err != nil {
		return err
	}
	return t.give(f)
}

func (t *transport) give(f *frame) error {
	m, err := f.bytes()
	if err == nil {
		t.out.Write(m)
	}
	return err
}

// bytes returns the message in little endian.
func (f *frame) bytes() ([]byte, error) {
	fields, err := dbusjson.Encode(fieldsType, []any{f.fields})
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", errProtocol, err)
	}
	// In the message the fields stand at 12, so the first one at 16; Encode
	// began at 0, and put the first one at 8.
	m := make([]byte, 0, 16+len(fields)+len(f.body)+8)
	m = append(m, 'l', f.fixed[1], f.fixed[2], f.fixed[3])
	m = binary.LittleEndian.AppendUint32(m, uint32(len(f.body)))
	m = binary.LittleEndian.AppendUint32(m, f.order.Uint32(f.fixed[8:]))
	m = append(m, fields[:4]...)
	if len(fields) > 8 {
		m = append(m, fields[8:]...)
	}
	for len(m)%8 != 0 {
		m = append(m, 0)
	}
	return append(m, f.body...), nil
}

// unwrap makes a message of godbus one of D-Bus.
func unwrap(p []byte) ([]byte, error) {
	if len(p) < 16 {
		return nil, errProtocol
	}
	order, err := byteOrder(p[0])
	if err != nil {
		return nil, err
	}
	fieldsLen := int(order.Uint32(p[12:]))
	if 16+pad8(fieldsLen) > len(p) {
		return nil, errProtocol
	}
	fields, err := decodeFields(p[12:16+fieldsLen], order)
	if err != nil {
		return nil, err
	}
	f := &frame{order: order, fields: fields, body: p[16+pad8(fieldsLen):]}
	copy(f.fixed[:], p)
	if f.field(fieldSignature) != dbusjson.Signature("gay") {
		return p, nil
	}
	values, err := dbusjson.Decode(f.body, order, outTypes, nil)
	if err != nil {
		return nil, err
	}
	f.body = values[1].([]byte)
	if sig := values[0].(dbusjson.Signature); sig != "" {
		f.set(fieldSignature, "g", sig)
	} else {
		f.set(fieldSignature, "", nil)
	}
	return f.bytes()
}

// decodeFields reads the array of header fields, which stands at 12 in the
// message: its elements are aligned as at 16, which is as at 8 and as at 0.
func decodeFields(b []byte, order binary.ByteOrder) ([]any, error) {
	shifted := make([]byte, 8, len(b)+4)
	copy(shifted, b[:4])
	shifted = append(shifted, b[4:]...)
	v, err := dbusjson.Decode(shifted, order, fieldsType, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", errProtocol, err)
	}
	return v[0].([]any), nil
}

// An fdReader reads a socket and keeps the descriptors that come with the
// bytes.
type fdReader struct {
	conn *net.UnixConn
	fds  []int
}

const maxFDs = 1024

func (r *fdReader) Read(p []byte) (int, error) {
	oob := make([]byte, 4096)
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		if perr := r.keep(oob[:oobn]); perr != nil {
			return n, perr
		}
	}
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (r *fdReader) keep(oob []byte) error {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		r.fds = append(r.fds, fds...)
	}
	if len(r.fds) > maxFDs {
		for _, fd := range r.fds {
			unix.Close(fd)
		}
		r.fds = nil
		return fmt.Errorf("bus: more than %d descriptors wait", maxFDs)
	}
	return nil
}

// take says what the next n descriptors are, and closes them.
func (r *fdReader) take(n int) ([]string, error) {
	if n > len(r.fds) {
		return nil, fmt.Errorf("%w: %d descriptors announced, %d came", errProtocol, n, len(r.fds))
	}
	kinds := make([]string, n)
	for i, fd := range r.fds[:n] {
		kinds[i] = descriptorKind(fd)
		unix.Close(fd)
	}
	r.fds = append(r.fds[:0], r.fds[n:]...)
	return kinds, nil
}

func descriptorKind(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return "unknown"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	}
	if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.HasPrefix(link, "anon_inode:") {
		return strings.Trim(strings.TrimPrefix(link, "anon_inode:"), "[]")
	}
	return "unknown"
}
