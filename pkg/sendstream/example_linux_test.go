package sendstream_test

import (
	"fmt"
	"log"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A stream can be replayed on any file system.
func ExampleDir() {
	root, err := os.MkdirTemp("", "replay")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(root)
	d := &sendstream.Dir{
		Begin: func(c sendstream.Command) (string, error) {
			if _, ok := c.(*sendstream.Subvol); !ok {
				return "", fmt.Errorf("only full streams can begin here")
			}
			return root, nil
		},
	}
	defer d.Close()
	if err := sendstream.Replay(d, sendstream.NewReader(sample(), sendstream.Options{})); err != nil {
		log.Fatal(err)
	}
	b, err := os.ReadFile(root + "/log")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", b)
	// Output:
	// first line
}
