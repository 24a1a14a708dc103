package sendstream

import (
	"bytes"
	"reflect"
)

// Copy returns a copy of a command that shares no memory with it, for keeping
// past the next call of Next.
func Copy(c Command) Command {
	from := reflect.ValueOf(c).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	for i := range from.NumField() {
		if b, ok := from.Field(i).Interface().([]byte); ok {
			to.Elem().Field(i).SetBytes(bytes.Clone(b))
		}
	}
	return to.Interface().(Command)
}
