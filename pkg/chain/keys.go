package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Keys is what a log's writer keeps outside of the log, in a directory of its
// own below the keys directory, named by the log key:
//
//	log.key       the log key, as golang.org/x/mod/sumdb/note writes it,
//	              unless it is a credential
//	epoch.key     the epoch key, two slots of 4 KiB
//	last          size and root of the last checkpoint signed here: a pin
//	              against a log that was put back to an earlier state
//
// The directory must not be on a subvolume that is snapshotted: a snapshot
// would keep the epoch keys that are meant to be destroyed.
type Keys struct {
	dir   string
	log   *merkle.Signer
	epoch *epochFile
	last  lastCheckpoint
}

const (
	logKeyFile   = "log.key"
	epochKeyFile = "epoch.key"
	lastFile     = "last"
)

// KeysID returns the name of a log's directory below the keys directory.
func KeysID(logKey merkle.Verifier) string {
	sum := sha256.Sum256([]byte(logKey.String()))
	return hex.EncodeToString(sum[:8])
}

// CheckKeysDir refuses a keys directory inside of the log directory, and says
// whether it lies on the same btrfs subvolume, whose snapshots would then hold
// epoch keys.
func CheckKeysDir(keysDir, logDir string) (sameSubvolume bool, err error) {
	k, err := resolve(keysDir)
	if err != nil {
		return false, err
	}
	l, err := resolve(logDir)
	if err != nil {
		return false, err
	}
	if k == l || strings.HasPrefix(k, l+"/") {
		return false, &configError{fmt.Errorf("keys directory %s is inside of log directory %s", keysDir, logDir),
			"choose another --keys directory, on a file system or subvolume that is never snapshotted"}
	}
	var fsk unix.Statfs_t
	var sk, sl unix.Stat_t
	if unix.Statfs(existing(k), &fsk) == nil && fsk.Type == unix.BTRFS_SUPER_MAGIC &&
		unix.Stat(existing(k), &sk) == nil && unix.Stat(existing(l), &sl) == nil {
		// Each btrfs subvolume has a device number of its own.
		return sk.Dev == sl.Dev, nil
	}
	return false, nil
}

// resolve returns path absolute and without symbolic links, also if its last
// elements do not exist yet.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	base := existing(abs)
	real, err := filepath.EvalSymlinks(base)
	if err != nil {
		return "", err
	}
	return filepath.Join(real, strings.TrimPrefix(abs, base)), nil
}

// existing returns the longest part of an absolute path that exists.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return path
}

// createKeys makes the directory for a new log's keys and stores them.
func createKeys(keysDir string, log, epoch *merkle.Signer) (*Keys, error) {
	cred, err := readCredentials()
	if err != nil {
		return nil, err
	}
	if cred.logKey != nil {
		return nil, &configError{fmt.Errorf("credential %s is the key of a log that there was: two logs under one key contradict each other", filepath.Join(cred.dir, CredentialLogKey)),
			"take it away; the new log has a key of its own"}
	}
	dir := filepath.Join(keysDir, KeysID(log.Verifier()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, keysError(err)
	}
	if err := durable.Replace(filepath.Join(dir, logKeyFile), logKeyText(log, cred.seal), 0o600); err != nil {
		return nil, keysError(err)
	}
	ef, err := createEpochFile(filepath.Join(dir, epochKeyFile), epoch, cred.seal)
	if err != nil {
		return nil, keysError(err)
	}
	if err := durable.SyncDir(keysDir); err != nil {
		ef.close()
		return nil, err
	}
	return &Keys{dir, log, ef, lastInDir{dir}}, nil
}

func keysError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &configError{err, "run as root, or name a directory of your own with --keys or GB_KEYS"}
	}
	return err
}

// openKeys opens the keys of the log with the given public log key. The log
// key itself may come from $CREDENTIALS_DIRECTORY instead, and so may what
// opens sealed ones.
func openKeys(keysDir string, logKey merkle.Verifier) (*Keys, error) {
	cred, err := readCredentials()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(keysDir, KeysID(logKey))
	file := filepath.Join(dir, logKeyFile)
	signer := cred.logKey
	if signer != nil {
		file = filepath.Join(cred.dir, CredentialLogKey)
	} else if signer, err = readLogKey(file, logKey, cred.seal); errors.Is(err, fs.ErrNotExist) {
		return nil, &configError{fmt.Errorf("log key %s: %w", logKey, err), "name the directory that holds this log's keys with --keys or GB_KEYS"}
	} else if err != nil {
		return nil, keysError(err)
	}
	if signer.Verifier().String() != logKey.String() {
		return nil, fmt.Errorf("%s is the key %s, the log's is %s", file, signer.Verifier(), logKey)
	}
	ef, err := openEpochFile(filepath.Join(dir, epochKeyFile), layout.EpochKeyName(logKey.Name()), cred.seal)
	if err != nil {
		return nil, keysError(err)
	}
	return &Keys{dir, signer, ef, lastInDir{dir}}, nil
}

// close forgets the keys.
func (k *Keys) close() error { return k.epoch.close() }

// A lastCheckpoint remembers the last checkpoint signed here. It is saved
// without fsync, so that a power cut may take it back or leave it empty: it
// can only say too little.
type lastCheckpoint interface {
	load() (size int64, root merkle.Hash, ok bool)
	save(c merkle.Checkpoint) error
}

// lastInDir keeps it in a file of the directory.
type lastInDir struct{ dir string }

func (l lastInDir) load() (size int64, root merkle.Hash, ok bool) {
	b, err := os.ReadFile(filepath.Join(l.dir, lastFile))
	if err != nil {
		return 0, root, false
	}
	fields := strings.Fields(string(b))
	if len(fields) != 2 {
		return 0, root, false
	}
	if size, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return 0, root, false
	}
	root, err = merkle.ParseHash(fields[1])
	return size, root, err == nil
}

