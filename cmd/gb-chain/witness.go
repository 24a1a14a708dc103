package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func witnessesFlag() cli.Flag {
	return &cli.StringFlag{Name: "witnesses", EnvVars: []string{"GB_WITNESSES"}, Value: names.WitnessDir,
		Usage: "`DIR` that says who the witnesses are and where they stand; empty for none"}
}

func witnessCommand() *cli.Command {
	return &cli.Command{
		Name:  "witness",
		Usage: "have others remember the log's state",
		Description: `A witness is a server on another host (c2sp.org/tlog-witness) that remembers how
far it has seen the log, cosigns each checkpoint that continues it, and refuses
one that does not: a log that was put back or rewritten. The witness must know
the log's origin and its public key (gb-chain key).

Every checkpoint is offered to every witness, by the daemon, by append where it
writes the log itself, or by witness offer --follow where the daemon has no
network, as under systemd: systemctl enable --now blockchain-witness.service.
None waits for a witness.

Example:

   gb-chain witness add --log L https://witness.example/ --key 'witness.example+ad98…'
   gb-chain witness ls --log L`,
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a witness", ArgsUsage: "URL",
				Description: "URL is the witness' submission prefix, --key the public key that it cosigns with.\n\nExample:\n\n   gb-chain witness add --log L https://witness.example/ --key 'witness.example+ad98…'",
				Flags:       []cli.Flag{logFlag(), witnessesFlag(), &cli.StringFlag{Name: "key", Usage: "the witness' public `KEY`, of type 4, or a file that holds it"}},
				Action:      runWitnessAdd,
			},
			{
				Name: "rm", Usage: "remove a witness", ArgsUsage: "URL|NAME",
				Description: "Example:\n\n   gb-chain witness rm --log L witness.example",
				Flags:       []cli.Flag{logFlag(), witnessesFlag()},
				Action:      runWitnessRemove,
			},
			{
				Name: "ls", Usage: "say where each witness stands",
				Description: "Exit code 3 if a witness refuses the log as another one or as put back.\n\nExample:\n\n   gb-chain witness ls --log L",
				Flags:       []cli.Flag{logFlag(), witnessesFlag(), &cli.BoolFlag{Name: "json", Usage: "print one JSON object a witness"}},
				Action:      runWitnessList,
			},
			{
				Name: "offer", Usage: "offer the latest checkpoint to every witness",
				Description: "Prints the checkpoint with its cosignatures. Exit code 3 if a witness refuses the\nlog as another one or as put back. With --follow it stays and offers each one.\n\nExample:\n\n   gb-chain witness offer --log L",
				Flags:       []cli.Flag{logFlag(), witnessesFlag(), &cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with each new checkpoint"}},
				Action:      runWitnessOffer,
			},
		},
	}
}

// witnesses opens the log's witnesses; nil if --witnesses is empty.
func witnesses(c *cli.Context) (*chain.Witnesses, error) {
	dir := c.String("witnesses")
	if dir == "" {
		return nil, nil
	}
	fsys := os.DirFS(c.String("log"))
	created, err := chain.ReadCreated(fsys)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", c.String("log"), err)
	}
	return chain.OpenWitnesses(fsys, dir, created.LogKey), nil
}

// someWitnesses is witnesses for commands that are of no use without.
func someWitnesses(c *cli.Context) (*chain.Witnesses, error) {
	w, err := witnesses(c)
	if err == nil && w == nil {
		err = cli.Usagef("--witnesses is empty")
	}
	return w, err
}

func runWitnessAdd(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return cli.Usagef("witness add wants one URL")
	}
	vkey := c.String("key")
	if vkey == "" {
		return cli.WithHint(cli.Usagef("witness add wants the witness' public key: --key"), "the witness' operator publishes it; without it nobody could say whose the cosignatures are")
	}
	if data, err := os.ReadFile(vkey); err == nil {
		vkey = string(data)
	}
	key, err := merkle.ParseWitness(strings.TrimSpace(vkey))
	if err != nil {
		return cli.Usagef("--key: %w", err)
	}
	w, err := someWitnesses(c)
	if err != nil {
		return err
	}
	return w.Add(chain.Witness{URL: c.Args().First(), Key: key})
}

