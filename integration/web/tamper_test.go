//go:build linux

package web

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A byte of a signed event is changed, and its checksum made right again: no
// page calls it verified.
func TestForgedEventIsNotVerified(t *testing.T) {
	r := newRig(t, parts{events: 40})
	viewer := r.token("viewer")
	const changed, other = 7, 9
	for _, i := range []int{changed, other} {
		if _, page, _ := r.get(viewer, fmt.Sprintf("/events/%d", i)); !strings.Contains(page, ">verified<") || strings.Contains(page, "NOT VERIFIED") {
			t.Fatalf("event %d, before anything is changed:\n%s", i, page)
		}
	}

	path := r.log + "/000000.jsonl"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	line := lines[changed]
	at := bytes.Index(line, []byte(`"message":"`)) + len(`"message":"`)
	line[at] ^= 0x20 // the other case of a letter
	sum := bytes.LastIndex(line, []byte(`,"c":"`))
	copy(line[sum+len(`,"c":"`):], fmt.Sprintf("%08x", crc32.Checksum(line[:sum], crc32.MakeTable(crc32.Castagnoli))))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Join(lines, nil), 0); err != nil {
		t.Fatal(err)
	}

	status, page, _ := r.get(viewer, fmt.Sprintf("/events/%d", changed))
	if status != http.StatusOK || !strings.Contains(page, "NOT VERIFIED") || strings.Contains(page, ">verified<") {
		t.Errorf("the changed event's page: %d\n%s", status, page)
	}
	if status, body, _ := r.get(viewer, fmt.Sprintf("/api/v1/events/%d", changed)); status != http.StatusOK || !strings.Contains(body, `"verified":false`) || !strings.Contains(body, `"unverified":"`) {
		t.Errorf("the changed event as JSON: %d %s", status, body)
	}
	if status, body, _ := r.get(viewer, fmt.Sprintf("/api/v1/events/%d/proof", changed)); status == http.StatusOK {
		t.Errorf("a proof of it: %s", body)
	}
	if status, body, _ := r.do(http.MethodPost, viewer, "/api/v1/log/verify", ""); status/100 != 2 {
		t.Fatalf("verify now: %d %s", status, body)
	}
	deadline := time.Now().Add(20 * time.Second)
	for page = ""; !strings.Contains(page, "NOT VERIFIED"); {
		if time.Now().After(deadline) {
			t.Fatalf("the log's page after a verification:\n%s", page)
		}
		time.Sleep(100 * time.Millisecond)
		_, page, _ = r.get(viewer, "/log")
	}
	if _, page, _ := r.get(viewer, "/"); strings.Contains(page, "verified to #") {
		t.Error("the overview says that the log is verified")
	}
}
