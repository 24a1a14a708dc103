package dbusjson

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Values are, by type:
//
//	y uint8, b bool, n int16, q uint16, i int32, u uint32, x int64, t uint64,
//	d float64, s string, o Path, g Signature, h FD, v Variant,
//	ay []byte, a{} Dict, other arrays []any, structs []any

// A Path is an object path.
type Path string

// A Signature is a signature as a value.
type Signature string

// A Variant is a value with its type.
type Variant struct {
	Type  *Type
	Value any
}

// A Dict is an array of dict entries, in the order of the message.
type Dict []Entry

// An Entry is one of a Dict.
type Entry struct{ Key, Value any }

// An FD stands for a file descriptor.
type FD struct {
	Index uint32 // in the message
	Kind  string // what it is: file, directory, pipe, socket, ...; "" if unknown
}

// ValidPath says whether s is an object path.
func ValidPath(s string) bool {
	if s == "/" {
		return true
	}
	if s == "" || s[0] != '/' || s[len(s)-1] == '/' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !nameByte(s[i], false) && (s[i] != '/' || s[i-1] == '/') {
			return false
		}
	}
	return true
}

func nameByte(c byte, first bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || !first && c >= '0' && c <= '9'
}

// ValidMember says whether s is the name of a method, signal or property.
func ValidMember(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if !nameByte(s[i], i == 0) {
			return false
		}
	}
	return true
}

// ValidInterface says whether s is the name of an interface.
func ValidInterface(s string) bool {
	parts := strings.Split(s, ".")
	if len(s) > maxName || len(parts) < 2 {
		return false
	}
	for _, p := range parts {
		if !ValidMember(p) {
			return false
		}
	}
	return true
}

// ValidBusName says whether s is a bus name, unique or well known.
func ValidBusName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	rest, unique := strings.CutPrefix(s, ":")
	parts := strings.Split(rest, ".")
	if len(parts) < 2 {
		return false
	}
	for _, p := range parts {
		if p == "" {
			return false
		}
		for i := range len(p) {
			if !nameByte(p[i], i == 0 && !unique) && p[i] != '-' {
				return false
			}
		}
	}
	return true
}

func checkString(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("string is not UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("string has a zero byte, which D-Bus can't carry")
	}
	return nil
}
