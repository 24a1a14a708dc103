//go:build linux

package sendstream_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// Times that no file system has, in zones with odd offsets: the years of
// strftime(3), and the same error where it has none.
func TestDumpOfOddTimesAgreesWithBtrfsProgs(t *testing.T) {
	require.Tool(t, "btrfs")
	seconds := []int64{0, -1, -62135596800, -62167219200, -62167219201, -62198755200, -99999999999, -1e12, 253402300800, 1e12,
		67767976233532799, 67767976233532800, 67768036191676799, 67768036191676800, -67768040609740800, -67768040609740801,
		-67768100567884800, -67768100567884801, 1<<63 - 1, -1 << 63, -2208988800, -3e9, -2e9, -5e9, 17e8, 1720000000}
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Africa/Monrovia", "Pacific/Apia"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			require.Skip(t, err.Error())
		}
		for _, sec := range seconds {
			var raw bytes.Buffer
			w := sendstream.NewWriter(&raw)
			at := sendstream.Timespec{Sec: sec, Nsec: 1}
			for _, c := range []sendstream.Command{&sendstream.Header{Version: 1}, &sendstream.Subvol{Path: []byte("s")},
				&sendstream.Utimes{Path: []byte("f"), Atime: at, Mtime: at, Ctime: at}, &sendstream.End{}} {
				if err := w.WriteCommand(c); err != nil {
					t.Fatal(err)
				}
			}
			oracle := exec.Command("btrfs", "receive", "--dump")
			oracle.Env = append(os.Environ(), "TZ="+zone)
			oracle.Stdin = bytes.NewReader(raw.Bytes())
			want, wantErr := oracle.Output()
			var got bytes.Buffer
			gotErr := sendstream.WriteText(&got, sendstream.NewReader(&raw, sendstream.Options{}), sendstream.TextOptions{Location: location})
			if got.String() != string(want) || (gotErr == nil) != (wantErr == nil) {
				t.Errorf("%d in %s: %v, theirs %v\n%s", sec, zone, gotErr, wantErr, diff(got.String(), string(want)))
			}
		}
	}
}
