package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A Witness is somebody on another host who remembers how far they have seen a
// log, cosigns each checkpoint that continues it, and refuses one that does
// not (c2sp.org/tlog-witness).
type Witness struct {
	URL string         `json:"url"` // submission prefix: /add-checkpoint is below it
	Key merkle.Witness `json:"vkey"`
}

// A WitnessState is what is known of where a witness stands.
type WitnessState struct {
	Witness
	Size     int64     `json:"tree_size"`         // the largest checkpoint that it cosigned, 0 for none
	Cosigned time.Time `json:"cosigned,omitzero"` // when, as it says
	Note     string    `json:"note,omitempty"`    // that checkpoint with its cosignature
	Error    string    `json:"error,omitempty"`   // why the last attempt failed
	Tried    time.Time `json:"tried,omitzero"`    // when that was
	Refused  bool      `json:"refused,omitempty"` // it says that the log contradicts what it has seen
}

// What is in the directory of a log's witnesses. It is apart from the log and
// from its keys: who offers checkpoints needs a network, and to read the log,
// and nothing else.
const (
	witnessesFile = "witnesses" // a Witness a line
	witnessStates = "state"     // a directory of a WitnessState each
	cosignedFile  = "cosigned"  // the latest checkpoint that was cosigned, with all its cosignatures
)

// Witnesses offers a log's checkpoints to its witnesses. A witness that does
// not answer delays nobody: each has its own pace, and what a slow one has
// missed it never needs, since the next checkpoint covers it.
type Witnesses struct {
	Logger *slog.Logger
	Client *http.Client // with its timeout; nil for one of 10 s

	dir  string // of its own
	fsys fs.FS  // the log directory

	mu   sync.Mutex // covers tree and the file cosigned
	tree treeCache
}

// OpenWitnesses returns the witnesses, kept below dir, of the log in fsys,
// which has the given log key.
func OpenWitnesses(fsys fs.FS, dir string, key merkle.Verifier) *Witnesses {
	return &Witnesses{dir: filepath.Join(dir, KeysID(key)), fsys: fsys, tree: treeCache{fsys: fsys},
		Logger: slog.New(slog.DiscardHandler)}
}

// List returns the witnesses and where each stands.
func (w *Witnesses) List() ([]WitnessState, error) {
	data, err := os.ReadFile(filepath.Join(w.dir, witnessesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, witnessError(err)
	}
	var list []WitnessState
	dec := json.NewDecoder(bytes.NewReader(data))
	for dec.More() {
		var x Witness
		if err := dec.Decode(&x); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(w.dir, witnessesFile), err)
		}
		list = append(list, w.state(x))
	}
	return list, nil
}

// Add makes x a witness of the log. A URL that is none, and a witness that has
// its URL or key already, are errors of usage, exit code 2.
func (w *Witnesses) Add(x Witness) error {
	u, err := url.Parse(x.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return &configError{fmt.Errorf("witness: %.200q is not the URL of a witness", x.URL), "its submission prefix, such as https://witness.example/"}
	}
	x.URL = strings.TrimSuffix(x.URL, "/")
	return w.change(func(list []Witness) ([]Witness, error) {
		for _, have := range list {
			if have.URL == x.URL || have.Key.String() == x.Key.String() {
				return nil, &configError{fmt.Errorf("witness %s at %s is there already", have.Key.Name(), have.URL), ""}
			}
		}
		return append(list, x), nil
	})
}

// Remove takes away the witness with a URL or name; that there is none is an
// error of usage, exit code 2.
func (w *Witnesses) Remove(which string) error {
	return w.change(func(list []Witness) ([]Witness, error) {
		left := slices.DeleteFunc(slices.Clone(list), func(x Witness) bool {
			return x.URL == strings.TrimSuffix(which, "/") || x.Key.Name() == which
		})
		if len(left) == len(list) {
			return nil, &configError{fmt.Errorf("there is no witness %.200q", which), "gb-chain witness ls"}
		}
		return left, nil
	})
}

