package snap

import (
	"bytes"
	"fmt"
	"strings"
)

// WriteMetrics replaces file with what k and the store say, in Prometheus' text
// format (version 0.0.4) as the node exporter's textfile collector reads it.
func (s *Store) WriteMetrics(file string, k *Ticks) error {
	var b bytes.Buffer
	metric := func(name, typ, help string, value any) {
		name = "ghostbridge_snap_" + name
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s{source=\"%s\"} %v\n", name, help, name, typ, name, labelValue(k.Source), value)
	}
	metric("ticks_total", "counter", "Ticks that were good: the source has a snapshot of what it is.", k.Good)
	metric("ticks_failed_total", "counter", "Ticks that failed.", k.Failed)
	metric("ticks_skipped_total", "counter", "Ticks that came while the one before was not done.", k.Skipped)
	metric("ticks_late_total", "counter", "Ticks that began more than a tenth of a period late.", k.Late)
	metric("lateness_seconds_sum", "counter", "Time that ticks began late, in all.", k.LatenessSum)
	metric("lateness_max_seconds", "gauge", "The most that a tick began late.", k.LatenessMax)
	metric("taken_total", "counter", "Snapshots taken.", k.Taken)
	metric("unchanged_total", "counter", "Good ticks without a snapshot, as nothing had changed.", k.Unchanged)
	metric("deleted_total", "counter", "Snapshots deleted.", k.Deleted)
	metric("snapshot_seconds_total", "counter", "Time spent in taking snapshots.", k.SnapshotsSum)
	metric("live", "gauge", "Snapshots that exist.", k.Live)
	metric("max_count", "gauge", "Snapshots that may exist, 0 for no limit.", k.MaxCount)
	metric("to_delete", "gauge", "Snapshots that are to be deleted and are not yet.", k.Left)
	if n, err := s.btrfs.Backlog(s.dir); err == nil {
		metric("cleaner_backlog", "gauge", "Deleted snapshots whose space is not free yet.", n)
	}
	if sp, err := s.btrfs.Space(s.dir); err == nil {
		metric("available_bytes", "gauge", "Space free in the file system.", sp.Available)
		metric("size_bytes", "gauge", "Size of the file system.", sp.Size)
	}
	if k.Written != nil {
		metric("device_written_bytes_total", "counter", "Bytes written to the file system's devices by anyone since the start.", *k.Written)
	}
	metric("started_timestamp_seconds", "gauge", "When taking began.", unixSeconds(k.Started.UnixNano()))
	if k.Good > 0 {
		metric("last_good_timestamp_seconds", "gauge", "When the last good tick was.", unixSeconds(k.LastGood.UnixNano()))
	}
	return publish(file, b.Bytes())
}

func unixSeconds(ns int64) string { return fmt.Sprintf("%d.%03d", ns/1e9, ns/1e6%1e3) }

// labelValue escapes a path as the text format wants it.
func labelValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\uFFFD"))
}
