package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

const (
	readLineOf   = `{"name":"org.example.X","path":"/%d","interface":"org.freedesktop.DBus.Properties","member":"Get"}` + "\n"
	changeLineOf = `{"name":"org.example.X","path":"/%d","interface":"org.example.X","member":"Change"}` + "\n"
)

// A fakeBus notes what is under way when.
type fakeBus struct {
	took func(l *callLine) (time.Duration, error)

	mu       sync.Mutex
	running  int
	most     int
	begun    int
	mixed    bool // something was under way beside a change
	changing bool
	order    []string // in which calls ended
}

func (f *fakeBus) do(ctx context.Context, l *callLine) ([]byte, error) {
	f.mu.Lock()
	f.running++
	f.begun++
	f.most = max(f.most, f.running)
	if l.changes() {
		f.changing = true
	}
	f.mixed = f.mixed || f.changing && f.running > 1
	f.mu.Unlock()
	took, err := f.took(l)
	select {
	case <-time.After(took):
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	if l.changes() {
		f.changing = false
	}
	f.order = append(f.order, l.Path)
	return []byte(l.Path + "\n"), err
}

// Answers come in the order of the lines, however long each takes; several reads
// are under way at once, at most callWindow, and beside a change nothing is.
func TestCallsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in, want strings.Builder
		for i := range 500 {
			if i%37 == 5 {
				fmt.Fprintf(&in, changeLineOf, i)
			} else {
				fmt.Fprintf(&in, readLineOf, i)
			}
			fmt.Fprintf(&want, "/%d\n", i)
		}
		var out bytes.Buffer
		f := &fakeBus{took: func(l *callLine) (time.Duration, error) {
			return time.Duration(7919*len(l.Path)*int(l.Path[len(l.Path)-1])%97) * time.Millisecond, nil
		}}
		if err := answerCalls(t.Context(), strings.NewReader(in.String()), &out, maxHeld, f.do); err != nil {
			t.Fatal(err)
		}
		if out.String() != want.String() {
			t.Errorf("answers:\n%s", out.String())
		}
		if f.mixed {
			t.Error("something was under way beside a change")
		}
		if f.most < 2 || f.most > callWindow {
			t.Errorf("%d calls at once", f.most)
		}
		if last := f.order[0]; last == "/0" && f.order[1] == "/1" && f.order[2] == "/2" {
			t.Error("the calls ended in the order in which they began: nothing is tested")
		}
	})
}

// An error stays with its line, be it of the call or of the line itself, and a
// bad line does not wait for what is behind it.
func TestCallsErrorsStayWithTheirLine(t *testing.T) {
	in := fmt.Sprintf(readLineOf, 1) + "{\n\n" + fmt.Sprintf(readLineOf, 2) + `{"nme":1}` + "\n" + fmt.Sprintf(readLineOf, 3) + fmt.Sprintf(changeLineOf, 4) + fmt.Sprintf(readLineOf, 5)
	var out bytes.Buffer
	f := &fakeBus{took: func(l *callLine) (time.Duration, error) {
		switch l.Path {
		case "/2":
			return 20 * time.Millisecond, &bus.Error{Name: "org.example.Error", Message: "two"}
		case "/4":
			return 0, errors.New("four")
		}
		return 0, nil
	}}
	if err := answerCalls(t.Context(), strings.NewReader(in), &out, maxHeld, f.do); err != nil {
		t.Fatal(err)
	}
	want := []string{"/1", `{"error":"unexpected EOF","ok":false}`, `{"error":"two (org.example.Error)","name":"org.example.Error","ok":false}`,
		`{"error":"json: unknown field \"nme\"","ok":false}`, "/3", `{"error":"four","ok":false}`, "/5"}
	if have := strings.TrimSpace(out.String()); have != strings.Join(want, "\n") {
		t.Errorf("answers:\n%s\nwant:\n%s", have, strings.Join(want, "\n"))
	}
}

// Who writes a line and waits gets its answer, without the end of the input or
// another line.
func TestCallsOneByOne(t *testing.T) {
	inr, inw := io.Pipe()
	outr, outw := io.Pipe()
	f := &fakeBus{took: func(*callLine) (time.Duration, error) { return 0, nil }}
	done := make(chan error, 1)
	go func() { done <- answerCalls(t.Context(), inr, outw, maxHeld, f.do) }()
	answers := bufio.NewReader(outr)
	for i := range 50 {
		line := readLineOf
		if i%3 == 0 {
			line = changeLineOf
		}
		fmt.Fprintf(inw, line, i)
		if a, err := answers.ReadString('\n'); err != nil || a != fmt.Sprintf("/%d\n", i) {
			t.Fatalf("answer %q, %v", a, err)
		}
	}
	inw.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A slow first call does not keep back the answer of none but those behind it,
// and an answer that is there is written though others are under way.
func TestCallsAnswerIsNotKeptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outr, outw := io.Pipe()
		f := &fakeBus{took: func(l *callLine) (time.Duration, error) {
			if l.Path == "/1" {
				return time.Hour, nil
			}
			return 0, nil
		}}
		go func() {
			answerCalls(t.Context(), strings.NewReader(fmt.Sprintf(readLineOf, 0)+fmt.Sprintf(readLineOf, 1)+fmt.Sprintf(readLineOf, 2)), outw, maxHeld, f.do)
			outw.Close()
		}()
		answers := bufio.NewReader(outr)
		start := time.Now()
		for i, least := range []time.Duration{0, time.Hour, time.Hour} {
			a, err := answers.ReadString('\n')
			if err != nil || a != fmt.Sprintf("/%d\n", i) || time.Since(start) != least {
				t.Fatalf("answer %q after %s, %v", a, time.Since(start), err)
			}
		}
	})
}

