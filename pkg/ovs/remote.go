package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A request is what a process without rights over the network asks of one with
// them: one JSON object on a Unix stream, answered by one. The socket is
// root's; who may connect may do all of it.
type request struct {
	Do     string          `json:"do"` // survey, status, apply, confirm, undo
	Config json.RawMessage `json:"config,omitempty"`
	// Of an apply, in nanoseconds.
	ConfirmTimeout time.Duration `json:"confirm_timeout,omitempty"`
	ProbeTime      time.Duration `json:"probe_time,omitempty"`
	ID             string        `json:"id,omitempty"`     // of confirm
	Point          *Checkpoint   `json:"point,omitempty"`  // of undo
	Before         *Confirmed    `json:"before,omitempty"` // of undo
}

type answer struct {
	Plan    *Plan    `json:"plan,omitempty"`
	Status  *Status  `json:"status,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	ID      string   `json:"id,omitempty"`
	Error   *Failure `json:"error,omitempty"`
}

// A Failure is an error of another process.
type Failure struct {
	Text    string `json:"text"`
	Advice  string `json:"hint,omitempty"`
	Code    int    `json:"code,omitempty"`
	Nothing bool   `json:"nothing_pending,omitempty"` // ErrNothingPending
}

func (e *Failure) Error() string { return e.Text }

// Hint says what to do.
func (e *Failure) Hint() string { return e.Advice }

// ExitCode is that of the other process.
func (e *Failure) ExitCode() int { return e.Code }

// Is makes a Failure ErrNothingPending if the other process's was.
func (e *Failure) Is(target error) bool { return e.Nothing && target == ErrNothingPending }

func failureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Text: err.Error(), Code: 1, Nothing: errors.Is(err, ErrNothingPending)}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Advice = hinted.Hint()
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		f.Code = coded.ExitCode()
	}
	return f
}

// maxRequest bounds a request: a checkpoint holds the whole database.
const maxRequest = 256 << 20

// Answer reads one request and answers it. Its error is that of reading or
// writing; what the request came to is in the answer.
func (s *Setup) Answer(ctx context.Context, in io.Reader, out io.Writer) error {
	var q request
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&q); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	a, err := s.answer(ctx, &q)
	if a == nil {
		a = new(answer)
	}
	a.Error = failureOf(err)
	return json.NewEncoder(out).Encode(a)
}

func (s *Setup) answer(ctx context.Context, q *request) (*answer, error) {
	switch q.Do {
	case "survey", "apply":
		c, err := Parse(q.Config)
		if err != nil {
			return nil, err
		}
		if q.Do == "survey" {
			v, err := s.Survey(ctx, c)
			if err != nil {
				return nil, err
			}
			return &answer{Plan: v.Plan}, nil
		}
		out, err := s.Apply(ctx, c, ApplyOptions{ConfirmTimeout: q.ConfirmTimeout, ProbeTime: q.ProbeTime})
		return &answer{Outcome: out}, err
	case "status":
		var c *Config
		if len(q.Config) > 0 {
			var err error
			if c, err = Parse(q.Config); err != nil {
				return nil, err
			}
		}
		return &answer{Status: s.Status(ctx, c)}, nil
	case "confirm":
		id, err := s.Confirm(ctx, q.ID)
		return &answer{ID: id}, err
	case "undo":
		return nil, s.Undo(ctx, q.Point, q.Before)
	}
	return nil, &ConfigError{Reason: fmt.Sprintf("%.64q can't be done", q.Do)}
}

// A Remote is a Setup whose changes, and what needs rights to be read, are done
// by another process, which answers on a socket. What it reads itself, such as
// the database and the store, it needs no rights for but root's files.
type Remote struct {
	*Setup
	Socket string
}

func (r *Remote) ask(ctx context.Context, q request) (*answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", r.Socket)
	if err != nil {
		return nil, fmt.Errorf("the switch's keeper: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return nil, fmt.Errorf("the switch's keeper: %w", err)
	}
	a := new(answer)
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(a); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("the switch's keeper does not answer: %w", err)
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

// Survey is Setup's; of the survey there is only the plan.
func (r *Remote) Survey(ctx context.Context, c *Config) (*Survey, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	a, err := r.ask(ctx, request{Do: "survey", Config: raw})
	if err != nil {
		return nil, err
	}
	if a.Plan == nil {
		return nil, errors.New("the switch's keeper answered without a plan")
	}
	return &Survey{Plan: a.Plan}, nil
}

// Status is Setup's.
func (r *Remote) Status(ctx context.Context, c *Config) *Status {
	q := request{Do: "status"}
	var err error
	if c != nil {
		q.Config, err = json.Marshal(c)
	}
	var a *answer
	if err == nil {
		a, err = r.ask(ctx, q)
	}
	if err == nil && a.Status == nil {
		err = errors.New("the switch's keeper answered without a status")
	}
	if err != nil {
		return &Status{Problems: []string{err.Error()}, Bridges: []BridgeStatus{}, Offload: []Offload{}, Drift: []Change{}}
	}
	return a.Status
}

// Apply is Setup's, but for the apply of a boot.
func (r *Remote) Apply(ctx context.Context, c *Config, o ApplyOptions) (*Outcome, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	a, err := r.ask(ctx, request{Do: "apply", Config: raw, ConfirmTimeout: o.ConfirmTimeout, ProbeTime: o.ProbeTime})
	if err == nil && a.Outcome == nil {
		err = errors.New("the switch's keeper answered without an outcome")
	}
	if a == nil {
		return nil, err
	}
	return a.Outcome, err
}

// Confirm is Setup's.
func (r *Remote) Confirm(ctx context.Context, id string) (string, error) {
	a, err := r.ask(ctx, request{Do: "confirm", ID: id})
	if err != nil {
		return "", err
	}
	return a.ID, nil
}

// Undo is Setup's.
func (r *Remote) Undo(ctx context.Context, point *Checkpoint, before *Confirmed) error {
	_, err := r.ask(ctx, request{Do: "undo", Point: point, Before: before})
	return err
}
