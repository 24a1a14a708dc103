package tools

import (
	"bytes"
	"sync"
)

// An Output is what a program has written so far: it can be read while the
// program runs. The zero value is empty.
type Output struct {
	mu sync.Mutex // covers b: the program's output is copied by a goroutine
	b  bytes.Buffer
}

// Write adds to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
