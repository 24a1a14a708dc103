// Package chain is the tamper-evident log: an append-only file of JSON lines
// under a Merkle tree whose root is signed.
//
// A Log is the one writer of a log directory (package layout says what is in
// it). What Append has returned without an error survives a crash; a
// checkpoint is signed only over what is durable. Readers, Verify and Query,
// take an fs.FS, so they work on a live log, on a read-only snapshot, and in
// a test's memory; they hold no lock.
//
// Guarantees: an event that was acknowledged is never lost by a crash of the
// process or the machine; after a failed fsync the writer stops for good; two
// writers never interleave (flock on the directory). A change to the log up to
// the last checkpoint is found by Verify, and, up to the current epoch, even
// if the intruder holds every key on the machine, as long as the verifier
// knows the log's first keys (VerifyOptions) or has a pin.
//
// Not guaranteed: that nobody replaces the whole directory, keys included, by
// an earlier state of itself. Only a pin kept elsewhere (another host's
// witness, a cursor) finds that, and Verify says when it had none.
package chain
