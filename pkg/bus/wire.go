package bus

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A wire is a bus's socket, for messages. One goroutine reads, any may send.
type wire struct {
	conn *net.UnixConn
	fds  *fdReader
	in   *bufio.Reader

	mu      sync.Mutex
	room    *sync.Cond // on mu: what waited is being written
	waiting []byte     // messages behind those that are being written
	spare   []byte     // a buffer that waiting may take
	writing bool
	serial  uint32
	failed  error
}

func newWire(conn *net.UnixConn) *wire {
	w := &wire{conn: conn, fds: &fdReader{conn: conn}}
	w.in = bufio.NewReaderSize(w.fds, 64<<10)
	w.room = sync.NewCond(&w.mu)
	return w
}

// authenticate says who we are (EXTERNAL: the kernel says it) and asks for
// descriptors: without, the bus keeps back each message that has one, and its
// receiver waits for nothing. All of it goes out at once, as libsystemd has it.
func (w *wire) authenticate() error {
	id := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := io.WriteString(w.conn, "\x00AUTH EXTERNAL "+id+"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"); err != nil {
		return err
	}
	line, err := w.line()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK") {
		return fmt.Errorf("it does not let uid %d in: %.80q", os.Geteuid(), line)
	}
	if line, err = w.line(); err != nil {
		return err
	}
	if !strings.HasPrefix(line, "AGREE_UNIX_FD") && !strings.HasPrefix(line, "ERROR") {
		return fmt.Errorf("answer %.80q to NEGOTIATE_UNIX_FD", line)
	}
	return nil
}

// line reads a line of the authentication.
func (w *wire) line() (string, error) {
	line, err := w.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		err = errors.New("it closed the connection")
	}
	return strings.TrimRight(string(line), "\r\n"), err
}

// Bounds of what a wire keeps.
const (
	maxWaiting = 64 << 20 // bytes; then who sends waits
	keptBuffer = 1 << 20
)

// send gives m a serial and writes it; before is called with the serial before
// anything is written. While one sender writes, the others leave their messages
// to it. For them an error of the socket is that of the connection: whoever
// waits for an answer learns of it.
func (w *wire) send(m *message, before func(serial uint32)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.failed == nil && w.writing && len(w.waiting) > maxWaiting {
		w.room.Wait()
	}
	if w.failed != nil {
		return w.failed
	}
	if w.serial++; w.serial == 0 {
		w.serial = 1
	}
	if before != nil {
		before(w.serial)
	}
	w.waiting = m.append(w.waiting, w.serial)
	if w.writing {
		return nil
	}
	w.writing = true
	// Who else is about to send adds to the same write: an answer of the bus
	// that brings many of ours wakes as many goroutines.
	w.mu.Unlock()
	runtime.Gosched()
	w.mu.Lock()
	for len(w.waiting) > 0 && w.failed == nil {
		b := w.waiting
		w.waiting, w.spare = w.spare[:0], nil
		w.room.Broadcast()
		w.mu.Unlock()
		_, err := w.conn.Write(b)
		w.mu.Lock()
		if err != nil {
			w.failed = ErrClosed
			w.conn.Close() // ends the reader, who tells the others
		}
		if cap(b) <= keptBuffer {
			w.spare = b
		}
	}
	w.writing = false
	w.room.Broadcast()
	return w.failed
}

// close ends the wire.
func (w *wire) close() error {
	w.mu.Lock()
	w.failed = ErrClosed
	w.room.Broadcast()
	w.mu.Unlock()
	return w.conn.Close()
}

// read returns the next message.
func (w *wire) read() (*message, error) {
	var start [fixedHeader]byte
	if _, err := io.ReadFull(w.in, start[:]); err != nil {
		return nil, err
	}
	order, err := byteOrder(start[0])
	if err != nil {
		return nil, err
	}
	m := &message{kind: start[1], flags: start[2], serial: order.Uint32(start[8:]), order: order}
	bodyLen, fieldsLen := order.Uint32(start[4:]), order.Uint32(start[12:])
	if start[3] != 1 || bodyLen > dbusjson.MaxMessage || fieldsLen > maxFields {
		return nil, errProtocol
	}
	if n := pad8(int(fieldsLen)); n <= 4096 {
		fields, err := w.in.Peek(n)
		if err != nil {
			return nil, err
		}
		if err := m.parseFields(fields[:fieldsLen], order); err != nil {
			return nil, err
		}
		w.in.Discard(n)
	} else {
		fields, err := readBody(w.in, n)
		if err != nil {
			return nil, err
		}
		if err := m.parseFields(fields[:fieldsLen], order); err != nil {
			return nil, err
		}
	}
	if m.fds > 0 {
		if m.kinds, err = w.fds.take(int(m.fds)); err != nil {
			return nil, err
		}
	}
	if bodyLen > maxBody {
		m.oversize = bodyLen
		_, err := io.CopyN(io.Discard, w.in, int64(bodyLen))
		return m, err
	}
	m.body, err = readBody(w.in, int(bodyLen))
	return m, err
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

// An fdReader reads a socket and keeps the descriptors that come with the
// bytes.
type fdReader struct {
	conn *net.UnixConn
	fds  []int
	oob  [4096]byte
}

const maxFDs = 1024

func (r *fdReader) Read(p []byte) (int, error) {
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, r.oob[:])
	if oobn > 0 {
		if perr := r.keep(r.oob[:oobn]); perr != nil {
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
		r.drop()
		return fmt.Errorf("bus: more than %d descriptors wait", maxFDs)
	}
	return nil
}

// drop closes the descriptors that nobody took.
func (r *fdReader) drop() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
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