func runWitnessRemove(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return cli.Usagef("witness rm wants one URL or name")
	}
	w, err := someWitnesses(c)
	if err != nil {
		return err
	}
	return w.Remove(c.Args().First())
}

func runWitnessList(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	w, err := someWitnesses(c)
	if err != nil {
		return err
	}
	list, err := w.List()
	if err != nil {
		return err
	}
	if len(list) == 0 && !c.Bool("json") {
		fmt.Fprintln(c.App.ErrWriter, "gb-chain: there is no witness; witness add names one")
	}
	refused := false
	for _, s := range list {
		refused = refused || s.Refused
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, s); err != nil {
				return err
			}
			continue
		}
		stands := "has cosigned nothing yet"
		if s.Size > 0 && s.Cosigned.IsZero() {
			stands = fmt.Sprintf("stands at %d events", s.Size)
		} else if s.Size > 0 {
			stands = fmt.Sprintf("cosigned %d events at %s", s.Size, s.Cosigned.UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(c.App.Writer, "%s  %s  %s\n", cli.Printable(s.Key.Name()), cli.Printable(s.URL), stands)
		if s.Error != "" {
			fmt.Fprintf(c.App.Writer, "    at %s: %s\n", s.Tried.UTC().Format(time.RFC3339), cli.Printable(s.Error))
		}
	}
	if refused {
		return cli.Exit(cli.ExitVerify)
	}
	return nil
}

func runWitnessOffer(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	w, err := someWitnesses(c)
	if err != nil {
		return err
	}
	if c.Bool("follow") {
		w.Logger = cli.Logger(c.App.ErrWriter)
		wake := make(chan struct{}, 1)
		go watchCheckpoint(c.Context, c.String("log"), wake)
		w.Run(c.Context, wake)
		return nil
	}
	if err := w.OfferAll(c.Context); err != nil {
		return err
	}
	note, err := w.Cosigned()
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(note)
	return err
}

// watchCheckpoint wakes when there is another checkpoint, and once at first.
// It looks four times a second: less than a checkpoint takes to be signed.
func watchCheckpoint(ctx context.Context, dir string, wake chan<- struct{}) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var last os.FileInfo
	for {
		if info, err := os.Stat(filepath.Join(dir, layout.Checkpoint)); err == nil && (last == nil || !os.SameFile(info, last) || !info.ModTime().Equal(last.ModTime())) {
			last = info
			select {
			case wake <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// offers offers checkpoints while this process writes the log.
type offers struct {
	c     *cli.Context
	w     *chain.Witnesses // nil for none
	woken chan struct{}
	stop  func()
	ended chan struct{}
}

func startOffers(c *cli.Context) (*offers, error) {
	w, err := witnesses(c)
	if err != nil || w == nil {
		return &offers{}, err
	}
	w.Logger = cli.Logger(c.App.ErrWriter)
	ctx, stop := context.WithCancel(c.Context)
	o := &offers{c, w, make(chan struct{}, 1), stop, make(chan struct{})}
	go func() {
		w.Run(ctx, o.woken)
		close(o.ended)
	}()
	o.wake()
	return o, nil
}

// wake says that there may be another checkpoint. It does not block.
func (o *offers) wake() {
	if o.w == nil {
		return
	}
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// finish offers the last checkpoint.
func (o *offers) finish() {
	if o.w == nil {
		return
	}
	o.stop()
	<-o.ended
	offerOnce(o.c, o.w)
}

// offer offers the latest checkpoint after a command has written the log.
func offer(c *cli.Context) {
	w, err := witnesses(c)
	if err != nil {
		fmt.Fprintf(c.App.ErrWriter, "gb-chain: warning: not cosigned: %v\n", err)
	} else if w != nil {
		offerOnce(c, w)
	}
}

// offerOnce waits for a few seconds at most, also if the command is being
// ended, and fails nothing: the events are stored, and the next offer covers
// them.
func offerOnce(c *cli.Context, w *chain.Witnesses) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.Context), 3*time.Second)
	defer stop()
	if err := w.OfferAll(ctx); err != nil {
		fmt.Fprintf(c.App.ErrWriter, "gb-chain: warning: not cosigned: %v\n", err)
	}
}
