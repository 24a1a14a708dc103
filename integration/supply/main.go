// Supply says what the binaries are made of, as they themselves say it (their
// build information, debug/buildinfo): which modules, under which licences.
//
//	supply licences BIN                    list them; exit 1 for one that may not be in there
//	supply notices BIN                     the licences' texts, as they ask for
//	supply sbom BIN VERSION                a CycloneDX 1.6 bill of materials, JSON
//	supply sizes BIN                       bytes of each binary beside their ceilings
//
// The same binaries give the same bytes. The time in the bill of materials is
// SOURCE_DATE_EPOCH, the beginning of 1970 without it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := run(out, os.Args[1:])
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: supply licences|notices|sbom|sizes BIN [VERSION]")
	}
	s, err := read(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "licences":
		return s.licences(w)
	case "notices":
		return s.notices(w)
	case "sbom":
		if len(args) != 3 {
			return fmt.Errorf("usage: supply sbom BIN VERSION")
		}
		return s.sbom(w, args[2], os.Getenv("SOURCE_DATE_EPOCH"))
	case "sizes":
		return s.sizes(w)
	}
	return fmt.Errorf("what is %q?", args[0])
}

// licences lists the modules. The error names those whose licence is not one
// of those that may be in a program under the Apache License.
func (s *supply) licences(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	var bad []string
	for _, m := range s.modules {
		fmt.Fprintf(t, "%s\t%s\t%s\n", m.path, m.version, strings.Join(m.licences, " AND "))
		if why := m.objection(); why != "" {
			bad = append(bad, m.path+": "+why)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("licences: %s", strings.Join(bad, "; "))
	}
	return nil
}

// notices prints what each module's licences want to stand beside a copy.
func (s *supply) notices(w io.Writer) error {
	fmt.Fprintf(w, "GhostBridge's programs have the following in them, under these licences.\n")
	for _, m := range s.modules {
		for _, f := range m.files {
			fmt.Fprintf(w, "\n%s\n%s %s: %s\n%[1]s\n\n%s\n", strings.Repeat("=", 78), m.path, m.version, f.name, strings.TrimRight(f.text, "\n"))
		}
	}
	return nil
}

// ceilings are the most bytes that each binary of make build may have; who
// needs more raises them, and says why in the commit.
var ceilings = map[string]int64{
	"gb-chain": 12 << 20, "gb-snap": 8 << 20, "gb-vecsync": 27 << 20, "gb-ovs-setup": 8 << 20, "opdbus": 21 << 20, "gb-web": 17 << 20,
}

func (s *supply) sizes(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	var bad []string
	for _, b := range s.binaries {
		ceiling, ok := ceilings[b.name]
		fmt.Fprintf(t, "%s\t%d\tof %d bytes\t\n", b.name, b.size, ceiling)
		if !ok || b.size > ceiling {
			bad = append(bad, fmt.Sprintf("%s has %d bytes, more than %d", b.name, b.size, ceiling))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("sizes: %s", strings.Join(bad, "; "))
	}
	return nil
}
