package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/qdrant/go-client/qdrant"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ghostbridge/ghostbridge/integration/script"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gb-vecsync": main})
}

// TestScripts runs sessions of the real binary. Besides testscript's own, the
// commands are those below.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			s := &session{History: vecsynctest.New(t, 1), t: t, snapshots: make(map[string]*vecsynctest.Step)}
			env.Values[sessionKey{}] = s
			env.Setenv("GB_LOG", s.Dir)
			env.Setenv("GB_INDEX", filepath.Join(env.WorkDir, "I"))
			env.Setenv("GB_CURSOR", filepath.Join(env.WorkDir, "C"))
			env.Setenv("GB_CHAIN_SOCKET", "")
			env.Setenv("TZ", "UTC")
			model, err := filepath.Abs("../../pkg/embed/testdata/model2vec")
			if err != nil {
				return err
			}
			env.Setenv("MODEL", model)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"log":  history,
			"code": script.Code,
			"cut":  cut,
			"flip": flip,
			"lock": lock,
			"sql":  exec,

			"qdrant": qdrantServer,
		},
	})
}

type sessionKey struct{}

// A session is a log with its snapshots by name.
type session struct {
	*vecsynctest.History
	t         *testing.T
	qdrant    *qdranttest.Server // nil: not started yet
	snapshots map[string]*vecsynctest.Step
}

// history does something to the session's log:
//
//	log append N            append N events and sign them
//	log snapshot NAME       take a snapshot
//	log send FROM TO FILE   write the stream between two, in full from none
//	log forge I             change event I of segment 0, with its checksum
//	log cut FILE N          cut a file of the log to N bytes
//	log remove FILE         remove one
func history(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(sessionKey{}).(*session)
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "append":
		s.Append(number(args[1]), 30)
		s.Checkpoint()
	case "snapshot":
		s.snapshots[args[1]] = s.Snapshot()
	case "send":
		to := s.snapshots[args[2]]
		if to == nil {
			ts.Fatalf("no snapshot %s", args[2])
		}
		stream := vecsynctest.Stream(s.snapshots[args[1]], to, vecsynctest.Form{Version: 2})
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), stream, 0o644))
	case "forge":
		path := filepath.Join(s.Dir, "000000.jsonl")
		data, err := os.ReadFile(path)
		ts.Check(err)
		lines := bytes.SplitAfter(data, []byte("\n"))
		line := lines[number(args[1])]
		line[bytes.Index(line, []byte("event number"))] = 'E'
		sum := bytes.LastIndex(line, []byte(`,"c":"`))
		copy(line[sum+6:], fmt.Sprintf("%08x", crc32.Checksum(line[:sum], crc32.MakeTable(crc32.Castagnoli))))
		ts.Check(os.WriteFile(path, bytes.Join(lines, nil), 0o644))
	case "cut":
		ts.Check(os.Truncate(filepath.Join(s.Dir, args[1]), int64(number(args[2]))))
	case "remove":
		s.Remove(args[1])
	default:
		ts.Fatalf("log %s?", args[0])
	}
}

// qdrantServer is a server made of the client's stubs, at $QDRANT:
//
//	qdrant start        start it, with what it held when it was stopped
//	qdrant stop         stop it
//	qdrant refuse KIND  it refuses points of a kind; none without
//	qdrant key KEY      it asks for an API key
//	qdrant drop         somebody deletes the collection
//	qdrant has KIND N   it holds N points of a kind
func qdrantServer(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(sessionKey{}).(*session)
	switch args[0] {
	case "start":
		if s.qdrant == nil {
			s.qdrant = qdranttest.New(s.t)
			ts.Setenv("QDRANT", s.qdrant.Address())
			ts.Defer(s.qdrant.Stop)
		} else {
			s.qdrant.Listen(s.t, s.qdrant.Address())
		}
	case "stop":
		s.qdrant.Stop()
	case "refuse":
		s.qdrant.Fail(func(_ context.Context, method string, r any) error {
			u, ok := r.(*qdrant.UpsertPoints)
			if ok && len(args) > 1 && slices.ContainsFunc(u.Points, func(p *qdrant.PointStruct) bool { return p.Payload["kind"].GetStringValue() == args[1] }) {
				return status.Error(codes.InvalidArgument, "Wrong input: no "+args[1]+" here")
			}
			return nil
		}, nil)
	case "key":
		s.qdrant.Key = args[1]
	case "drop":
		s.qdrant.Drop(s.qdrant.Aliased("blockchain_events"))
	case "has":
		if have := s.qdrant.Points("blockchain_events", args[1]); fmt.Sprint(have) != args[2] {
			ts.Fatalf("%d points of kind %s", have, args[1])
		}
	default:
		ts.Fatalf("qdrant %s?", args[0])
	}
}

// cut FILE N TO: TO is FILE without its last N bytes.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data[:len(data)-n], 0o644))
}

// flip FILE TEXT TO [mended]: TO is FILE with a bit of TEXT changed, and with
// the stream's checksums made right for it.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at := bytes.Index(data, []byte(args[1]))
	if at < 0 {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	data[at] ^= 1
	if len(args) > 3 {
		data = streamtest.Mend(data)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), data, 0o644))
}

// exec FILE SQL: what another version of gb-vecsync has done to an index.
func exec(ts *testscript.TestScript, neg bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}

// lock FILE COMMAND ARGS...: the command meets a locked FILE, and ends with 75.
func lock(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_RDWR, 0o644)
	ts.Check(err)
	f.Close()
	l, err := durable.TryLock(ts.MkAbs(args[0]))
	for tries := 0; errors.Is(err, durable.ErrLocked) && tries < 1000; tries++ {
		// A process that another script has just forked can still have it.
		time.Sleep(time.Millisecond)
		l, err = durable.TryLock(ts.MkAbs(args[0]))
	}
	ts.Check(err)
	defer l.Unlock()
	script.Code(ts, neg, append([]string{"75"}, args[1:]...))
}

func TestDefaultCursor(t *testing.T) {
	for index, want := range map[string]string{
		"I":                   "I.cursor",
		names.IndexFile:       names.CursorFile,
		names.QdrantStateFile: names.CursorFile,
	} {
		if got := defaultCursor(index); got != want {
			t.Errorf("%s: %s, want %s", index, got, want)
		}
	}
}
