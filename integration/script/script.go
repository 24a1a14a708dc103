// Package script holds what the testscript sessions of several tools have in
// common.
package script

import (
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// Code is the command "code N COMMAND ARGS...": the command ends with exit
// code N.
func Code(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	have := 0
	if err != nil {
		coded, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		have = coded.ExitCode()
	}
	if strconv.Itoa(have) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], have, args[0])
	}
}