func (w *Witnesses) change(edit func([]Witness) ([]Witness, error)) error {
	if err := makeDir(w.dir); err != nil {
		return witnessError(err)
	}
	lock, err := durable.TryLock(w.dir)
	if errors.Is(err, durable.ErrLocked) {
		return &busyError{err, "somebody else changes the witnesses"}
	}
	if err != nil {
		return witnessError(err)
	}
	defer lock.Unlock()
	states, err := w.List()
	if err != nil {
		return err
	}
	list := make([]Witness, len(states))
	for i, s := range states {
		list[i] = s.Witness
	}
	if list, err = edit(list); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, x := range list {
		line, err := json.Marshal(x)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	return durable.Replace(filepath.Join(w.dir, witnessesFile), b.Bytes(), 0o644)
}

// makeDir makes a directory. One that root makes belongs to whom the directory
// above belongs: the user who offers checkpoints writes into what root has
// made by adding a witness.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(parent)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return os.Lchown(dir, int(owner.Uid), int(owner.Gid))
}

func witnessError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &configError{fmt.Errorf("witnesses: %w", err), "run as root, or name a directory of your own with --witnesses or GB_WITNESSES"}
	}
	return fmt.Errorf("witnesses: %w", err)
}

func (w *Witnesses) stateFile(x Witness) string {
	sum := sha256.Sum256([]byte(x.Key.String()))
	return filepath.Join(w.dir, witnessStates, hex.EncodeToString(sum[:8]))
}

func (w *Witnesses) state(x Witness) WitnessState {
	s := WitnessState{}
	if data, err := os.ReadFile(w.stateFile(x)); err == nil && json.Unmarshal(data, &s) != nil {
		s = WitnessState{} // a power cut; the witness knows
	}
	s.Witness = x
	return s
}

// save keeps a state, without a sync: what it says too little of the witness
// says again.
func (w *Witnesses) save(s WitnessState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file := w.stateFile(s.Witness)
	if err := makeDir(filepath.Dir(file)); err != nil {
		return err
	}
	if err := os.WriteFile(file+".tmp", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}

// Run offers the latest checkpoint to every witness each time that wake says
// that there is one, until ctx ends. Witnesses may be added and removed
// meanwhile.
func (w *Witnesses) Run(ctx context.Context, wake <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	pokes := make(map[string]chan struct{})
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		list, err := w.List()
		if err != nil {
			w.Logger.Error("witnesses", "error", err)
			continue
		}
		now := make(map[string]bool)
		for _, s := range list {
			id := s.URL + " " + s.Key.String()
			now[id] = true
			if pokes[id] == nil {
				poke := make(chan struct{}, 1)
				pokes[id] = poke
				wg.Go(func() { w.accompany(ctx, s.Witness, poke) })
			}
			select {
			case pokes[id] <- struct{}{}:
			default:
			}
		}
		for id, poke := range pokes {
			if !now[id] {
				close(poke)
				delete(pokes, id)
			}
		}
	}
}

// accompany offers checkpoints to one witness. After an error it waits, longer
// from time to time.
func (w *Witnesses) accompany(ctx context.Context, x Witness, poke <-chan struct{}) {
	const longest = time.Minute
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-poke:
			if !ok {
				return
			}
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		before := pause
		err := w.Offer(ctx, x)
		switch {
		case err == nil && before > 0:
			w.Logger.Info("witness answers again", "witness", x.Key.Name())
			pause = 0
		case err == nil:
		case ctx.Err() != nil:
			return
		default:
			if before == 0 {
				w.Logger.Error("witness", "witness", x.Key.Name(), "url", x.URL, "error", err)
			}
			pause = min(max(2*before, time.Second), longest)
		}
	}
}

