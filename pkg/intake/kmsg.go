package intake

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// kmsg reads the records of /dev/kmsg (Documentation/ABI/testing/dev-kmsg):
//
//	PREFIX,SEQUENCE,MICROSECONDS,FLAGS[,…];MESSAGE
//
// PREFIX is facility<<3 | level. Lines that start with a space continue the
// record before them with KEY=VALUE and are left out. Non-printable bytes are
// written as \xNN by the kernel.
func kmsg(o Options) Converter {
	boot := readBootID()
	return func(line []byte) ([]byte, error) {
		if len(line) > 0 && line[0] == ' ' {
			return nil, nil
		}
		head, message, ok := bytes.Cut(line, []byte(";"))
		fields := strings.Split(string(head), ",")
		if !ok || len(fields) < 4 {
			return nil, fmt.Errorf("not a record of /dev/kmsg: %.60q", line)
		}
		prefix, err1 := strconv.ParseUint(fields[0], 10, 32)
		sequence, err2 := strconv.ParseUint(fields[1], 10, 64)
		us, err3 := strconv.ParseInt(fields[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("not a record of /dev/kmsg: %.60q", line)
		}
		text := clean(string(message), maxMessage)
		if text == "" || o.HasAfter && sequence <= o.After {
			return nil, nil
		}
		e := out{Source: "kernel", Type: "kernel.message", Severity: severities[prefix&7], Message: text,
			Data: map[string]any{"seq": sequence, "facility": prefix >> 3, "monotonic_us": us}}
		if boot != "" {
			e.Data["boot_id"] = boot
		}
		if subsystem, _, ok := strings.Cut(text, ": "); ok && len(subsystem) <= 40 && !strings.Contains(subsystem, " ") {
			e.Subject = subsystem
		}
		if !o.Boot.IsZero() {
			e.Time = o.Boot.Add(time.Duration(us) * time.Microsecond).UTC().Format(event.TimeFormat)
		}
		return e.line()
	}
}

// readBootID returns the id of this boot, in which a record's sequence number
// means something.
func readBootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
