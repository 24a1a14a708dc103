package ovs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Guard is the rollback that outlives the process that armed it: a timer of
// systemd where that runs, else a process of its own session.
type Guard struct {
	// Argv is the command that rolls back; it gets an ID and, where it is to
	// wait by itself, --after and a duration.
	Argv []string
}

// armedFD is where a waiting process says that it waits.
const armedFD = 3

func underSystemd() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

func unitOf(id string) string { return "gb-ovs-rollback-" + id }

// Arm starts the wait. When it returns without an error, the rollback is sure
// to be tried.
func (g *Guard) Arm(ctx context.Context, id string, after time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if underSystemd() {
		argv := []string{"--quiet", "--collect", "--unit=" + unitOf(id), "--on-active=" + fmt.Sprintf("%dms", after.Milliseconds()),
			"--timer-property=AccuracySec=100ms"}
		if dir := os.Getenv("OVS_RUNDIR"); dir != "" {
			argv = append(argv, "--setenv=OVS_RUNDIR="+dir)
		}
		argv = append(append(append(argv, "--"), g.Argv...), "--after", "0s", id)
		if out, err := exec.CommandContext(ctx, "systemd-run", argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("systemd-run: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(g.Argv[0], append(g.Argv[1:len(g.Argv):len(g.Argv)], "--after", after.String(), id)...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w} // armedFD
	cmd.Env = append(os.Environ(), "GB_OVS_ARMED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	go cmd.Wait() // it is no zombie while this process lives
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Now()) })
	defer stop()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "armed\n" {
		if err == io.EOF {
			err = errors.New("it ended at once")
		}
		return fmt.Errorf("the waiting process: %w", err)
	}
	return nil
}

// Disarm ends the wait. A waiting process also ends by itself when the change
// is no longer pending.
func (g *Guard) Disarm(ctx context.Context, id string) {
	if underSystemd() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		exec.CommandContext(ctx, "systemctl", "stop", unitOf(id)+".timer").Run()
	}
}

// Await is the waiting process's part: it says that it waits, and returns true
// when the time is over, false as soon as the change is no longer pending.
func (s *Setup) Await(ctx context.Context, id string, after time.Duration) (bool, error) {
	if os.Getenv("GB_OVS_ARMED") != "" {
		f := os.NewFile(armedFD, "armed")
		_, err := f.WriteString("armed\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return false, err
		}
	}
	for deadline := time.Now().Add(after); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(min(left, 250*time.Millisecond)):
		}
		if pending, err := s.Store.Pending(); err == nil && pending != id {
			return false, nil
		}
	}
}
