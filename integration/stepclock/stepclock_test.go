//go:build linux && amd64

package stepclock_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/stepclock"
)

func TestMain(m *testing.M) {
	if os.Getenv("STEPCLOCK_TEST") == "child" {
		// For each line: the wall clock, and how much time has passed by the
		// monotonic one.
		start := time.Now()
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			fmt.Println(time.Now().UnixNano(), time.Since(start).Nanoseconds())
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A Go program's clock jumps where it is told to, another's on another clock
// does not, timers and the monotonic clock go on, and the machine's is as it was.
func TestStep(t *testing.T) {
	type child struct {
		clock *stepclock.Clock
		ask   func() (wall time.Time, passed time.Duration)
	}
	start := func(c *stepclock.Clock) child {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STEPCLOCK_TEST=child")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			c.Done(cmd)
		})
		s := bufio.NewScanner(out)
		return child{c, func() (time.Time, time.Duration) {
			t.Helper()
			fmt.Fprintln(in)
			if !s.Scan() {
				t.Fatal("the child has ended")
			}
			a, b, _ := strings.Cut(s.Text(), " ")
			wall, err := strconv.ParseInt(a, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			passed, err := strconv.ParseInt(b, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return time.Unix(0, wall), time.Duration(passed)
		}}
	}
	shows := func(c child, want time.Duration) {
		t.Helper()
		before := time.Now()
		wall, passed := c.ask()
		after := time.Now()
		if wall.Before(before.Add(want)) || wall.After(after.Add(want)) {
			t.Errorf("the clock shows %v, want between %v and %v", wall, before.Add(want), after.Add(want))
		}
		if passed < 0 || passed > time.Minute {
			t.Errorf("%v have passed", passed)
		}
		if off := c.clock.Now().Sub(after) - want; off < -time.Second || off > time.Second {
			t.Errorf("Now is %v off", off)
		}
	}
	stepped, other := stepclock.New(), stepclock.New()
	a, b := start(stepped), start(other)
	shows(a, 0)
	shows(b, 0)
	offset := time.Duration(0)
	for _, d := range []time.Duration{time.Hour, -26 * time.Hour, 400 * 24 * time.Hour, -time.Second} {
		if err := stepped.Step(d); err != nil {
			t.Fatal(err)
		}
		offset += d
		shows(a, offset)
		shows(b, 0)
		shows(start(stepped), offset)
	}
}

// A program that is not there is said to be so.
func TestNoProgram(t *testing.T) {
	if err := stepclock.New().Start(exec.Command("/nonexistent/program")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
