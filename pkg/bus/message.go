package bus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// Types of messages.
const (
	typeCall = 1 + iota
	typeReturn
	typeError
	typeSignal
)

// Flags of messages.
const (
	flagNoReply     = 1
	flagNoAutoStart = 2
	flagInteractive = 4
)

// Header fields (D-Bus Specification, "Header Fields").
const (
	fieldPath = 1 + iota
	fieldInterface
	fieldMember
	fieldErrorName
	fieldReplySerial
	fieldDestination
	fieldSender
	fieldSignature
	fieldUnixFDs
)

// A message of D-Bus; what it does not have is empty.
type message struct {
	kind, flags byte
	serial      uint32
	replySerial uint32
	path        string
	iface       string
	member      string
	errorName   string
	destination string
	sender      string
	signature   string
	fds         uint32

	order    binary.ByteOrder // of body; what is sent is little endian
	body     []byte
	kinds    []string // what the descriptors that came with it were
	oversize uint32   // length of a body longer than maxBody, which was passed over
}

const (
	fixedHeader = 16 // up to and with the length of the array of fields

	// maxBody bounds a body; the system bus allows 32 MiB a message.
	maxBody   = 48 << 20
	maxFields = 64 << 20
)

var errProtocol = errors.New("bus: malformed message")

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

// append appends the message, with a serial, to b, which must be empty or end
// at a multiple of eight.
func (m *message) append(b []byte, serial uint32) []byte {
	start := len(b)
	b = append(b, 'l', m.kind, m.flags, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.body)))
	b = binary.LittleEndian.AppendUint32(b, serial)
	b = append(b, 0, 0, 0, 0)
	text := func(code, t byte, s string) {
		if s == "" {
			return
		}
		b = align8(b, start)
		b = append(b, code, 1, t, 0)
		if t == 'g' {
			b = append(b, byte(len(s)))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		}
		b = append(append(b, s...), 0)
	}
	text(fieldPath, 'o', m.path)
	text(fieldDestination, 's', m.destination)
	text(fieldInterface, 's', m.iface)
	text(fieldMember, 's', m.member)
	text(fieldErrorName, 's', m.errorName)
	if m.replySerial != 0 {
		b = append(align8(b, start), fieldReplySerial, 1, 'u', 0)
		b = binary.LittleEndian.AppendUint32(b, m.replySerial)
	}
	text(fieldSignature, 'g', m.signature)
	binary.LittleEndian.PutUint32(b[start+12:], uint32(len(b)-start-fixedHeader))
	return append(align8(b, start), m.body...)
}

