// Package sendstream reads, writes, replays and prints btrfs send streams,
// versions 1, 2 and 3.
//
// A [Reader] gives the headers and commands of one or more streams:
//
//	r := sendstream.NewReader(os.Stdin, sendstream.Options{})
//	for {
//		cmd, err := r.Next()
//		if err == io.EOF {
//			break // after an End
//		}
//		if err != nil {
//			return err // a *sendstream.Error
//		}
//		switch c := cmd.(type) {
//		case *sendstream.Header: // a stream begins
//		case *sendstream.Snapshot: // a subvolume begins
//		case *sendstream.Write: // c.Path, c.Offset, c.Data
//		case *sendstream.EncodedWrite: // r.Decode(c) gives the data
//		case *sendstream.End: // the stream is complete
//		}
//	}
package sendstream