func (l lastInDir) save(c merkle.Checkpoint) error {
	tmp := filepath.Join(l.dir, lastFile+".tmp")
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%d %s\n", c.Size, c.Root), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(l.dir, lastFile))
}

// An epochFile holds the secret epoch keys in two slots of slotSize bytes,
// each overwritten in place. At rest one slot is in use. While a key is
// rotated the next key is in the other slot, from before its event is written
// until the old slot has been overwritten, so that a crash leaves at least one
// key that the log knows.
//
// A slot is slotMagic, the epoch's number (8 bytes, big endian), the seed (32
// bytes), the SHA-256 of all this, and zeros. With a sealing key it is
// slotMagicSealed, and in place of the seed stands what the sealer made of it.
//
// BUG: overwriting in place erases nothing on a file system that moves data
// (btrfs without NOCOW, log-structured ones) nor within flash memory that
// remaps its blocks. On btrfs the file is made NOCOW, which holds as long as
// no snapshot has it.
type epochFile struct {
	f     slotFile
	name  string  // of the keys
	seal  *sealer // for what is written; nil for none
	slots [2]*epochSlot
}

// A slotFile is a file that is overwritten in place.
type slotFile interface {
	io.ReaderAt
	io.WriterAt
	Datasync() error
	io.Closer
}

type epochSlot struct {
	number int64
	key    *merkle.Signer
}

const (
	slotSize  = 4096
	slotMagic = "GBEPOCH1"

	slotMagicSealed = "GBEPOCH2"
)

func createEpochFile(path string, first *merkle.Signer, seal *sealer) (*epochFile, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return newEpochFile(path, first.Verifier().Name(), seal, &epochSlot{0, first})
}

// newEpochFile makes the file with a key in its first slot, or with none.
func newEpochFile(path, name string, seal *sealer, first *epochSlot) (*epochFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	e := &epochFile{f: fileAppender{f}, name: name, seal: seal}
	// NOCOW must be set while the file is empty; other file systems refuse it
	// and need it not.
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		const nocow = 0x00800000 // FS_NOCOW_FL of linux/fs.h
		unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|nocow)
	}
	if err := e.begin(first); err != nil {
		f.Close()
		return nil, err
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// begin writes both slots of an empty file.
func (e *epochFile) begin(first *epochSlot) error {
	if err := e.write(1, nil); err != nil {
		return err
	}
	return e.write(0, first)
}

// openEpochFile opens the file. One that is gone is made anew without a key, so
// that the recovery key's epoch has where to put its own; without its directory
// that is an error.
func openEpochFile(path, name string, seal *sealer) (*epochFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return newEpochFile(path, name, seal, nil)
	}
	if err != nil {
		return nil, err
	}
	e, err := readEpochFile(fileAppender{f}, name, seal)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

func readEpochFile(f slotFile, name string, seal *sealer) (*epochFile, error) {
	e := &epochFile{f: f, name: name, seal: seal}
	var err error
	for i := range e.slots {
		if e.slots[i], err = e.read(i); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// read returns what slot i holds, nil if it is empty or was being written when
// the machine stopped.
func (e *epochFile) read(i int) (*epochSlot, error) {
	b := make([]byte, slotSize)
	if _, err := e.f.ReadAt(b, int64(i)*slotSize); err != nil {
		return nil, fmt.Errorf("slot %d: %w", i, err)
	}
	const head = len(slotMagic) + 8
	seedSize, sealed := 32, bytes.HasPrefix(b, []byte(slotMagicSealed))
	if sealed {
		seedSize += sealOverhead
	}
	body := head + seedSize
	sum := sha256.Sum256(b[:body])
	if !sealed && !bytes.HasPrefix(b, []byte(slotMagic)) || !bytes.Equal(sum[:], b[body:body+len(sum)]) {
		return nil, nil
	}
	number := int64(binary.BigEndian.Uint64(b[len(slotMagic):]))
	seed := b[head:body]
	if sealed {
		var err error
		if seed, err = e.seal.open(seed, e.purpose(number)); err != nil {
			return nil, err
		}
	}
	key, err := merkle.KeyFromSeed(e.name, [32]byte(seed))
	if err != nil {
		return nil, err
	}
	return &epochSlot{number, key}, nil
}

// purpose is what the seed of an epoch is sealed for.
func (e *epochFile) purpose(number int64) string {
	return fmt.Sprintf("ghostbridge epoch key\n%s\n%d", e.name, number)
}

// write overwrites slot i in place with s, or with zeros if s is nil, and
// makes that durable.
func (e *epochFile) write(i int, s *epochSlot) error {
	b := make([]byte, slotSize)
	if s != nil {
		array := s.key.Seed()
		magic, seed := slotMagic, array[:]
		if e.seal != nil {
			magic, seed = slotMagicSealed, e.seal.seal(seed, e.purpose(s.number))
		}
		n := copy(b, magic)
		binary.BigEndian.PutUint64(b[n:], uint64(s.number))
		n += 8
		n += copy(b[n:], seed)
		sum := sha256.Sum256(b[:n])
		copy(b[n:], sum[:])
	}
	if _, err := e.f.WriteAt(b, int64(i)*slotSize); err != nil {
		return err
	}
	if err := e.f.Datasync(); err != nil {
		return err
	}
	e.slots[i] = s
	return nil
}

// find returns the slot that holds the secret of the public key v, -1 if none
// does.
func (e *epochFile) find(v merkle.Verifier) int {
	for i, s := range e.slots {
		if s != nil && s.key.Verifier().String() == v.String() {
			return i
		}
	}
	return -1
}

func (e *epochFile) close() error { return e.f.Close() }
