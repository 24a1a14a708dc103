package main

import "github.com/ghostbridge/ghostbridge/pkg/cli"

func answerCommand() *cli.Command {
	return &cli.Command{
		Name:  "answer",
		Usage: "do what opdbus asks for on standard input",
		Description: `Reads one request from standard input and answers it on standard output, for
opdbus serve, which has no rights over the network itself. ovs-switch.socket
starts it for each connection; the socket is root's alone. FORMATS.md has the
form of requests.

Example:

   echo '{"do":"survey","config":{"bridges":{}}}' | gb-ovs-setup answer`,
		Flags: setupFlags(),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cli.Usagef("answer takes no argument")
			}
			s, err := setup(c)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Answer(c.Context, c.App.Reader, c.App.Writer)
		},
	}
}
