// Package snap takes read-only btrfs snapshots of a subvolume, thins them out
// and sends them.
//
// A Store is a directory of snapshots, all directly in it, each named by the
// UTC time it was taken, to the nanosecond: 20261123T081159.123456789Z. What
// they are a snapshot of, and in which order they came, is asked of btrfs (its
// subvolume ids only grow), so that a clock that is set back does no harm.
// Nothing but holds is kept beside them, in the directory .holds, one file of
// JSON each:
//
//	{"name":"audit-2026","snapshots":[{"uuid":"…","name":"…","id":1234,"source_uuid":"…","since":"…"}]}
//
// Guarantees:
//
//   - A snapshot that is held, or that a known cursor file names, is not
//     deleted, nor is the newest of a source. Where a hold or a cursor file
//     can't be read, nothing is deleted at all.
//   - The number of snapshots does not rise above Policy.MaxCount: where no
//     room can be made, no snapshot is taken, and that is an error.
//   - A stream is sent against exactly the parent that the cursor names, or
//     not at all.
//   - A process that is killed at any point leaves a state from which the next
//     one goes on.
//
// Not guaranteed: that a change is seen in the tick in which it was made if it
// was neither synced nor moved a file's size or times; the kernel writes such
// a change out within its dirty_expire_centisecs (30 s), and then it is seen.
//
// Locks, in this order: flock on the store's directory, held by whoever takes
// snapshots; flock on .holds, held while snapshots are chosen for sending and
// while they are deleted, so that a snapshot can't be deleted between being
// chosen and being held.
package snap
