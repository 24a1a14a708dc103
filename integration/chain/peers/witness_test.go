package peers

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A witness is a litewitness process that knows some logs.
type witness struct {
	url, vkey string
}

// startWitness starts litewitness with a new key. Its rows are what witnessctl
// add-tlog-log writes; that program can't be built, see the package comment.
func startWitness(t *testing.T, logs ...*log) *witness {
	t.Helper()
	dir, err := os.MkdirTemp("", "gb-witness-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sock, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	go func() {
		for {
			conn, err := sock.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	db := filepath.Join(dir, "litewitness.db")
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(tools, "litewitness"), "-name=witness.example/w", "-db="+db, "-ssh-agent="+filepath.Join(dir, "agent"), "-key="+ssh.FingerprintSHA256(pub), "-listen="+addr)
	stderr := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = &out, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
		}
	})
	w := &witness{url: "http://" + addr}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if m := regexp.MustCompile(`vkey=(\S+)`).FindStringSubmatch(stderr.String()); m != nil {
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				w.vkey = m[1]
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("litewitness does not start:\n%s", stderr.String())
		}
	}
	conn, err := sqlite.OpenConn(db, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetBlockOnBusy()
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if err := sqlitex.Execute(conn, "INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", &sqlitex.ExecOptions{Args: []any{l.origin, empty.String()}}); err != nil {
			t.Fatal(err)
		}
		if err := sqlitex.Execute(conn, "INSERT INTO key (origin, key) VALUES (?, ?)", &sqlitex.ExecOptions{Args: []any{l.origin, l.vkey}}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// standing is what witness ls --json says.
type standing struct {
	Size    int64  `json:"tree_size"`
	Note    string `json:"note"`
	Error   string `json:"error"`
	Refused bool   `json:"refused"`
}

func (l *log) standing() (s standing) {
	l.t.Helper()
	out, _, _ := l.try("witness", "ls", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		l.t.Fatalf("%q: %v", out, err)
	}
	return s
}

// awaitCosigned waits until the witness has cosigned size events, and checks
// that another implementation thinks so.
func (l *log) awaitCosigned(w *witness, size int64) {
	l.t.Helper()
	var s standing
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s = l.standing(); s.Size >= size && s.Note != "" {
			break
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not cosigned up to %d: %+v", size, s)
		}
	}
	cosigner, err := torchwood.NewCosignatureVerifier(w.vkey)
	if err != nil {
		l.t.Fatal(err)
	}
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		l.t.Fatal(err)
	}
	policy := torchwood.ThresholdPolicy(3, torchwood.OriginPolicy(l.origin), torchwood.SingleVerifierPolicy(v), torchwood.SingleVerifierPolicy(cosigner))
	c, _, err := torchwood.VerifyCheckpoint([]byte(s.Note), policy)
	if err != nil || c.N != s.Size {
		l.t.Fatalf("%v in\n%s", err, s.Note)
	}
}

