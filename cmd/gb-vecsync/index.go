package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/enrich"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func indexFlag() cli.Flag {
	return &cli.StringFlag{Name: "index", EnvVars: []string{"GB_INDEX"}, Value: names.IndexFile, Usage: "the index's `FILE`, or qdrant://HOST[:PORT] (gRPC), qdrants:// for TLS"}
}

// qdrantFlags are those for an index in Qdrant.
func qdrantFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state", EnvVars: []string{"GB_STATE"}, Value: names.QdrantStateFile, Usage: "with Qdrant: `FILE` of this log's own index, from which Qdrant's is made"},
		&cli.StringFlag{Name: "tenant", EnvVars: []string{"GB_TENANT"}, Usage: "with Qdrant: `NAME` of the log (default: the host's for writing, all logs for searching)"},
		&cli.StringFlag{Name: "qdrant-key-file", EnvVars: []string{"GB_QDRANT_KEY_FILE"}, Usage: "`FILE` with the API key (default: $CREDENTIALS_DIRECTORY/" + qdrantKey + ", if it is there)"},
		&cli.StringFlag{Name: "qdrant-ca", EnvVars: []string{"GB_QDRANT_CA"}, Usage: "`FILE` with the certificates that sign the server's (PEM; default: the system's)"},
		&cli.DurationFlag{Name: "qdrant-patience", EnvVars: []string{"GB_QDRANT_PATIENCE"}, Value: qdrant.DefaultPatience, Usage: "try again for this `TIME` while it does not answer, a question for 5 s at most"},
		&cli.BoolFlag{Name: "qdrant-plaintext", EnvVars: []string{"GB_QDRANT_PLAINTEXT"}, Usage: "without TLS to another machine all the same"},
	}
}

// placementFlags are for a collection that is to be made.
func placementFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "shards", EnvVars: []string{"GB_QDRANT_SHARDS"}, Usage: "a new collection has `N` shards (default: the server's own choice)"},
		&cli.IntFlag{Name: "replicas", EnvVars: []string{"GB_QDRANT_REPLICAS"}, Usage: "each of which is on `N` nodes"},
	}
}

const qdrantKey = "qdrant-key" // in $CREDENTIALS_DIRECTORY

// A target is the index that the flags name.
type target struct {
	path   string          // of the file: the index itself, or the state of one in Qdrant
	remote *qdrant.Options // nil for a file
	tenant string          // that the flags name, "" for none
}

func indexTarget(c *cli.Context) (*target, error) {
	name := c.String("index")
	if !strings.HasPrefix(name, "qdrant://") && !strings.HasPrefix(name, "qdrants://") {
		for flag, env := range map[string]string{"tenant": "GB_TENANT", "qdrant-key-file": "GB_QDRANT_KEY_FILE", "qdrant-ca": "GB_QDRANT_CA", "shards": "GB_QDRANT_SHARDS", "replicas": "GB_QDRANT_REPLICAS"} {
			if c.IsSet(flag) && os.Getenv(env) == "" {
				return nil, cli.Usagef("--%s is for an index in Qdrant, %s is a file", flag, name)
			}
		}
		return &target{path: name}, nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, cli.WithHint(cli.Usagef("index %s: want qdrant://HOST[:PORT] or qdrants://HOST[:PORT]", name), "a key comes from --qdrant-key-file, the port is that of gRPC")
	}
	o := &qdrant.Options{Host: u.Hostname(), Port: names.QdrantGRPCPort, TLS: u.Scheme == "qdrants", Alias: names.QdrantAlias, Patience: c.Duration("qdrant-patience")}
	if o.Patience <= 0 {
		return nil, cli.Usagef("--qdrant-patience %s: want more than nothing", o.Patience)
	}
	if p := u.Port(); p != "" {
		if o.Port, err = strconv.Atoi(p); err != nil || o.Port < 1 || o.Port > 65535 {
			return nil, cli.Usagef("index %s: port %s", name, p)
		}
	}
	if !o.TLS && !c.Bool("qdrant-plaintext") && !loopback(o.Host) {
		return nil, cli.WithHint(cli.Usagef("index %s: what the log says would go to another machine in the clear", name), "qdrants://"+u.Host+" asks for TLS; --qdrant-plaintext goes without")
	}
	if o.Key, err = qdrantKeyOf(c.String("qdrant-key-file")); err != nil {
		return nil, err
	}
	if file := c.String("qdrant-ca"); file != "" {
		if o.CA, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("qdrant's certificates: %w", err)
		}
	}
	return &target{path: c.String("state"), remote: o, tenant: c.String("tenant")}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func qdrantKeyOf(file string) (string, error) {
	if file == "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", nil
		}
		file = filepath.Join(dir, qdrantKey)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("qdrant's key: %w", err)
	}
	return strings.TrimSpace(string(key)), nil
}

// name is how messages call the index.
func (t *target) name() string {
	if t.remote == nil {
		return t.path
	}
	return "qdrant " + t.remote.Address()
}

