package sendstream_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// stream writes commands to a buffer, in place of a kernel.
func stream(cmds ...sendstream.Command) *bytes.Buffer {
	var b bytes.Buffer
	w := sendstream.NewWriter(&b)
	for _, c := range cmds {
		if err := w.WriteCommand(c); err != nil {
			log.Fatal(err)
		}
	}
	return &b
}

var uuid = sendstream.UUID{0xaa, 0x1b}

func sample() *bytes.Buffer {
	return stream(
		&sendstream.Header{Version: 2},
		&sendstream.Subvol{Path: []byte("events"), UUID: uuid, Ctransid: 7},
		&sendstream.Mkfile{Path: []byte("o257-7-0"), Ino: 257},
		&sendstream.Rename{Path: []byte("o257-7-0"), To: []byte("log")},
		&sendstream.Write{Path: []byte("log"), Offset: 0, Data: []byte("first line\n")},
		&sendstream.Chmod{Path: []byte("log"), Mode: 0o644},
		&sendstream.End{},
	)
}

func ExampleReader() {
	r := sendstream.NewReader(sample(), sendstream.Options{})
	for {
		cmd, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		switch c := cmd.(type) {
		case *sendstream.Header:
			fmt.Println("version", c.Version)
		case *sendstream.Write:
			fmt.Printf("command %d writes %q to %s at %d\n", r.Number(), c.Data, c.Path, c.Offset)
		case *sendstream.EncodedWrite:
			data, err := r.Decode(c)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("command %d writes %d bytes to %s at %d\n", r.Number(), len(data), c.Path, c.Offset)
		case *sendstream.End:
			fmt.Println("complete")
		}
	}
	// Output:
	// version 2
	// command 4 writes "first line\n" to log at 0
	// complete
}

func ExampleWriter() {
	var b bytes.Buffer
	w := sendstream.NewWriter(&b)
	for _, c := range []sendstream.Command{
		&sendstream.Header{Version: 1},
		&sendstream.Subvol{Path: []byte("made-up"), UUID: uuid, Ctransid: 1},
		&sendstream.Mkdir{Path: []byte("dir"), Ino: 257},
		&sendstream.End{},
	} {
		if err := w.WriteCommand(c); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(b.Len(), "bytes")
	err := w.WriteCommand(&sendstream.Mkdir{Path: []byte("late")})
	fmt.Println(err)
	// Output:
	// 109 bytes
	// encode mkdir: command out of order: no header before it
}

func ExampleWriteText() {
	r := sendstream.NewReader(sample(), sendstream.Options{})
	if err := sendstream.WriteText(os.Stdout, r, sendstream.TextOptions{}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// subvol          ./events                        uuid=aa1b0000-0000-0000-0000-000000000000 transid=7
	// mkfile          ./events/o257-7-0
	// rename          ./events/o257-7-0               dest=./events/log
	// write           ./events/log                    offset=0 len=11
	// chmod           ./events/log                    mode=644
}

func ExampleWriteJSON() {
	r := sendstream.NewReader(stream(
		&sendstream.Header{Version: 1},
		&sendstream.Unlink{Path: []byte("caf\xe9")},
		&sendstream.End{},
	), sendstream.Options{})
	if err := sendstream.WriteJSON(os.Stdout, r, sendstream.JSONOptions{}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// {"command":"header","offset":0,"version":1}
	// {"command":"unlink","n":1,"offset":17,"path":"caf�","path_base64":"Y2Fm6Q=="}
	// {"command":"end","n":2,"offset":35}
}

// A follower of one file, by its identity and not its name, reads what is
// written to it, whichever name a stream uses.
func ExampleNamespace() {
	var followed sendstream.FileID
	names := sendstream.NewNamespace()
	follow := func(input io.Reader) {
		r := sendstream.NewReader(input, sendstream.Options{})
		for cmd, err := range r.All() {
			if err != nil {
				log.Fatal(err)
			}
			effect, err := names.Apply(cmd)
			if err != nil {
				log.Fatal(err)
			}
			if w, ok := cmd.(*sendstream.Write); ok && effect.File.ID == followed {
				fmt.Printf("%s (now %s): %q\n", w.Path, effect.File.Paths(), w.Data)
			}
		}
	}

	follow(sample())
	f, err := names.Lookup([]byte("log"))
	if err != nil {
		log.Fatal(err)
	}
	followed = f.ID

	// A rotation, as a kernel sends it.
	follow(stream(
		&sendstream.Header{Version: 2},
		&sendstream.Snapshot{Path: []byte("events"), UUID: sendstream.UUID{0xbb}, Ctransid: 9, ParentUUID: uuid, ParentCtransid: 7},
		&sendstream.Link{Path: []byte("log.1"), Existing: []byte("log")},
		&sendstream.Unlink{Path: []byte("log")},
		&sendstream.Mkfile{Path: []byte("o258-9-0"), Ino: 258},
		&sendstream.Rename{Path: []byte("o258-9-0"), To: []byte("log")},
		&sendstream.Write{Path: []byte("log"), Offset: 0, Data: []byte("of the new log\n")},
		&sendstream.Write{Path: []byte("log.1"), Offset: 11, Data: []byte("last line\n")},
		&sendstream.End{},
	))
	// Output:
	// log.1 (now [log.1]): "last line\n"
}

// Between streams a Namespace can be kept in any store of keys and values.
func ExampleNamespace_Changes() {
	store := map[string][]byte{} // in place of a table, changed in one transaction
	names := sendstream.NewNamespace()
	for cmd, err := range sendstream.NewReader(sample(), sendstream.Options{}).All() {
		if err != nil {
			log.Fatal(err)
		}
		if _, err := names.Apply(cmd); err != nil {
			log.Fatal(err)
		}
	}
	for key, value := range names.Changes() {
		if value == nil {
			delete(store, string(key))
		} else {
			store[string(key)] = value
		}
	}
	names.Kept()

	restored, err := sendstream.LoadNamespace(func(yield func(key, value []byte) bool) {
		for key, value := range store {
			if !yield([]byte(key), value) {
				return
			}
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	f, err := restored.Lookup([]byte("log"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Paths(), f.Size)
	// Output:
	// [log] 11
}

func ExampleMemory() {
	m := new(sendstream.Memory)
	if err := sendstream.Replay(m, sendstream.NewReader(sample(), sendstream.Options{})); err != nil {
		log.Fatal(err)
	}
	events, _ := m.Subvolume(uuid)
	f, err := events.Names().Lookup([]byte("log"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, events.Open(f)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// first line
}
