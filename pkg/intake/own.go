package intake

import (
	"slices"
	"strings"
)

// Our own units that start each second. That they have started, and that they
// are done, is left out by the recorders: each such event would be a change of
// the log, so that the next second had something to do as well. What fails is
// recorded.
var everySecond = []string{"btrfs-snapshot.service", "btrfs-snapshot.timer", "btrfs-vector-sync.path", "btrfs-vector-sync.service"}

// StartsEverySecond says whether a unit is one of them.
func StartsEverySecond(unit string) bool {
	return slices.Contains(everySecond, unit) || strings.HasPrefix(unit, "gb-vecsync@") && strings.HasSuffix(unit, ".service")
}

// routineMessages are the ids of what systemd says of a unit that starts and
// ends well (sd-messages.h: UNIT_STARTING, UNIT_STARTED, UNIT_STOPPING,
// UNIT_STOPPED, UNIT_SUCCESS, UNIT_RESOURCES).
var routineMessages = []string{
	"7d4958e842da4a758f6c1cdc7b36dcc5", "39f53479d3a045ac8e11786248231fbf", "de5b426a63be47a7b6ac3eaac82e2f6f",
	"9d1aaa27d60140bd96365438aad20286", "7ad2d189f7e94e70a38c781354912448", "ae8f7b866b0347b9af31fe1c80b127c0",
}

const systemdPath = "/org/freedesktop/systemd1/"

// RoutineSignal says whether a signal of systemd's manager is of a unit of ours
// that starts and ends well. arguments are its arguments as JSON.
func RoutineSignal(path, member, arguments string) bool {
	rest, ok := strings.CutPrefix(path, systemdPath)
	if path+"/" == systemdPath {
		rest, ok = "", true
	}
	if !ok || strings.Contains(arguments, `"failed"`) {
		return false
	}
	if unit, ok := strings.CutPrefix(rest, "unit/"); ok {
		return StartsEverySecond(UnescapePath(unit))
	}
	if strings.HasPrefix(rest, "job/") {
		// Which unit it is of can't be told; JobNew and JobRemoved tell it.
		return member == "PropertiesChanged"
	}
	switch member {
	case "JobNew", "JobRemoved", "UnitNew", "UnitRemoved":
		if member == "JobRemoved" && !strings.Contains(arguments, `"done"`) {
			return false
		}
		for _, word := range strings.Split(arguments, `"`) {
			if StartsEverySecond(word) {
				return true
			}
		}
	}
	return false
}

// UnescapePath undoes sd_bus_path_encode(3): _2d is '-'.
func UnescapePath(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '_' && i+2 < len(s) {
			hi, lo := strings.IndexByte("0123456789abcdef", s[i+1]), strings.IndexByte("0123456789abcdef", s[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
