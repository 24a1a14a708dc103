//go:build linux

package main

import (
	"io"
	"net"
	"sync"
)

// A proxy passes TCP connections on to target, and can be cut: then nobody
// listens, as when the server has ended.
type proxy struct {
	target  string
	address string

	mu     sync.Mutex
	l      net.Listener
	conns  map[net.Conn]bool
	closed bool
}

func newProxy(target string) (*proxy, error) {
	p := &proxy{target: target, address: "127.0.0.1:0", conns: make(map[net.Conn]bool), closed: true}
	return p, p.Mend()
}

// Address is where it listens, also while it is cut.
func (p *proxy) Address() string { return p.address }

// Mend lets it listen, again at its address.
func (p *proxy) Mend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		return nil
	}
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.l, p.address, p.closed = l, l.Addr().String(), false
	go p.accept(l)
	return nil
}

// Cut closes all that is open.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.l.Close()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

func (p *proxy) accept(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil || !p.add(near, far) {
			near.Close()
			if far != nil {
				far.Close()
			}
			continue
		}
		go p.copy(near, far)
		go p.copy(far, near)
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *proxy) copy(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, to)
	delete(p.conns, from)
}
