package opdbus

import (
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// A ForwardedError is an error of a call that Agents or Logins has made for
// somebody who is not on the bus. It goes back as data; as a D-Bus error it
// would be one of the forwarding itself. Its texts are clean.
type ForwardedError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func forwardedError(err error) *ForwardedError {
	e := &ForwardedError{Name: "org.freedesktop.DBus.Error.Failed", Message: Clean(err.Error())}
	var named interface{ DBusName() string }
	var answered *bus.Error
	switch {
	case errors.As(err, &named):
		e.Name = named.DBusName()
	case errors.As(err, &answered):
		e.Name, e.Message = answered.Name, Clean(answered.Message)
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		e.Hint = Clean(hinted.Hint())
	}
	return e
}