// owner is the tenant that this host writes.
func (t *target) owner() (string, error) {
	if t.tenant != "" {
		return t.tenant, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("tenant: %w", err)
	}
	return host, nil
}

// openForWriting opens the index file at path for changes, and makes it if it is
// not there. All that write make the same points of the same events. If the
// target is in Qdrant, what the file gets goes there, too; what goes to a file
// that is not the target's yet is not to be seen yet.
func openForWriting(c *cli.Context, path string) (*local.DB, error) {
	e, err := embedder(c)
	if err != nil {
		return nil, err
	}
	t, err := indexTarget(c)
	if err != nil {
		return nil, err
	}
	texts := enrich.Load(enrich.CatalogFile)
	o := local.Options{Embedder: documents{e}, Enrich: texts.Event, Redact: redact.Text, Unembedded: func(err error) {
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: no vectors for now, words find the events: %s\n", cli.Printable(err.Error()))
	}}
	if t.remote != nil {
		client, err := qdrant.Dial(*t.remote)
		if err != nil {
			return nil, err
		}
		owner, err := t.owner()
		if err != nil {
			return nil, err
		}
		if c.Int("shards") < 0 || c.Int("replicas") < 0 || c.Int("shards") > 1024 || c.Int("replicas") > 64 {
			return nil, cli.Usagef("--shards %d --replicas %d: want at most 1024 and 64", c.Int("shards"), c.Int("replicas"))
		}
		w, err := qdrant.NewWriter(client, qdrant.WriterOptions{Tenant: owner, Embedder: e.ID(), Dim: e.Dim(), Shards: c.Int("shards"), Replicas: c.Int("replicas"),
			Hold: path != t.path, Note: func(s string) { fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: %s\n", cli.Printable(s)) }})
		if err != nil {
			return nil, cli.Usagef("%w", err)
		}
		o.Mirror = w
		o.Unmirrored = func(err error) error {
			var renamed *qdrant.RenamedError
			var taken *qdrant.TakenError
			var other *qdrant.OtherLogError
			if errors.As(err, &renamed) || errors.As(err, &taken) || errors.As(err, &other) {
				return err // the wrong state or tenant is named
			}
			fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: kept here alone for now: %s\n", cli.Printable(err.Error()))
			return nil
		}
		o.State = func(ix interface {
			Get(key string) ([]byte, error)
		}) ([]byte, string, error) {
			st, err := state(ix)
			if err != nil {
				return nil, "", err
			}
			data, err := json.Marshal(st)
			if err != nil {
				return nil, "", err
			}
			log, err := vecsync.LogKey(ix)
			return data, log, err
		}
		var watchdog systemd.Watchdog
		o.Progress = func(done, of int) {
			watchdog.Alive()
			if cli.IsTerminal(c.App.ErrWriter) {
				fmt.Fprintf(c.App.ErrWriter, "\rgb-vecsync: %d of %d records in %s\x1b[K", done, of, t.name())
				if done == of {
					fmt.Fprint(c.App.ErrWriter, "\r\x1b[K")
				}
			}
		}
	}
	return local.Open(path, o)
}

// openRemote opens the index in Qdrant for searching, of the tenant that the
// flags name, or of all.
func openRemote(ctx context.Context, client *qdrant.Client, tenant string) (index.Reader, search.State, error) {
	r, err := qdrant.OpenReader(ctx, client, tenant)
	if err != nil {
		return nil, search.State{}, err
	}
	states := r.States()
	all := search.State{Logs: make(map[string]search.State, len(states))}
	for name, data := range states {
		var st search.State
		if len(data) > 0 {
			if err := json.Unmarshal(data, &st); err != nil {
				return nil, all, fmt.Errorf("qdrant: state of %q: %w", name, err)
			}
		}
		if len(states) == 1 {
			return r, st, nil
		}
		all.Logs[name] = st
	}
	return r, all, nil
}

// lockIndex makes this process the only one that changes the index at path.
func lockIndex(path string) (*durable.Lock, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	f.Close()
	lock, err := durable.TryLock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, &busyError{fmt.Errorf("index %s: %w", path, err)}
	}
	return lock, err
}

type busyError struct{ error }

func (e *busyError) Unwrap() error { return e.error }
func (e *busyError) ExitCode() int { return cli.ExitTryAgain }
func (e *busyError) Hint() string {
	return "another gb-vecsync changes this index; try again when it is done"
}

// state says how far the index has verified the log.
func state(db interface {
	Get(key string) ([]byte, error)
}) (search.State, error) {
	cursor, err := vecsync.ReadCursor(db)
	if err != nil {
		return search.State{}, err
	}
	finding, err := vecsync.Standing(db)
	if err != nil {
		return search.State{}, err
	}
	var s search.State
	switch {
	case finding != nil:
		s.Finding = finding.Error()
	case cursor != nil:
		s.Verified = &search.Verified{TreeSize: cursor.TreeSize, Root: cursor.Root.String()}
	}
	return s, nil
}
