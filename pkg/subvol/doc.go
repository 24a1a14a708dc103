// Package subvol is what GhostBridge needs of btrfs: snapshots, their
// identity and order, sending, deleting, and how far the cleaner is behind.
//
// Creating subvolumes and snapshots is containerd/btrfs. The rest is ioctls of
// <linux/btrfs.h>, because that library lacks them, or does them in time that
// grows with the file system: its SubvolInfo walks the whole root tree where
// GET_SUBVOL_INFO takes two microseconds, its SubvolDelete walks every file of
// the snapshot first.
//
// System is the real thing and Memory its double; both have the same methods,
// and the callers declare which of them they use. On systems other than Linux,
// and without cgo, System's methods return ErrUnsupported.
//
// Guarantees: a Snapshot that returned nil is there after a crash, for the
// ioctl waits for the transaction's commit. Delete removes the subvolume with
// the id it was given or nothing. Send writes one whole stream or returns an
// error; no signal that this process gets can begin the stream anew in its
// middle. Not guaranteed: that the space of a deleted subvolume is free when
// Delete returns (see Backlog).
//
// BUG: ioctl numbers are those of the generic layout, which mips, powerpc and
// sparc do not use.
package subvol
