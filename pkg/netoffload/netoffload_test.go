package netoffload

import (
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/safchain/ethtool"
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

// What we read is what the library reads, for every interface that is here.
func TestReadIsTheLibrarys(t *testing.T) {
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, l := range links {
		theirs, err := e.FeaturesWithState(l.Name)
		if err != nil {
			continue // an interface that went, or has no features
		}
		want := make(map[string]Feature)
		for name, s := range theirs {
			want[name] = Feature{Active: s.Active, Wanted: s.Requested, Fixed: !s.Available || s.NeverChanged}
		}
		have, err := Read(l.Name)
		if err != nil {
			t.Errorf("%s: %v", l.Name, err)
		}
		if len(have) == 0 || !reflect.DeepEqual(have, want) {
			t.Errorf("%s: %v, the library reads %v", l.Name, have, want)
		}
	}
}

func TestReadNamesTheInterface(t *testing.T) {
	for _, nic := range []string{"gb-no-such", "a-name-that-is-too-long", ""} {
		if have, err := Read(nic); err == nil || !strings.Contains(err.Error(), "offload of "+nic) {
			t.Errorf("%q: %v, %v", nic, have, err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read("lo"); err != nil {
			b.Fatal(err)
		}
	}
}
