package snap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Ticks is what taking has done since it was started, kept in a file under
// /run: what status and metrics tell of it. Times of the wall clock are for
// people; ages are told by uptime, which no one can set.
type Ticks struct {
	Source    string    `json:"source"`
	Snapshots string    `json:"snapshots"`
	PID       int       `json:"pid"`
	Period    float64   `json:"period_seconds"` // 0 if each tick is a process of its own
	MaxCount  int       `json:"max_count"`
	Started   time.Time `json:"started"`

	Good      int64 `json:"good"`
	Failed    int64 `json:"failed"`
	Skipped   int64 `json:"skipped"` // came while the one before was not done
	Late      int64 `json:"late"`    // began more than a tenth of a period behind
	Taken     int64 `json:"taken"`
	Unchanged int64 `json:"unchanged"`
	Deleted   int64 `json:"deleted"`

	LatenessMax  float64 `json:"lateness_max_seconds"`
	LatenessSum  float64 `json:"lateness_sum_seconds"`
	SnapshotsSum float64 `json:"snapshot_seconds_sum"` // time spent in the ioctl

	LastGood   time.Time `json:"last_good"`
	GoodUptime float64   `json:"last_good_uptime_seconds"`
	Error      string    `json:"error,omitempty"` // of the last tick

	// Since when the source has been known to be ahead of its newest snapshot;
	// 0 if the last tick left it equal.
	AheadUptime float64 `json:"ahead_since_uptime_seconds,omitempty"`

	Live    int    `json:"live"`
	Left    int    `json:"to_delete"` // snapshots that the policy drops and that are still there
	LeftWhy string `json:"to_delete_why,omitempty"`
	Backlog int    `json:"backlog"`

	Written    *uint64 `json:"written_bytes"` // to the devices, since Started; null if not known
	writtenOff uint64  // what the counter said then
	btrfs      Btrfs
}

func newTicks(t *Taker, every time.Duration) *Ticks {
	k := &Ticks{
		Source: t.Source, Snapshots: t.Store.dir, PID: os.Getpid(), Period: every.Seconds(), MaxCount: t.Policy.MaxCount,
		Started: t.Now().UTC(), btrfs: t.Store.btrfs,
	}
	if n, err := k.btrfs.Written(k.Snapshots); err == nil {
		k.Written, k.writtenOff = new(uint64), n
	}
	return k
}

// count adds a tick that began so much behind.
func (k *Ticks) count(now time.Time, behind time.Duration, o Outcome, err error) {
	k.LatenessMax = max(k.LatenessMax, behind.Seconds())
	k.LatenessSum += behind.Seconds()
	if k.Period > 0 && behind.Seconds() > k.Period/late {
		k.Late++
	}
	k.Live, k.Left, k.LeftWhy, k.Backlog = o.Live, o.Pruned.Left, o.Pruned.Why, o.Pruned.Backlog
	k.Deleted += int64(len(o.Pruned.Deleted))
	if o.Snapshot != nil {
		k.Taken++
		k.SnapshotsSum += o.Took.Seconds()
	}
	up := uptime()
	if err != nil {
		k.Failed++
		k.Error = err.Error()
		if o.Ahead && k.AheadUptime == 0 {
			k.AheadUptime = up
		}
	} else {
		if o.Snapshot == nil {
			k.Unchanged++
		}
		k.Good++
		k.Error, k.AheadUptime = "", 0
		k.LastGood, k.GoodUptime = now.UTC(), up
	}
	if k.Written != nil {
		if n, err := k.btrfs.Written(k.Snapshots); err == nil && n >= k.writtenOff {
			*k.Written = n - k.writtenOff
		}
	}
}

// OneTick returns the Ticks of a process that took once, after those of the
// processes before it, which may be nil.
func OneTick(t *Taker, before *Ticks, o Outcome, err error) *Ticks {
	k := &Ticks{Source: t.Source, Snapshots: t.Store.dir, Started: t.Now().UTC()}
	if before != nil && before.Period == 0 && before.Source == t.Source {
		*k = *before
	}
	k.PID, k.MaxCount = os.Getpid(), t.Policy.MaxCount
	k.Written, k.btrfs = nil, t.Store.btrfs
	k.count(t.Now(), 0, o, err)
	return k
}

// TicksFile returns the name of the file of a store's ticks in directory dir.
func TicksFile(dir string, s *Store) string {
	return filepath.Join(dir, "snap-"+pathKey(s.dir)+".json")
}

// Publish writes k to a file.
func (k *Ticks) Publish(file string) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return publish(file, append(b, '\n'))
}

// publish replaces a file that need not survive a power cut. Everybody may read
// it, whatever the umask: it holds numbers, for gb-web and the textfile collector.
func publish(file string, data []byte) error {
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// ReadTicks reads what Publish wrote, nil if it has not.
func ReadTicks(file string) (*Ticks, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ticks: %w", err)
	}
	k := new(Ticks)
	if err := json.Unmarshal(b, k); err != nil {
		return nil, fmt.Errorf("ticks: %s: %w", file, err)
	}
	return k, nil
}

// uptime returns the seconds since boot, with time asleep (proc(5)); 0 where
// it can't be had.
func uptime() float64 {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	var up float64
	fmt.Sscan(string(b), &up)
	return up
}
