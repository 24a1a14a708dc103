// Gb-snap takes, thins out and sends snapshots: see its man page.
package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func main() { cli.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:  names.GBSnap,
		Usage: "a btrfs snapshot every second, without accumulation",
		Description: `gb-snap takes read-only snapshots of a btrfs subvolume when it has changed,
thins them out as they grow old, and sends what is new between two of them. It
is made to run each second for years.

   gb-snap take --snapshots D --every 1s SOURCE
   gb-snap send --snapshots D --cursor C SOURCE | gb-vecsync ingest --cursor C

A snapshot is called by the UTC time it was taken, to the nanosecond, and lies
in the directory of snapshots, which is on the same file system as the source
and outside of it.

Exit codes: 0 done, 1 failed (status: not healthy), 2 wrong usage or
configuration, 4 nothing to do (with --exit-code), 5 the snapshot that a stream
starts from is lost, 75 temporary: another gb-snap takes snapshots there, or
the receiver did not apply what was sent.`,
		Commands: []*cli.Command{
			takeCommand(), listCommand(), sendCommand(), pruneCommand(), holdCommand(), statusCommand(),
		},
		Values: map[string][]string{"SOURCE": {cli.Dirs}, "SUBVOLUME": {cli.Dirs}, "UUID": {"none\ta stream with everything in it"}},
	}
}
