package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "take the latest change back", ArgsUsage: "[ID]",
		Description: `Takes back the change that awaits its confirmation, or else the last one that was
applied: last action first, each object to what it was before. What had no way
back stays, and the report says so. It is done without the log, too: its events
then wait in the spool.

Example:

   opdbus rollback`,
		Flags:        stateFlags(dryRunFlag("only print which change it would be")),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			return answerChange(c, func(ch *hoststate.Change) bool {
				return ch.Result == hoststate.ResultPending || ch.Result == hoststate.ResultApplied || ch.Result == hoststate.ResultFailed
			}, stateHost.rollback)
		},
	}
}
