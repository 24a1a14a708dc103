package sendstream

import "io"

// A Tree is something that a stream can be applied to: a [Memory] or a [Dir].
type Tree interface {
	// Apply carries out one command. It keeps no reference to it.
	Apply(c Command) error
}

// Replay applies all commands that r gives to t, up to the end of the input.
// An error of the tree is returned as an *[Error] with the command's position.
func Replay(t Tree, r *Reader) error {
	for {
		c, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.Apply(c); err != nil {
			return &Error{Offset: r.CommandOffset(), Command: r.Number(), Kind: c.Kind(), Err: err}
		}
	}
}
