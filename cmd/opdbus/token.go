package main

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/mcp"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func tokensFlag() cli.Flag {
	return &cli.StringFlag{Name: "tokens", EnvVars: []string{"GB_TOKENS"}, Value: names.TokensFile, Usage: "`FILE` of tokens"}
}

func tokenCommand() *cli.Command {
	return &cli.Command{
		Name:  "token",
		Usage: "say which AI agents are let in",
		Description: `An agent that comes over a socket shows a token. The token's name is the client
mcp:NAME of the policy, which decides what the agent may do; its scopes bound that
once more: read looks, propose makes plans and asks for approvals, execute changes
what policy and people allow. To add or take away one polkit must know who you are
(org.freedesktop.opdbus.tokens); it is recorded in the log.`,
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "make a token and print its secret, once", ArgsUsage: "NAME",
				Description: `The secret is printed on standard output and kept nowhere: the file has its hash.

Example:

   opdbus token add claude-laptop --scope read,propose --expires 720h`,
				Flags: append(gateFlags(), tokensFlag(),
					&cli.StringFlag{Name: "scope", Usage: "`SCOPES`: read, propose, execute, with commas between", Value: mcp.ScopeRead},
					&cli.DurationFlag{Name: "expires", Usage: "valid for `TIME`", Value: 90 * 24 * time.Hour},
					&cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "say what would be made"}),
				Action: runTokenAdd,
			},
			{
				Name: "ls", Usage: "list tokens",
				Description: "Example:\n\n   opdbus token ls --json | jq .name",
				Flags:       []cli.Flag{tokensFlag(), &cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				Action:      runTokenList,
			},
			{
				Name: "rm", Usage: "take a token away, at once", ArgsUsage: "NAME",
				Description:  "Example:\n\n   opdbus token rm claude-laptop",
				Flags:        append(gateFlags(), tokensFlag(), &cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "say whether it would be allowed"}),
				BashComplete: completeToken,
				Action:       runTokenRemove,
			},
		},
	}
}

// completeToken completes the NAME of a token.
func completeToken(c *cli.Context) {
	if c.Args().Present() {
		return
	}
	list, _ := (&mcp.Tokens{File: c.String("tokens")}).List()
	for _, token := range list {
		cli.Offer(c, token.Name, strings.Join(token.Scopes, ","))
	}
}

func oneName(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", cli.WithHint(cli.Usagef("want one NAME"), "opdbus token ls lists them")
	}
	return c.Args().First(), nil
}

// changeToken has do change the file of tokens, through the choke point.
func changeToken(c *cli.Context, member, name string, scopes []string, do func() error) error {
	gate, self, closeGate, err := openGate(c)
	if err != nil {
		return err
	}
	defer closeGate()
	self.Interactive = true
	ctx, cancel := context.WithTimeout(c.Context, 3*time.Minute)
	defer cancel()
	return gate.ChangeToken(ctx, self, bus.System, member, name, scopes, c.Bool("n"), do)
}

func runTokenAdd(c *cli.Context) error {
	name, err := oneName(c)
	if err != nil {
		return err
	}
	scopes := strings.Split(c.String("scope"), ",")
	tokens := &mcp.Tokens{File: c.String("tokens")}
	token, err := tokens.Plan(name, scopes, c.Duration("expires"))
	if err != nil {
		return err
	}
	secret := ""
	err = changeToken(c, "Add", name, token.Scopes, func() error {
		token, secret, err = tokens.Add(name, scopes, c.Duration("expires"), serverGroup())
		return err
	})
	if err != nil {
		return err
	}
	verb := "made"
	if c.Bool("n") {
		verb = "would be made"
	}
	fmt.Fprintf(c.App.ErrWriter, "token %s %s: scopes %s, until %s; in the policy it is the client mcp:%s\n", name, verb, strings.Join(token.Scopes, ","), token.Expires.Local().Format(time.DateTime), name)
	if secret != "" {
		fmt.Fprintln(c.App.Writer, secret)
	}
	return nil
}

// serverGroup is the group of the MCP server, which reads the file; -1 where
// there is none.
func serverGroup() int {
	g, err := user.LookupGroup(names.MCPUser)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

func runTokenList(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("ls takes no argument")
	}
	list, err := (&mcp.Tokens{File: c.String("tokens")}).List()
	if err != nil {
		return err
	}
	t := cli.NewTable(c.App.Writer, "name", "scopes", "created", "expires", "state")
	for _, token := range list {
		state := "valid"
		if token.Expired(time.Now()) {
			state = "expired"
		}
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, map[string]any{"name": token.Name, "scopes": token.Scopes, "created": token.Created, "expires": token.Expires, "state": state}); err != nil {
				return err
			}
			continue
		}
		t.Row(token.Name, strings.Join(token.Scopes, ","), token.Created.Local().Format(time.DateTime), token.Expires.Local().Format(time.DateTime), state)
	}
	if c.Bool("json") {
		return nil
	}
	return t.Flush()
}

func runTokenRemove(c *cli.Context) error {
	name, err := oneName(c)
	if err != nil {
		return err
	}
	err = changeToken(c, "Remove", name, nil, func() error { return (&mcp.Tokens{File: c.String("tokens")}).Remove(name) })
	if err != nil {
		return err
	}
	if !c.Bool("n") {
		fmt.Fprintf(c.App.ErrWriter, "token %s taken away\n", name)
	}
	return nil
}
