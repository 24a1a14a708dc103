//go:build linux && cgo

package subvol

import "testing"

func TestEncodedReads(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-56-cloud-amd64": false, "6.6.120": false, "5.15.0": false, "6.12.7": false, "6.12.0": false,
		"6.12.8": true, "6.12.48+deb13-amd64": true, "6.13": true, "6.13.0-rc5": true, "6.18.44": true, "7.0": true,
		"": false, "six": false, "6": false,
	} {
		if got := encodedReads(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
