package web

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// An ExposedError says that a server would be reachable from other machines
// without TLS: exit code 2.
type ExposedError struct{ Address string }

func (e *ExposedError) Error() string {
	return fmt.Sprintf("%s can be reached from other machines, and there is no TLS", e.Address)
}

// ExitCode is that of wrong configuration.
func (e *ExposedError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *ExposedError) Hint() string {
	return "give --tls-cert and --tls-key; or listen on 127.0.0.1 and come with ssh -L 8096:127.0.0.1:8096"
}

// CheckListener refuses a listener beyond loopback without TLS. A login is
// needed in any case.
func CheckListener(l net.Listener, secure bool) error {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("%s: not a TCP socket", l.Addr())
	}
	if !secure && !a.IP.IsLoopback() {
		return &ExposedError{a.String()}
	}
	return nil
}

// Certificate returns TLS settings with a certificate of files, which are read
// anew when they change.
func Certificate(cert, key string) (*tls.Config, error) {
	c := &certificate{cert: cert, key: key}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}, nil
}

type certificate struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	of     time.Time // of the files, the newer of both
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var newest time.Time
	for _, f := range []string{c.cert, c.key} {
		st, err := os.Stat(f)
		if err != nil {
			if c.loaded != nil {
				return c.loaded, nil
			}
			return nil, fmt.Errorf("certificate: %w", err)
		}
		if st.ModTime().After(newest) {
			newest = st.ModTime()
		}
	}
	if c.loaded != nil && newest.Equal(c.of) {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		if c.loaded != nil { // half of a renewal
			return c.loaded, nil
		}
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.loaded, c.of = &pair, newest
	return c.loaded, nil
}