func TestWitness(t *testing.T) {
	l := newLog(t, "witnessed.example/log")
	w := startWitness(t, l)
	if _, stderr, code := l.try("witness", "add", w.url); code != 2 || !strings.Contains(stderr, "--key") {
		t.Errorf("without a key: %d %s", code, stderr)
	}
	l.chain("witness", "add", w.url, "--key", w.vkey)
	if _, _, code := l.try("witness", "add", w.url, "--key", w.vkey); code != 2 {
		t.Errorf("a second time: %d", code)
	}
	// By who writes the log itself.
	l.append(10)
	l.awaitCosigned(w, 11)
	l.chain("rotate-key")
	l.awaitCosigned(w, 12)
	earlier := l.path("earlier")
	copyDir(t, l.path("log"), earlier)

	// By a daemon.
	sock := l.path("sock")
	serve := l.command("serve", "--socket", sock)
	var log lockedBuffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { serve.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(log.String())
		}
	}
	l.append(20, "--socket", sock)
	l.awaitCosigned(w, 32)
	l.append(300, "--socket", sock)
	l.awaitCosigned(w, 332)

	// Who forgot where the witness stands asks it.
	serve.Process.Signal(syscall.SIGTERM)
	if err := serve.Wait(); err != nil {
		t.Fatalf("serve: %v\n%s", err, log.String())
	}
	os.RemoveAll(l.path("witness"))
	l.chain("witness", "add", w.url, "--key", w.vkey)
	l.append(5)
	l.awaitCosigned(w, 337)
	cosigned := l.chain("witness", "offer")
	if !strings.Contains(cosigned, "witness.example/w ") || !strings.Contains(cosigned, "\n337\n") {
		t.Errorf("offer prints %s", cosigned)
	}
	if out, stderr, code := l.try("verify", "--pin", "/dev/stdin"); code == 0 {
		t.Errorf("an empty pin: %s %s", out, stderr)
	}
	if err := os.WriteFile(l.path("cosigned"), []byte(cosigned), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := l.chain("verify", "--pin", l.path("cosigned"), "--vkey", l.vkey); !strings.Contains(out, "pins agreed with") {
		t.Errorf("verify with the cosigned checkpoint: %s", out)
	}

	// A log that was put back is refused, whatever is known here.
	good := l.path("good")
	if err := os.Rename(l.path("log"), good); err != nil {
		t.Fatal(err)
	}
	copyDir(t, earlier, l.path("log"))
	for _, forgot := range []bool{false, true} {
		if forgot {
			os.RemoveAll(l.path("witness"))
			l.chain("witness", "add", w.url, "--key", w.vkey)
		}
		_, stderr, code := l.try("witness", "offer")
		if code != 3 || !strings.Contains(stderr, "put back to an earlier state") {
			t.Errorf("a rolled-back log (forgot: %v): exit code %d, %s", forgot, code, stderr)
		}
		if s := l.standing(); !s.Refused {
			t.Errorf("a rolled-back log: %+v", s)
		}
	}
	if _, _, code := l.try("witness", "ls"); code != 3 {
		t.Errorf("ls: exit code %d", code)
	}

	// So is one that went on otherwise from there. The keys must forget that
	// they signed more, as an intruder would have them.
	lasts, err := filepath.Glob(l.path("keys/*/last"))
	if err != nil || len(lasts) != 1 {
		t.Fatal(lasts, err)
	}
	os.Remove(lasts[0])
	l.append(400)
	_, stderr, code := l.try("witness", "offer")
	if code != 3 || !strings.Contains(stderr, "another log than this one") {
		t.Errorf("a forked log: exit code %d, %s", code, stderr)
	}
	if s := l.standing(); !s.Refused || s.Size != 337 {
		t.Errorf("a forked log: %+v", s)
	}

	// The true one is taken again.
	os.RemoveAll(l.path("log"))
	if err := os.Rename(good, l.path("log")); err != nil {
		t.Fatal(err)
	}
	os.Remove(lasts[0])
	l.append(1)
	l.awaitCosigned(w, 338)
	l.chain("witness", "rm", "witness.example/w")
	if out := l.chain("witness", "ls"); out != "" {
		t.Errorf("ls: %s", out)
	}
}

// A witness that takes connections and never answers delays no append.
func TestSilentWitnessDelaysNobody(t *testing.T) {
	l := newLog(t, "silent.example/log")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := startWitness(t, l)
	l.chain("witness", "add", w.url, "--key", w.vkey)
	l.chain("witness", "add", "http://"+silent.Addr().String(), "--key", startWitness(t).vkey)
	sock := l.path("sock")
	serve := l.command("serve", "--socket", sock)
	var log lockedBuffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { serve.Process.Kill(); serve.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(log.String())
		}
	}
	// The silent witness is asked for ten seconds; within them many batches
	// are acknowledged, and the other witness cosigns more than one
	// checkpoint.
	begin := time.Now()
	sizes := map[int64]bool{}
	for n := 0; n < 100 && len(sizes) < 3; n++ {
		l.append(3, "--socket", sock)
		out, _, _ := l.try("witness", "ls", "--json")
		var s standing
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&s); err != nil {
			t.Fatal(err)
		}
		if s.Size > 0 {
			sizes[s.Size] = true
		}
		time.Sleep(50 * time.Millisecond)
	}
	if took := time.Since(begin); len(sizes) < 3 {
		t.Errorf("%d sizes cosigned in %s\n%s", len(sizes), took, log.String())
	}
	if out := fmt.Sprint(l.chain("verify", "--json")); !strings.Contains(out, `"ok":true`) {
		t.Error(out)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
