package netoffload

import (
	"reflect"
	"slices"
	"testing"
)

func TestCheck(t *testing.T) {
	have := map[string]Feature{
		"tx-tcp-segmentation":        {Active: true, Wanted: true},
		"tx-tcp-accecn-segmentation": {Active: true},
		"tx-udp-segmentation":        {},
		"tx-sctp-segmentation":       {Active: true, Fixed: true},
		"rx-gro":                     {Active: true},
		"hw-tc-offload":              {Fixed: true},
		"tx-checksum-ip-generic":     {Active: true},
		"tx-scatter-gather":          {Active: true},
	}
	for profile, want := range map[string]Verdict{
		Keep:   {},
		TCOnly: {},
		Safe:   {On: []string{"rx-gro", "tx-tcp-accecn-segmentation", "tx-tcp-segmentation"}, Fixed: []string{"tx-sctp-segmentation"}},
		Strict: {On: []string{"rx-gro", "tx-checksum-ip-generic", "tx-tcp-accecn-segmentation", "tx-tcp-segmentation"}, Fixed: []string{"tx-sctp-segmentation"}},
	} {
		if got := Check(have, Features(profile)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", profile, got, want)
		}
	}
}

// Each profile has off what those before it have.
func TestProfilesGrow(t *testing.T) {
	var before []string
	for _, profile := range []string{TCOnly, Safe, Strict} {
		now := Features(profile)
		if len(now) <= len(before) || !slices.Equal(now[:len(before)], before) {
			t.Errorf("%s is %v, the one before %v", profile, now, before)
		}
		before = now
	}
	if f := Features("no-such-profile"); f != nil {
		t.Errorf("a profile that is none has %v", f)
	}
}
