// Gb-chain is the tamper-evident log: see its man page.
package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/intake"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func main() { cli.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:  names.GBChain,
		Usage: "a log that nobody can rewrite, and anybody can check",
		Description: `gb-chain keeps events, one JSON object a line, in append-only files under a
Merkle tree (RFC 6962) whose root is signed as a C2SP checkpoint. What was
acknowledged survives a crash; what was signed can't be changed unseen.

   gb-chain init --log L --origin host.example/log
   echo '{"source":"demo","type":"note","message":"hello"}' | gb-chain append --log L
   gb-chain query --log L
   gb-chain verify --log L

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 verification
failed, 75 temporary, try again.`,
		Commands: []*cli.Command{
			initCommand(), appendCommand(), serveCommand(), queryCommand(), verifyCommand(),
			statusCommand(), proveCommand(), checkCommand(), checkpointCommand(), keyCommand(), exportCommand(), rotateKeyCommand(), pruneCommand(), witnessCommand(),
		},
		Values: map[string][]string{"FORMAT": append([]string{"event"}, intake.Formats()...), "SEVERITY": event.SeverityNames()},
	}
}
