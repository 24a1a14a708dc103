// Gb-vecsync brings the log's events into a searchable index: see its man page.
package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func main() { cli.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:  names.GBVecsync,
		Usage: "a btrfs send stream on standard input to a searchable index",
		Description: `gb-vecsync takes the events of a log out of btrfs send streams, checks them
against the log's own Merkle tree and signed checkpoint, and keeps them in an
index that answers questions in plain words. The index is derived: it can be
deleted and made again from the log.

   gb-snap send --cursor C SOURCE | gb-vecsync ingest --index I --cursor C
   gb-vecsync search --index I "what changed on the bridge"

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 verification
failed (a bad stream, a changed log), 4 nothing to do (with --exit-code), 5 the
stream starts from another snapshot than the index stands at, 75 temporary.`,
		Commands: []*cli.Command{
			ingestCommand(), searchCommand(), statsCommand(), cursorCommand(), rebuildCommand(), dumpCommand(),
		},
		Values: map[string][]string{"SEVERITY": event.SeverityNames(), "VERSION": {"6.2"}},
	}
}
