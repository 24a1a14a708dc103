package sendstream

import (
	"errors"
	"fmt"
)

// The reasons for which a stream is refused, found with errors.Is in what
// [Reader.Next] returns.
var (
	// ErrEmpty: the input has not a single byte.
	ErrEmpty = errors.New("empty input")
	// ErrMagic: what should be a stream header is not one.
	ErrMagic = errors.New("not a btrfs send stream")
	// ErrVersion: the header's version is 0 or above MaxVersion.
	ErrVersion = errors.New("unsupported stream version")
	// ErrTruncated: the input ends inside a header or a command.
	ErrTruncated = errors.New("stream is cut off")
	// ErrNoEnd: the input ends between two commands, without END. Either it
	// was cut there, or it was sent with END omitted.
	ErrNoEnd = errors.New("stream ends without an end command")
	// ErrChecksum: a command's CRC-32C does not match its bytes.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrTooLarge: a command, or what it decodes to, is above the limit set
	// in Options; or, in a Writer, more than the format can express.
	ErrTooLarge = errors.New("too large")
	// ErrUnknownCommand: the stream's version does not define the command.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrAttribute: an attribute is missing, malformed or of the wrong size.
	ErrAttribute = errors.New("bad attribute")
	// ErrPath: a path is absolute, not in canonical form, or has a ".." or a
	// NUL in it.
	ErrPath = errors.New("bad path")
	// ErrEncoding: the data of an EncodedWrite does not decode.
	ErrEncoding = errors.New("bad encoded data")
	// ErrUnsupported: the data of an EncodedWrite is encrypted, or compressed
	// in a way that this package doesn't know.
	ErrUnsupported = errors.New("unsupported encoding")
	// ErrOrder: a command stands where it can't, such as a write before the
	// first subvolume.
	ErrOrder = errors.New("command out of order")
)

// An Error says where in the input a stream was refused. It wraps one of the
// errors above, or the error of the underlying reader.
type Error struct {
	Offset  int64  // of the first byte of the command or header, from the beginning of the input
	Command uint64 // its number, from 1, headers not counted; for a header the number of commands before it
	Kind    Kind   // what it is, KindHeader for a header, 0 where that isn't known
	Err     error
}

func (e *Error) Error() string {
	switch e.Kind {
	case 0:
		return fmt.Sprintf("send stream: command %d at offset %d: %v", e.Command, e.Offset, e.Err)
	case KindHeader:
		return fmt.Sprintf("send stream: header at offset %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("send stream: command %d (%v) at offset %d: %v", e.Command, e.Kind, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
