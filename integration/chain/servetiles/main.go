// Servetiles serves the tiles of the log in a directory on a port of loopback,
// prints the URL, and ends when standard input does: for verifiers that are
// modules of their own.
//
//	servetiles DIR
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "servetiles:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: servetiles DIR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/\n", l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(l, &chain.TileHandler{FS: os.DirFS(args[0])})
}
