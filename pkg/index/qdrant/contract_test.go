package qdrant_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
)

// options are those for a server at host:port.
func options(t testing.TB, address string) qdrant.Options {
	t.Helper()
	host, port, _ := strings.Cut(strings.TrimPrefix(address, "qdrant://"), ":")
	o := qdrant.Options{Host: host, Port: 6334, Alias: "gb-test-" + strings.ToLower(index.NewID(t.Name(), time.Now().String()).String()[:12]), Patience: 10 * time.Second}
	if port != "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		o.Port = n
	}
	return o
}

func dial(t testing.TB, o qdrant.Options) *qdrant.Client {
	t.Helper()
	c, err := qdrant.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// open returns an index that is written to a file with a mirror and read from
// the mirror.
func open(t *testing.T, c *qdrant.Client, tenant string) *indextest.Index {
	t.Helper()
	w, err := qdrant.NewWriter(c, qdrant.WriterOptions{Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	db, err := local.Open(filepath.Join(t.TempDir(), "state.db"), local.Options{Mirror: w})
	if err != nil {
		t.Fatal(err)
	}
	x, err := db.Begin() // so that there is something to open
	if err == nil {
		err = x.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := qdrant.OpenReader(t.Context(), c, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return &indextest.Index{W: db, R: r}
}

func TestContract(t *testing.T) {
	t.Run("stubs", func(t *testing.T) { run(t, dial(t, options(t, qdranttest.New(t).Address()))) })
	if address := os.Getenv("GB_QDRANT"); address != "" {
		t.Run("server", func(t *testing.T) {
			o := options(t, address)
			t.Cleanup(func() { forget(t, o, qdrant.Collection(o.Alias, "", 0)) })
			run(t, dial(t, o))
		})
	}
}

// forget deletes a collection that the test has made.
func forget(t *testing.T, o qdrant.Options, name string) {
	c, err := client.NewClient(&client.Config{Host: o.Host, Port: o.Port, SkipCompatibilityCheck: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if err := c.DeleteCollection(context.Background(), name); err != nil {
		t.Error(err)
	}
}

func run(t *testing.T, c *qdrant.Client) {
	n := 0
	indextest.Run(t, func(t *testing.T) *indextest.Index {
		n++
		return open(t, c, "log"+strconv.Itoa(n))
	})
}