// endless has reads for ever, and counts the bytes that were taken.
type endless struct {
	line  []byte
	off   int
	taken int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.line[e.off:])
	e.off = (e.off + n) % len(e.line)
	e.taken += n
	return n, nil
}

// Where nobody takes the answers, no more calls are begun than the window has,
// and fewer where they are long.
func TestCallsBounded(t *testing.T) {
	const limit = 1 << 20
	for name, c := range map[string]struct{ line, answer, most int }{
		"short": {0, 0, callWindow}, "long lines": {limit / 3, 0, 2}, "long answers": {0, limit / 2, callWindow},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := fmt.Sprintf(readLineOf, 1)
				line = strings.Repeat(" ", c.line) + line
				outr, outw := io.Pipe()
				answer := bytes.Repeat([]byte("x"), c.answer+1)
				f := &fakeBus{took: func(*callLine) (time.Duration, error) { return 0, nil }}
				ctx, cancel := context.WithCancel(t.Context())
				in := &endless{line: []byte(line)}
				done := make(chan error, 1)
				go func() {
					done <- answerCalls(ctx, in, outw, limit, func(ctx context.Context, l *callLine) ([]byte, error) {
						_, err := f.do(ctx, l)
						return answer, err
					})
				}()
				synctest.Wait()
				f.mu.Lock()
				if f.begun < 1 || f.begun > c.most {
					t.Errorf("%d calls were begun, want at most %d", f.begun, c.most)
				}
				if limit := (c.most+1)*len(line) + 64<<10; in.taken > limit {
					t.Errorf("%d bytes were read, want at most %d", in.taken, limit)
				}
				f.mu.Unlock()
				// With long answers none is begun while they are not taken.
				if c.answer > 0 {
					was := f.begun
					io.CopyN(io.Discard, outr, 10)
					synctest.Wait()
					if f.begun != was {
						t.Errorf("%d calls were begun, then %d, while no answer was taken", was, f.begun)
					}
				}
				cancel()
				outr.Close()
				if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, io.ErrClosedPipe) {
					t.Error(err)
				}
			})
		})
	}
}

// Ctrl-C ends it though no input comes, when what is under way has ended; no
// further call begins.
func TestCallsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inr, inw := io.Pipe()
		defer inw.Close()
		var out bytes.Buffer
		f := &fakeBus{took: func(l *callLine) (time.Duration, error) { return time.Hour, nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var ended bool
		go func() {
			done <- answerCalls(ctx, inr, &out, maxHeld, func(ctx context.Context, l *callLine) ([]byte, error) {
				f.do(ctx, l)
				time.Sleep(time.Minute) // the outcome is on its way to the log
				ended = true
				return nil, ctx.Err()
			})
		}()
		go io.WriteString(inw, fmt.Sprintf(changeLineOf, 1)+fmt.Sprintf(readLineOf, 2))
		time.Sleep(time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("err %v", err)
		}
		if !ended || f.begun != 1 || out.Len() != 0 {
			t.Errorf("ended %v, %d calls begun, output %q", ended, f.begun, out.String())
		}
		inr.Close()
	})
}

// A lost bus ends it, after the answers that came before; none is made up for
// the calls behind.
func TestCallsLostBus(t *testing.T) {
	inr, inw := io.Pipe()
	defer inw.Close()
	var out bytes.Buffer
	f := &fakeBus{took: func(l *callLine) (time.Duration, error) {
		if l.Path == "/2" {
			return 20 * time.Millisecond, bus.ErrClosed
		}
		return 0, nil
	}}
	go fmt.Fprintf(inw, readLineOf+readLineOf+readLineOf, 1, 2, 3)
	if err := answerCalls(t.Context(), inr, &out, maxHeld, f.do); !errors.Is(err, bus.ErrClosed) {
		t.Fatal(err)
	}
	if out.String() != "/1\n" {
		t.Errorf("output %q", out.String())
	}
}

// Nobody at the other end of the pipe any more is an error, not a hang.
func TestCallsNobodyReads(t *testing.T) {
	outr, outw := io.Pipe()
	outr.Close()
	f := &fakeBus{took: func(*callLine) (time.Duration, error) { return 0, nil }}
	if err := answerCalls(t.Context(), &endless{line: []byte(fmt.Sprintf(readLineOf, 1))}, outw, maxHeld, f.do); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
}
