package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func approvalsCommand() *cli.Command {
	jsonFlag := &cli.BoolFlag{Name: "json", Usage: "print JSON"}
	return &cli.Command{
		Name:  "approvals",
		Usage: "see, approve and deny what waits for a person",
		Description: `An approval is a person's answer to one action of one caller: it is bound to the
hash of that very action, can be used once, and expires. To approve or deny one
polkit must know who you are (org.freedesktop.opdbus.approve), each time anew;
who answered, and when, is recorded in the log.`,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list approvals, newest first",
				Description: "Example:\n\n   opdbus approvals list --json | jq 'select(.state == \"pending\")'",
				Flags:       []cli.Flag{approvalsFlag(), jsonFlag},
				Action:      runApprovalsList,
			},
			{
				Name: "show", Usage: "show one, with all that would be done", ArgsUsage: "ID",
				Description:  "Example:\n\n   opdbus approvals show 0123456789abcdef",
				Flags:        []cli.Flag{approvalsFlag()},
				BashComplete: completeApproval,
				Action:       runApprovalsShow,
			},
			{
				Name: "approve", Usage: "approve one", ArgsUsage: "ID",
				Description:  "Example:\n\n   opdbus approvals approve 0123456789abcdef",
				Flags:        gateFlags(),
				BashComplete: completeApproval,
				Action:       func(c *cli.Context) error { return answerApproval(c, true) },
			},
			{
				Name: "deny", Usage: "deny one", ArgsUsage: "ID",
				Description:  "Example:\n\n   opdbus approvals deny 0123456789abcdef",
				Flags:        gateFlags(),
				BashComplete: completeApproval,
				Action:       func(c *cli.Context) error { return answerApproval(c, false) },
			},
		},
	}
}

func runApprovalsList(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("list takes no argument")
	}
	list, err := (&opdbus.Approvals{Dir: c.String("approvals")}).List()
	if err != nil {
		return err
	}
	t := cli.NewTable(c.App.Writer, "id", "state", "expires", "by", "action")
	for _, a := range list {
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, a); err != nil {
				return err
			}
			continue
		}
		t.Row(a.ID, a.State, a.Expires.Local().Format(time.DateTime), a.Principal.Actor(), a.Action.Words())
	}
	if c.Bool("json") {
		return nil
	}
	return t.Flush()
}

func runApprovalsShow(c *cli.Context) error {
	a, err := oneApproval(c)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(c.App.Writer)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(a)
}

// completeApproval completes the ID of an approval.
func completeApproval(c *cli.Context) {
	if c.Args().Present() {
		return
	}
	list, _ := (&opdbus.Approvals{Dir: c.String("approvals")}).List()
	for _, a := range list {
		cli.Offer(c, a.ID, fmt.Sprintf("%s, by %s: %s", a.State, a.Principal.Actor(), a.Action))
	}
}

func oneApproval(c *cli.Context) (*opdbus.Approval, error) {
	if c.Args().Len() != 1 {
		return nil, cli.WithHint(cli.Usagef("want one ID"), "opdbus approvals list has them")
	}
	return (&opdbus.Approvals{Dir: c.String("approvals")}).Get(c.Args().First())
}

// answerApproval is a change too: it goes through the choke point, where
// polkit alone decides.
func answerApproval(c *cli.Context, yes bool) error {
	a, err := oneApproval(c)
	if err != nil {
		return err
	}
	gate, self, closeGate, err := openGate(c)
	if err != nil {
		return err
	}
	defer closeGate()
	self.Interactive = true
	ctx, cancel := context.WithTimeout(c.Context, 3*time.Minute)
	defer cancel()
	out, err := gate.Answer(ctx, self, bus.System, a.ID, yes)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s %s: %s\n", out.ID, out.State, cli.Printable(out.Action.Words()))
	return nil
}

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "check a policy file, and explain what it says",
		Description: `The policy is a file of ordered rules that belongs to root; nothing that comes in
through D-Bus, MCP or the web can change it. FORMATS.md has its format.`,
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "read a policy file and say what is wrong with it", ArgsUsage: "[FILE]",
				Description: "Example:\n\n   opdbus policy check /etc/ghostbridge/policy.json",
				Flags:       []cli.Flag{policyFlag()},
				Action:      runPolicyCheck,
			},
			{
				Name: "explain", Usage: "say which rule decides about a call, and how", ArgsUsage: "NAME PATH INTERFACE.METHOD [ARGS]",
				Description: `Says what the policy says of a call by this user, without making it. ARGS is the
JSON array of the arguments.

Example:

   opdbus policy explain org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager.RestartUnit '["nginx.service","replace"]'`,
				Flags: []cli.Flag{policyFlag(),
					&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
					&cli.StringFlag{Name: "kind", Value: opdbus.KindCall, Usage: "`KIND`: call, or set for a property"},
					&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				BashComplete: completeTarget(methodsOf),
				Action:       runPolicyExplain,
			},
		},
	}
}

func runPolicyCheck(c *cli.Context) error {
	path := c.String("policy")
	if c.Args().Len() > 1 {
		return cli.Usagef("check takes one FILE")
	}
	if c.Args().Present() {
		path = c.Args().First()
	}
	if _, err := os.Stat(path); err != nil {
		return err // LoadPolicy takes its absence for a policy without rules
	}
	p, err := opdbus.LoadPolicy(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: %d rules, revision %s\n", path, len(p.Rules), p.Revision)
	return nil
}

func runPolicyExplain(c *cli.Context) error {
	args, err := arguments(c, "NAME", "PATH", "INTERFACE.METHOD", "[ARGS]")
	if err != nil {
		return err
	}
	iface, member, err := splitMember(args[2])
	if err != nil {
		return err
	}
	if args[3] == "" {
		args[3] = "[]"
	}
	if !json.Valid([]byte(args[3])) {
		return cli.Usagef("ARGS is not JSON")
	}
	if k := c.String("kind"); k != opdbus.KindCall && k != opdbus.KindSet {
		return cli.Usagef("--kind %q: want call or set", k)
	}
	p, err := opdbus.LoadPolicy(c.String("policy"))
	if err != nil {
		return err
	}
	a := opdbus.Action{Kind: c.String("kind"), Bus: c.String("bus"), Name: args[0], Path: args[1], Interface: iface, Member: member, Args: json.RawMessage(args[3])}
	return printDecision(c, a, p.Decide(opdbus.Self("", false), a))
}
