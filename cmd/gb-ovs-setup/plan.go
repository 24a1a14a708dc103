package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "print what apply would change",
		Description: `Compares the desired state with the switch, its flows, offloads and addresses,
and prints the difference: what is created (+), changed (~), moved (>) and
removed (-), and what others have put there, which stays (!).

Example:

   gb-ovs-setup plan --exit-code || echo "something to do, or failed"`,
		Flags: setupFlags(configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there is nothing to do"},
		),
		Action: func(c *cli.Context) error {
			config, err := readConfig(c)
			if err != nil {
				return err
			}
			return printPlan(c, config)
		},
	}
}

func printPlan(c *cli.Context, config *ovs.Config) error {
	s, err := setup(c)
	if err != nil {
		return err
	}
	defer s.Close()
	v, err := s.Survey(c.Context, config)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = cli.PrintJSON(c.App.Writer, v.Plan)
	} else {
		err = writePlan(c.App.Writer, v.Plan)
	}
	if err != nil {
		return err
	}
	for _, f := range v.Faults {
		fmt.Fprintf(c.App.ErrWriter, "gb-ovs-setup: %s\n", cli.Printable(f.String()))
	}
	if v.Plan.Empty() && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return nil
}

var signs = map[string]string{"create": "+", "update": "~", "adopt": "~", "delete": "-", "move": ">"}

// writePlan prints a plan for people.
func writePlan(w io.Writer, p *ovs.Plan) error {
	var b strings.Builder
	for _, ch := range p.Changes {
		fmt.Fprintf(&b, "%s %s %s", signs[ch.Action], ch.Kind, cli.Printable(ch.Name))
		if ch.Bridge != "" && ch.Bridge != ch.Name {
			fmt.Fprintf(&b, " on %s", cli.Printable(ch.Bridge))
		}
		if ch.Action == "adopt" {
			b.WriteString(" (was not ours)")
		}
		b.WriteString("\n")
		for _, f := range slices.Sorted(maps.Keys(ch.Fields)) {
			d := ch.Fields[f]
			if ch.Kind == "flows" && f == "flows" {
				writeFlows(&b, "-", d.From)
				writeFlows(&b, "+", d.To)
				continue
			}
			if ch.Action == "create" {
				fmt.Fprintf(&b, "    %s = %s\n", f, value(d.To))
				continue
			}
			fmt.Fprintf(&b, "    %s: %s -> %s\n", f, value(d.From), value(d.To))
		}
	}
	for _, f := range p.Foreign {
		fmt.Fprintf(&b, "! %s %s", f.Kind, cli.Printable(f.Name))
		if f.Bridge != "" {
			fmt.Fprintf(&b, " on %s", cli.Printable(f.Bridge))
		}
		b.WriteString(" is not ours and stays")
		if f.Note != "" {
			fmt.Fprintf(&b, ": %s", cli.Printable(f.Note))
		}
		b.WriteString("\n")
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", cli.Printable(warning))
	}
	if p.Empty() {
		b.WriteString("nothing to do\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeFlows prints flows a line each, without their cookies.
func writeFlows(b *strings.Builder, sign string, flows any) {
	list, _ := flows.([]string)
	for _, f := range list {
		fields := strings.FieldsFunc(f, func(r rune) bool { return r == ',' || r == ' ' })
		fields = slices.DeleteFunc(fields, func(s string) bool { return strings.HasPrefix(s, "cookie=") || s == "table=0" })
		fmt.Fprintf(b, "    %s %s\n", sign, cli.Printable(strings.Join(fields, ",")))
	}
}

func value(v any) string {
	if v == nil {
		return "none"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return cli.Printable(string(b))
}
