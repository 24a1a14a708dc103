package snap

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

func BenchmarkTick(b *testing.B) {
	r := newRig(b, loopbtrfs.Options{Size: 4 << 30})
	for i := range 60 {
		r.must(sys.Snapshot(r.src, filepath.Join(r.snapshots, snap.Name(time.Now().Add(time.Duration(i-100)*time.Second)))))
	}
	store, err := snap.OpenStore(sys, r.snapshots)
	r.must(err)
	taker := &snap.Taker{Store: store, Source: r.src, Policy: snap.Policy{Keep: 60, MaxCount: 60}}
	r.must(taker.Start())
	defer taker.Stop()
	var ioctl time.Duration
	for b.Loop() {
		b.StopTimer()
		r.write("a", "x")
		b.StartTimer()
		o, err := taker.Take(b.Context(), false)
		r.must(err)
		ioctl += o.Took
	}
	b.ReportMetric(float64(ioctl.Microseconds())/float64(b.N), "ioctl-us/op")
}