func align8(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// parseFields reads the array of header fields, without its length; it stands
// at a multiple of eight in the message. Fields that the specification does not
// know are passed over.
func (m *message) parseFields(b []byte, order binary.ByteOrder) error {
	for pos := 0; pos < len(b); {
		for pos%8 != 0 {
			if pos >= len(b) || b[pos] != 0 {
				return errProtocol
			}
			pos++
		}
		// A code and a variant, whose signature is one letter in all fields
		// that are known.
		if len(b)-pos < 4 {
			return errProtocol
		}
		code := b[pos]
		if b[pos+1] != 1 || b[pos+3] != 0 {
			return m.parseAnyFields(b, order)
		}
		kind := b[pos+2]
		pos += 4
		switch kind {
		case 's', 'o':
			if len(b)-pos < 4 {
				return errProtocol
			}
			n := int(order.Uint32(b[pos:]))
			pos += 4
			if n < 0 || n >= len(b)-pos || b[pos+n] != 0 {
				return errProtocol
			}
			if err := m.setText(code, kind, string(b[pos:pos+n])); err != nil {
				return err
			}
			pos += n + 1
		case 'g':
			if len(b)-pos < 1 {
				return errProtocol
			}
			n := int(b[pos])
			pos++
			if n >= len(b)-pos || b[pos+n] != 0 {
				return errProtocol
			}
			if err := m.setText(code, kind, string(b[pos:pos+n])); err != nil {
				return err
			}
			pos += n + 1
		case 'u':
			if len(b)-pos < 4 {
				return errProtocol
			}
			if err := m.setNumber(code, order.Uint32(b[pos:])); err != nil {
				return err
			}
			pos += 4
		default:
			return m.parseAnyFields(b, order)
		}
	}
	return nil
}

func (m *message) setText(code, kind byte, s string) error {
	var field *string
	want := byte('s')
	switch code {
	case fieldPath:
		field, want = &m.path, 'o'
	case fieldInterface:
		field = &m.iface
	case fieldMember:
		field = &m.member
	case fieldErrorName:
		field = &m.errorName
	case fieldDestination:
		field = &m.destination
	case fieldSender:
		field = &m.sender
	case fieldSignature:
		field, want = &m.signature, 'g'
	case fieldReplySerial, fieldUnixFDs:
		return errProtocol
	default:
		return nil
	}
	if kind != want {
		return errProtocol
	}
	*field = s
	return nil
}

func (m *message) setNumber(code byte, n uint32) error {
	switch code {
	case fieldReplySerial:
		m.replySerial = n
	case fieldUnixFDs:
		m.fds = n
	case fieldPath, fieldInterface, fieldMember, fieldErrorName, fieldDestination, fieldSender, fieldSignature:
		return errProtocol
	}
	return nil
}

var fieldsType = mustTypes("a(yv)")

func mustTypes(sig string) []*dbusjson.Type {
	t, err := dbusjson.ParseSignature(sig)
	if err != nil {
		panic(err)
	}
	return t
}

// parseAnyFields is parseFields for an array with fields of any type.
func (m *message) parseAnyFields(b []byte, order binary.ByteOrder) error {
	// The array with its length, then four bytes so that the first element
	// stands at eight.
	data := make([]byte, 8, 8+len(b))
	order.PutUint32(data, uint32(len(b)))
	v, err := dbusjson.Decode(append(data, b...), order, fieldsType, nil)
	if err != nil {
		return fmt.Errorf("%w: header: %w", errProtocol, err)
	}
	for _, f := range v[0].([]any) {
		code, value := f.([]any)[0].(byte), f.([]any)[1].(dbusjson.Variant).Value
		var err error
		switch x := value.(type) {
		case string:
			err = m.setText(code, 's', x)
		case dbusjson.Path:
			err = m.setText(code, 'o', string(x))
		case dbusjson.Signature:
			err = m.setText(code, 'g', string(x))
		case uint32:
			err = m.setNumber(code, x)
		default:
			if code >= fieldPath && code <= fieldUnixFDs {
				err = errProtocol
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setBody encodes b into m.
func (m *message) setBody(b Body) error {
	if len(b.Types) == 0 {
		return nil
	}
	raw, err := dbusjson.Encode(b.Types, b.Values)
	if err != nil {
		return err
	}
	sig := dbusjson.JoinSignature(b.Types)
	if len(sig) > dbusjson.MaxSignature {
		return fmt.Errorf("signature of %d bytes, more than %d", len(sig), dbusjson.MaxSignature)
	}
	m.signature, m.body = sig, raw
	return nil
}

// open decodes the message's body.
func (m *message) open() (Body, error) {
	if m.oversize > 0 {
		return Body{}, &Error{"org.freedesktop.DBus.Error.LimitsExceeded", fmt.Sprintf("the answer is %d bytes long, more than %d", m.oversize, maxBody)}
	}
	types, err := dbusjson.ParseSignature(m.signature)
	if err != nil {
		return Body{}, err
	}
	if m.order == nil { // it never was on a wire
		m.order = binary.LittleEndian
	}
	values, err := dbusjson.Decode(m.body, m.order, types, m.kinds)
	return Body{types, values}, err
}
