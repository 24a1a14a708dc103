// Package vecsync brings the events of a log into an index, from btrfs send
// streams of the subvolume that the log is on, or from the log's own files.
//
// A stream is taken whole or not at all: what it brings is in the index when
// its END has been read, every line has its right checksum and index, the
// Merkle tree over them has the root of the checkpoint that the stream's
// snapshot holds, and both signatures of that checkpoint are good. Only what
// the checkpoint covers is indexed. Events, the state of the tree and the
// cursor change in one transaction; the cursor is then published as a file,
// which is the only acknowledgement.
//
// What a stream brings again (btrfs sends whole 4 KiB blocks, and everything
// in a full stream) is compared with what is known. A difference, a removed or
// shortened segment, or a wrong root is a Finding: nothing of that stream is
// taken, the finding stays in the index and in every answer, and nothing more
// is taken until somebody accepts it.
package vecsync
