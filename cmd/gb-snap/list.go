package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

func listCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "print the snapshots",
		ArgsUsage: "[SOURCE]",
		Description: `Prints the snapshots, those of SOURCE only if it is given, in the order in which
they were taken: when, how much data is new since the one before of the same
source, and what holds them.

Example:

   gb-snap list --snapshots D --json`,
		Flags: []cli.Flag{
			snapshotsFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a snapshot"},
		},
		Action: runList,
	}
}

// A snapshotJSON is a snapshot as it is printed.
type snapshotJSON struct {
	Name       string      `json:"name"`
	Path       string      `json:"path"`
	Time       time.Time   `json:"time"` // that the name says
	ID         uint64      `json:"id"`
	UUID       subvol.UUID `json:"uuid"`
	SourceUUID subvol.UUID `json:"source_uuid"`
	CTransID   uint64      `json:"ctransid"`
}

func newSnapshotJSON(s *snap.Store, sn snap.Snapshot) snapshotJSON {
	return snapshotJSON{sn.Name, filepath.Join(s.Dir(), sn.Name), sn.Time, sn.ID, sn.UUID, sn.Source(), sn.CTransID}
}

func runList(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return cli.Usagef("list takes at most one SOURCE")
	}
	s, err := openStore(c)
	if err != nil {
		return err
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	if c.Args().Present() {
		src, err := subvol.System{}.Info(c.Args().First())
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		list = snap.Of(list, src.UUID)
	}
	holders, err := s.Holders(list, nil)
	if err != nil {
		return err
	}
	changed := s.Changes(list)
	now := time.Now()
	table := cli.NewTable(c.App.Writer, "time", "uuid", "new", "age", "held by")
	for i, sn := range list {
		held := holders[sn.UUID]
		if held == nil {
			held = []string{}
		}
		if c.Bool("json") {
			err := cli.PrintJSON(c.App.Writer, struct {
				snapshotJSON
				Changed *uint64  `json:"changed_bytes"` // since the one before; null if not known
				Age     float64  `json:"age_seconds"`
				Holds   []string `json:"holds"`
			}{newSnapshotJSON(s, sn), changed[i], now.Sub(sn.Time).Seconds(), held})
			if err != nil {
				return err
			}
			continue
		}
		size := "?"
		if changed[i] != nil {
			size = snap.FormatBytes(*changed[i])
		}
		table.Row(sn.Name, sn.UUID, size, age(now.Sub(sn.Time)), strings.Join(held, ", "))
	}
	if c.Bool("json") {
		return nil
	}
	return table.Flush()
}

// age returns a duration in its two largest units.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + age(-d)
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
