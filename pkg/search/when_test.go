package search

import (
	"testing"
	"time"
)

// testNow is a Wednesday.
var testNow = time.Date(2026, 3, 11, 15, 30, 0, 0, time.FixedZone("X", 3600))

func TestWhen(t *testing.T) {
	for question, want := range map[string]string{
		"what changed yesterday evening":                "what changed|03-10 17:00 03-11 00:00",
		"what happened in the last hour":                "what happened|03-11 14:30 -",
		"errors within the past 90 minutes on hv1":      "errors   on hv1|03-11 14:00 -",
		"logins since yesterday":                        "logins|03-10 00:00 -",
		"logins before yesterday":                       "logins|- 03-10 00:00",
		"what broke on 2026-03-05":                      "what broke|03-05 00:00 03-06 00:00",
		"between 2026-03-05 and 2026-03-06 18:00 links": "links|03-05 00:00 03-06 18:01",
		"links since 2026-03-05T10:00:00Z":              "links|03-05 11:00 -",
		"two hours ago":                                 "|03-11 13:00 03-11 14:00",
		"since 3 days ago":                              "|03-08 15:30 -",
		"on monday morning":                             "|03-09 05:00 03-09 12:00",
		"last week":                                     "|03-02 00:00 03-09 00:00",
		"this month":                                    "|03-01 00:00 -",
		"last night":                                    "|03-10 20:00 03-11 06:00",
		"links at 14:10":                                "links|03-11 14:10 03-11 14:11",
		"links at 16:10":                                "links|03-10 16:10 03-10 16:11", // that of yesterday: today's is to come
		"before the VMs lost their network":             "before the VMs lost their network|",
		"after the upgrade":                             "after the upgrade|",
		`the text "since yesterday" quoted`:             `the text "since yesterday" quoted|`,
		"the last disk":                                 "the last disk|",
		"":                                              "|",
	} {
		rest, w := When(question, testNow)
		got := rest + "|"
		if w != nil {
			for i, side := range []*time.Time{w.Since, w.Until} {
				text := "-"
				if side != nil {
					text = side.In(testNow.Location()).Format("01-02 15:04")
				}
				if i > 0 {
					got += " "
				}
				got += text
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", question, got, want)
		}
	}
}
