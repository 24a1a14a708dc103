package chain

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// The file of epoch keys has two slots of 4 KiB, is its owner's alone, and
// holds, after a rotation, nothing of the key before: neither as it was nor at
// another place of the file.
func TestRotationLeavesNothingOfTheOldKey(t *testing.T) {
	l, _ := newLogIn(t)
	path := filepath.Join(l.keys.dir, epochKeyFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != 2*slotSize || info.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes, mode %v", info.Size(), info.Mode())
	}
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	before := inode()
	for range 3 {
		slot := l.keys.epoch.find(l.ring.EpochKey(l.ring.Epochs() - 1))
		old := l.keys.epoch.slots[slot].key.Seed()
		if err := l.RotateKey(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, old[:]) {
			t.Fatal("the old key is still in the file")
		}
		if len(bytes.Trim(data[slot*slotSize:(slot+1)*slotSize], "\x00")) > 0 {
			t.Error("the old key's slot is not empty")
		}
		key := l.keys.epoch.slots[1-slot].key.Seed()
		if !bytes.Contains(data[(1-slot)*slotSize:], key[:]) || bytes.Contains(data, []byte("PRIVATE+KEY")) {
			t.Error("the new key is not where it belongs")
		}
	}
	if inode() != before || len(data(t, path)) != 2*slotSize {
		t.Error("the file was replaced, not overwritten in place")
	}
}

func data(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// On btrfs the file is not copied on write: the old key's block is written
// over on the disk itself, and is nowhere in the image after that.
func TestOldKeyIsOverwrittenOnBtrfs(t *testing.T) {
	require.Root(t)
	mnt := loopbtrfs.Mount(t, loopbtrfs.Options{Size: 256 << 20})
	dir, keys := filepath.Join(mnt, "log"), filepath.Join(t.TempDir(), "keys")
	if same, err := CheckKeysDir(filepath.Join(mnt, "keys"), dir); err != nil || !same {
		t.Errorf("keys on the log's subvolume: %v, %v", same, err)
	}
	if same, err := CheckKeysDir(keys, dir); err != nil || same {
		t.Errorf("keys elsewhere: %v, %v", same, err)
	}
	if _, err := CheckKeysDir(filepath.Join(dir, "keys"), dir); err == nil {
		t.Error("keys in the log are taken")
	}
	keys = filepath.Join(mnt, "keys")
	if _, err := Create(dir, "nocow.example/log", keys, Options{}); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	f, err := os.Open(filepath.Join(l.keys.dir, epochKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const nocow = 0x00800000
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err != nil || flags&nocow == 0 {
		t.Errorf("flags %#x, %v: not NOCOW", flags, err)
	}
	old := l.keys.epoch.slots[0].key.Seed()
	if err := l.RotateKey(); err != nil {
		t.Fatal(err)
	}
	current := l.keys.epoch.slots[1].key.Seed()
	unix.Sync()
	var device string
	for line := range bytes.Lines(data(t, "/proc/self/mounts")) {
		if fields := bytes.Fields(line); string(fields[1]) == mnt {
			device = string(fields[0])
		}
	}
	disk := data(t, device)
	if !bytes.Contains(disk, current[:]) {
		t.Error("the current key is not found on the disk, so that the next line shows nothing")
	}
	if bytes.Contains(disk, old[:]) {
		t.Error("the old key is still on the disk")
	}
}

// A slot of any content is read as a key or as empty, never as an error that
// keeps the log from being opened while the other slot is good.
func FuzzSlotsNeverHideTheGoodOne(f *testing.F) {
	key, err := merkle.KeyFromSeed(layout.EpochKeyName("o"), [32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil), 5)
	f.Add([]byte(slotMagic), 4000)
	f.Fuzz(func(t *testing.T, other []byte, cut int) {
		d := &disk{files: make(map[string]*diskFile), keys: &diskFile{}}
		e := &epochFile{f: &diskHandle{d, epochKeyFile, d.keys}, name: layout.EpochKeyName("o")}
		if err := e.begin(&epochSlot{0, key}); err != nil {
			t.Fatal(err)
		}
		slot := make([]byte, slotSize)
		copy(slot, other)
		if _, err := e.f.WriteAt(slot, slotSize); err != nil {
			t.Fatal(err)
		}
		read, err := readEpochFile(e.f, e.name, nil)
		if err != nil || read.find(key.Verifier()) != 0 {
			t.Fatalf("the good slot is hidden: %v", err)
		}
		// A file cut short is an error, not a panic.
		if cut >= 0 && cut < 2*slotSize {
			d.keys.data = d.keys.data[:cut:cut]
			if _, err := readEpochFile(e.f, e.name, nil); err == nil {
				t.Error("a file that is cut short is read")
			}
		}
	})
}

// The bytes behind the latest checkpoint may be anything: the log opens, or
// says that it is damaged; if it opens it verifies, holds all that is signed,
// and keeps aside what it cut.
func FuzzRecoverAnyTail(f *testing.F) {
	base, d := newCrashLog(f)
	segment := d.files[layout.SegmentName(0)]
	whole := bytes.Clone(segment.data)
	f.Add([]byte("{\"i\":1"), []byte(nil), []byte(nil))
	f.Add([]byte("\n\n\x00"), []byte("000000"), []byte("\u2014"))
	f.Add(append(bytes.Clone(whole), whole...), []byte("\n"), []byte("\n\n"))
	f.Fuzz(func(t *testing.T, tail, seals, archive []byte) {
		c, e := base.clone(), d.clone(d.rnd)
		e.files[layout.SegmentName(0)].data = append(bytes.Clone(whole), tail...)
		if len(seals) > 0 {
			e.files[layout.Seals] = &diskFile{data: seals, existed: true}
		}
		e.files[layout.Checkpoints].data = append(bytes.Clone(e.files[layout.Checkpoints].data), archive...)
		l, err := c.open(e)
		if err != nil {
			var damaged *DamagedError
			if !errors.As(err, &damaged) {
				t.Fatal(err)
			}
			return
		}
		if err := c.append(l, 1, false); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(e.files[layout.SegmentName(0)].data, whole) {
			t.Fatal("what was signed has changed")
		}
		if len(seals) == 0 && len(archive) == 0 {
			if err := c.check(e); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The reader of lines gives back every byte of its input, in order, whatever
// that is, and holds no more of it than a line may have.
func FuzzLineReaderKeepsBytes(f *testing.F) {
	f.Add([]byte("a\nb\n"), uint8(0))
	f.Add(bytes.Repeat([]byte("x"), 70000), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, grow uint8) {
		in = append(bytes.Repeat([]byte{'y'}, int(grow)*600), in...)
		r := newLineReader(bytes.NewReader(in))
		var out []byte
		for {
			line, err := r.next()
			switch {
			case err == nil:
				if bytes.IndexByte(line, '\n') >= 0 {
					t.Fatal("a line holds a newline")
				}
				out = append(append(out, line...), '\n')
				if r.off != int64(len(out)) {
					t.Fatalf("offset %d after %d bytes", r.off, len(out))
				}
				continue
			case errors.Is(err, errTornLine):
				out = append(out, line...)
			case errors.Is(err, errLongLine):
				return // the caller stops here
			}
			break
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("%d bytes in, %d out", len(in), len(out))
		}
	})
}
