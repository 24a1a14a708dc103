package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
)

func confirmCommand() *cli.Command {
	return &cli.Command{
		Name: "confirm", Usage: "keep the change that awaits it", ArgsUsage: "[ID]",
		Description: `Keeps a change made with apply --confirm-timeout.

Example:

   opdbus confirm`,
		Flags:        stateFlags(dryRunFlag("only print which change it would be")),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			return answerChange(c, func(ch *hoststate.Change) bool { return ch.Result == hoststate.ResultPending }, stateHost.confirm)
		},
	}
}
