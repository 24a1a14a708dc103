package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// A tool that is told to end dies of the signal if that left its work undone,
// and only then.
func TestTerminatedToolDiesOfTheSignal(t *testing.T) {
	if how := os.Getenv("GB_TEST_TERMINATED"); how != "" {
		Main(&App{Name: "gb-x", Commands: []*Command{{Name: "wait", Action: func(c *Context) error {
			fmt.Println("ready")
			<-c.Context.Done()
			switch how {
			case "undone":
				return fmt.Errorf("wait: %w", context.Cause(c.Context))
			case "failed":
				return errors.New("wait: broken")
			}
			return nil
		}}}})
	}
	for how, want := range map[string]string{"undone": "signal: terminated", "failed": "exit status 1", "done": ""} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			cmd := exec.Command(os.Args[0], "wait")
			cmd.Env = append(os.Environ(), "GB_TEST_TERMINATED="+how)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			out.Read(make([]byte, 6))
			cmd.Process.Signal(sig)
			got := ""
			if err := cmd.Wait(); err != nil {
				got = err.Error()
			}
			if sig == syscall.SIGINT && how == "undone" {
				want = "exit status 1"
			}
			if got != want {
				t.Errorf("%s, %v: %q, want %q", how, sig, got, want)
			}
		}
	}
}