// OfferAll offers the latest checkpoint to every witness once.
func (w *Witnesses) OfferAll(ctx context.Context) error {
	list, err := w.List()
	if err != nil {
		return err
	}
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() {
			if err := w.Offer(ctx, s.Witness); err != nil {
				errs[i] = fmt.Errorf("witness %s: %w", s.Key.Name(), err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// A contradictionError says that a witness has seen another log, or more of
// this one: exit code 3.
type contradictionError struct{ err error }

func (e *contradictionError) Error() string { return e.err.Error() }
func (e *contradictionError) ExitCode() int { return 3 }
func (e *contradictionError) Hint() string {
	return "gb-chain verify looks into it; nothing more is cosigned before it is cleared up"
}

// Offer offers the latest checkpoint to x and stores the cosignature.
// What became of it, an error too, is kept for List; it is no error if x has
// this checkpoint already.
func (w *Witnesses) Offer(ctx context.Context, x Witness) error {
	s := w.state(x)
	err := w.offer(ctx, &s)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.Error, s.Tried = "", time.Now()
	if err != nil {
		s.Error = err.Error()
	}
	var contradiction *contradictionError
	s.Refused = errors.As(err, &contradiction)
	return errors.Join(err, w.save(s))
}

func (w *Witnesses) offer(ctx context.Context, s *WitnessState) error {
	for attempt := 0; ; attempt++ {
		note, c, proof, err := w.proof(s.Size)
		if err != nil {
			return err
		}
		if c.Size == s.Size && s.Note != "" {
			return nil
		}
		var body bytes.Buffer
		fmt.Fprintf(&body, "old %d\n", s.Size)
		for _, h := range proof {
			fmt.Fprintln(&body, h)
		}
		body.WriteByte('\n')
		body.Write(note)
		status, answer, err := w.post(ctx, s.URL+"/add-checkpoint", body.Bytes())
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(answer[:min(len(answer), 200)]))
		switch status {
		case http.StatusOK:
			line, at, err := s.Key.Cosignature(note, answer)
			if err != nil {
				return err
			}
			s.Size, s.Cosigned, s.Note = c.Size, at.UTC(), string(note)+string(line)
			return w.publish(c, note, line)
		case http.StatusConflict:
			size, err := strconv.ParseInt(text, 10, 64)
			if err != nil || size < 0 {
				return fmt.Errorf("it refuses with a conflict and says %q", text)
			}
			if size > c.Size {
				s.Size = max(s.Size, size)
				return &contradictionError{fmt.Errorf("it has seen %d events, the log has %d: the log was put back to an earlier state", size, c.Size)}
			}
			if size == s.Size || attempt > 1 {
				return fmt.Errorf("it says that it stands at %d and refuses to go on from there", size)
			}
			s.Size, s.Note = size, "" // it stands elsewhere than was known here
		case http.StatusUnprocessableEntity:
			return &contradictionError{fmt.Errorf("it has seen another log than this one, at %d events: %s", s.Size, text)}
		case http.StatusForbidden:
			return fmt.Errorf("it does not know the log's key: %s", text)
		case http.StatusNotFound:
			return fmt.Errorf("it does not know the log %s: %s", c.Origin, text)
		default:
			return fmt.Errorf("it answers with status %d: %s", status, text)
		}
	}
}

// proof returns the latest checkpoint, and the proof that it continues the
// first old events.
func (w *Witnesses) proof(old int64) (note []byte, c merkle.Checkpoint, proof []merkle.Hash, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, err := w.tree.latest()
	if err != nil {
		return nil, c, nil, err
	}
	c = t.Checkpoint
	if old > c.Size {
		return nil, c, nil, &contradictionError{fmt.Errorf("it has cosigned %d events, the log has %d: the log was put back to an earlier state", old, c.Size)}
	}
	proof, err = merkle.ProveConsistency(c.Size, old, t.Node)
	return t.Note, c, proof, err
}

const maxAnswer = 64 << 10

func (w *Witnesses) post(ctx context.Context, url string, body []byte) (status int, answer []byte, err error) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	client := w.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}

// Cosigned returns the latest checkpoint that was cosigned, with the
// cosignatures of all witnesses that had it; nil if there is none.
func (w *Witnesses) Cosigned() ([]byte, error) {
	note, err := os.ReadFile(filepath.Join(w.dir, cosignedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return note, err
}

// publish keeps the cosigned checkpoint, with the cosignatures that others have
// made of the same.
func (w *Witnesses) publish(c merkle.Checkpoint, note, line []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	have, err := w.Cosigned()
	if err != nil {
		return err
	}
	if bytes.HasPrefix(have, note) && !bytes.Contains(have[len(note):], line) {
		note = have
	} else if old, err := merkle.ParseNote(have); err == nil && old.Size > c.Size {
		return nil
	}
	return durable.Replace(filepath.Join(w.dir, cosignedFile), append(bytes.Clone(note), line...), 0o644)
}
