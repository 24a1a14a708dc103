package local_test

import (
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
)

func TestContract(t *testing.T) {
	indextest.Run(t, func(t *testing.T) *indextest.Index {
		path := filepath.Join(t.TempDir(), "index.db")
		w, err := local.Open(path, local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := local.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		return &indextest.Index{W: w, R: r}
	})
}
