package vecsynctest

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A Form is how a stream says what it says.
type Form struct {
	Version    uint32 // 1 or 2
	Compressed bool   // encoded writes, version 2
	Seed       uint64 // of what a kernel is free to choose
}

const block = 4096

// Stream returns the commands that lead from one snapshot to another, in full
// if from is nil, in the order and with the names that kernels use.
func Stream(from, to *Step, form Form) []byte {
	var out bytes.Buffer
	w := sendstream.NewWriter(&out)
	for _, c := range Commands(from, to, form) {
		if err := w.WriteCommand(c); err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}

// Commands returns the commands of Stream.
func Commands(from, to *Step, form Form) []sendstream.Command {
	s := &sender{form: form, rand: rand.New(rand.NewPCG(form.Seed, 9)), now: make(map[uint64]string), at: make(map[string]uint64)}
	s.put(&sendstream.Header{Version: form.Version})
	name := []byte(fmt.Sprintf("snap%d", to.Ctransid))
	if from == nil {
		s.put(&sendstream.Subvol{Path: name, UUID: to.UUID, Ctransid: to.Ctransid})
		from = &Step{}
	} else {
		s.put(&sendstream.Snapshot{Path: name, UUID: to.UUID, Ctransid: to.Ctransid, ParentUUID: from.UUID, ParentCtransid: from.Ctransid})
	}
	old, final := byInode(from), byInode(to)
	for ino, f := range old {
		s.move(ino, f.path)
	}
	inodes := slices.Sorted(maps.Keys(final))
	for ino := range old {
		if _, stays := final[ino]; !stays {
			inodes = append(inodes, ino)
		}
	}
	sort.Slice(inodes, func(i, j int) bool { return inodes[i] < inodes[j] })
	for _, ino := range inodes {
		s.inode(ino, old[ino], final[ino], final)
	}
	for _, p := range slices.Backward(s.gone) { // what was in them is gone by now
		s.put(&sendstream.Rmdir{Path: []byte(p)})
	}
	s.put(&sendstream.End{})
	return s.out
}

type located struct {
	*Inode
	path string
}

func byInode(s *Step) map[uint64]*located {
	m := make(map[uint64]*located)
	for p, f := range s.Files {
		m[f.Ino] = &located{f, p}
	}
	return m
}

type sender struct {
	form Form
	rand *rand.Rand
	out  []sendstream.Command
	now  map[uint64]string // where each inode is
	at   map[string]uint64
	gone []string // directories to remove
}

func (s *sender) put(c sendstream.Command) { s.out = append(s.out, c) }

func (s *sender) move(ino uint64, to string) {
	if p, ok := s.now[ino]; ok && s.at[p] == ino {
		delete(s.at, p)
	}
	s.now[ino], s.at[to] = to, ino
}

func orphan(ino uint64) string { return fmt.Sprintf("o%d-7-0", ino) }

// free makes way at a path: who is there is moved to a name for the time
// being, or deleted if it is to go.
func (s *sender) free(p string, final map[uint64]*located) {
	ino, taken := s.at[p]
	if !taken {
		return
	}
	if final[ino] == nil && s.rand.IntN(2) == 0 {
		s.put(&sendstream.Unlink{Path: []byte(p)})
		delete(s.at, p)
		delete(s.now, ino)
		return
	}
	s.put(&sendstream.Rename{Path: []byte(p), To: []byte(orphan(ino))})
	s.move(ino, orphan(ino))
}

func (s *sender) inode(ino uint64, old, f *located, final map[uint64]*located) {
	if f == nil {
		p, there := s.now[ino]
		if !there {
			return
		}
		if old.IsDir {
			s.gone = append(s.gone, p)
			return
		}
		s.put(&sendstream.Unlink{Path: []byte(p)})
		delete(s.at, p)
		return
	}
	p := []byte(f.path)
	switch {
	case old == nil:
		tmp := []byte(orphan(ino))
		if f.IsDir {
			s.put(&sendstream.Mkdir{Path: tmp, Ino: ino})
		} else {
			s.put(&sendstream.Mkfile{Path: tmp, Ino: ino})
		}
		s.free(f.path, final)
		s.put(&sendstream.Rename{Path: tmp, To: p})
		s.move(ino, f.path)
	case s.now[ino] != f.path:
		s.free(f.path, final)
		s.put(&sendstream.Rename{Path: []byte(s.now[ino]), To: p})
		s.move(ino, f.path)
	}
	if f.IsDir {
		return
	}
	var before []byte
	if old != nil {
		before = old.Data
	}
	if old == nil || !bytes.Equal(before, f.Data) {
		s.content(p, before, f.Data, old == nil)
	}
	if old == nil {
		s.put(&sendstream.Chown{Path: p})
		s.put(&sendstream.Chmod{Path: p, Mode: 0o644})
	}
	if old == nil || !bytes.Equal(before, f.Data) {
		t := sendstream.Timespec{Sec: f.mtime.Unix()}
		s.put(&sendstream.Utimes{Path: p, Atime: t, Mtime: t, Ctime: t})
	}
}

// content writes what has changed, from the block on in which it begins.
func (s *sender) content(p, before, data []byte, made bool) {
	start := 0
	for start+block <= min(len(before), len(data)) && bytes.Equal(before[start:start+block], data[start:start+block]) {
		start += block
	}
	if !made && len(before) > 0 && s.rand.IntN(4) == 0 {
		start = max(0, start-block*s.rand.IntN(4)) // as after a defragmentation
	}
	chunk := 128 << 10
	if s.form.Version == 1 {
		chunk = 48 << 10
	}
	for off := start; off < len(data); {
		n := min(chunk, len(data)-off)
		if s.rand.IntN(3) == 0 { // an extent of its own
			n = min(n, block*(1+s.rand.IntN(8)))
		}
		s.write(p, off, data[off:off+n])
		off += n
	}
	if !made || len(data) == 0 || s.rand.IntN(2) == 0 {
		s.put(&sendstream.Truncate{Path: p, Size: uint64(len(data))})
	}
}

func (s *sender) write(p []byte, off int, data []byte) {
	if !s.form.Compressed || s.form.Version < 2 {
		s.put(&sendstream.Write{Path: p, Offset: uint64(off), Data: data})
		return
	}
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(data)
	w.Close()
	z.Write(make([]byte, -z.Len()&(block-1))) // an extent is whole sectors
	whole := (len(data) + block - 1) &^ (block - 1)
	s.put(&sendstream.EncodedWrite{Path: p, Offset: uint64(off), UnencodedFileLen: uint64(len(data)), UnencodedLen: uint64(whole),
		Compression: sendstream.CompressionZlib, Data: z.Bytes()})
}
