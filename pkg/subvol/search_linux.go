//go:build linux && cgo

package subvol

import (
	"encoding/binary"
	"os"
	"unsafe"
)

// Objects and item types of <linux/btrfs_tree.h>.
const (
	rootTree      = 1
	orphans       = ^uint64(0) - 4 // BTRFS_ORPHAN_OBJECTID, -5
	orphanItem    = 48
	extentData    = 108
	inlineExtent  = 0
	prealloc      = 2
	firstUserFile = 256
)

// A searchKey is struct btrfs_ioctl_search_key.
type searchKey struct {
	tree                      uint64
	minObject, maxObject      uint64
	minOffset, maxOffset      uint64
	minTransID, maxTransID    uint64
	minType, maxType, nrItems uint32
	_                         uint32
	_                         [4]uint64
}

// A searchHeader is struct btrfs_ioctl_search_header.
type searchHeader struct {
	transid, object, offset uint64
	typ, size               uint32
}

// search calls each with every item of the key range, which may stop it by an
// error. The kernel's range is not a product: it is all items between the two
// corners, so each must look at the type again.
func search(f *os.File, key searchKey, each func(h searchHeader, item []byte) error) error {
	type args struct {
		key  searchKey
		size uint64
		buf  [64 << 10]byte
	}
	a := new(args)
	for {
		a.key, a.size = key, uint64(len(a.buf))
		a.key.nrItems = ^uint32(0)
		if err := ioctl(f, iocTreeSearchV2, unsafe.Pointer(a)); err != nil {
			return err
		}
		if a.key.nrItems == 0 {
			return nil
		}
		var h searchHeader
		at := 0
		for range a.key.nrItems {
			h = searchHeader{
				transid: binary.NativeEndian.Uint64(a.buf[at:]), object: binary.NativeEndian.Uint64(a.buf[at+8:]),
				offset: binary.NativeEndian.Uint64(a.buf[at+16:]), typ: binary.NativeEndian.Uint32(a.buf[at+24:]),
				size: binary.NativeEndian.Uint32(a.buf[at+28:]),
			}
			at += 32
			if err := each(h, a.buf[at:at+int(h.size)]); err != nil {
				return err
			}
			at += int(h.size)
		}
		// The next key after the last one seen.
		key.minObject, key.minType, key.minOffset = h.object, h.typ, h.offset+1
		if key.minOffset == 0 {
			if key.minType++; key.minType > 255 {
				key.minType = 0
				if key.minObject++; key.minObject == 0 {
					return nil
				}
			}
		}
		if key.minObject > key.maxObject {
			return nil
		}
	}
}

// countOrphans counts the deleted subvolumes as the root tree knows them. It
// lags behind SUBVOL_SYNC_WAIT by a transaction.
func countOrphans(f *os.File) (int, error) {
	n := 0
	err := search(f, searchKey{
		tree: rootTree, minObject: orphans, maxObject: orphans, minType: orphanItem, maxType: orphanItem,
		maxOffset: ^uint64(0), maxTransID: ^uint64(0),
	}, func(h searchHeader, _ []byte) error {
		if h.object == orphans && h.typ == orphanItem {
			n++
		}
		return nil
	})
	return n, err
}

// Changed returns the bytes of file data, as stored on the disk, that the
// subvolume at path has in extents written by transactions later than since:
// what btrfs subvolume find-new looks at. It takes time in proportion to the
// change and not to the subvolume. Deletions count as nothing. It needs root.
func (System) Changed(path string, since uint64) (uint64, error) {
	f, err := openDir(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sum uint64
	err = search(f, searchKey{
		tree: 0, minObject: firstUserFile, maxObject: ^uint64(0), maxType: extentData, minType: 0,
		maxOffset: ^uint64(0), minTransID: since + 1, maxTransID: ^uint64(0),
	}, func(h searchHeader, item []byte) error {
		// struct btrfs_file_extent_item, little endian: generation,
		// ram_bytes, compression, encryption, other (2), type; inline data,
		// or disk_bytenr, disk_num_bytes, ...
		if h.typ != extentData || len(item) < 21 || binary.LittleEndian.Uint64(item) <= since {
			return nil
		}
		switch item[20] {
		case inlineExtent:
			sum += uint64(len(item) - 21)
		case prealloc:
		default:
			if len(item) >= 37 && binary.LittleEndian.Uint64(item[21:]) != 0 { // 0 is a hole
				sum += binary.LittleEndian.Uint64(item[29:])
			}
		}
		return nil
	})
	if err != nil {
		return 0, pathError("search tree", path, err)
	}
	return sum, nil
}

// Compression looks at all extents of the subvolume at path, and says how much
// data is in them and how much of the disk they take. It takes time and memory
// in proportion to their number. It needs root.
func (System) Compression(path string) (Compression, error) {
	f, err := openDir(path)
	if err != nil {
		return Compression{}, err
	}
	defer f.Close()
	var c Compression
	seen := map[uint64]bool{} // by where on the disk: files share extents
	err = search(f, searchKey{
		tree: 0, minObject: firstUserFile, maxObject: ^uint64(0), maxType: extentData, minType: 0,
		maxOffset: ^uint64(0), maxTransID: ^uint64(0),
	}, func(h searchHeader, item []byte) error {
		if h.typ != extentData || len(item) < 21 {
			return nil
		}
		switch item[20] {
		case inlineExtent:
			c.Data += binary.LittleEndian.Uint64(item[8:])
			c.Disk += uint64(len(item) - 21)
		case prealloc:
		default:
			if len(item) < 37 {
				return nil
			}
			at := binary.LittleEndian.Uint64(item[21:])
			if at == 0 || seen[at] {
				return nil
			}
			seen[at] = true
			c.Data += binary.LittleEndian.Uint64(item[8:])
			c.Disk += binary.LittleEndian.Uint64(item[29:])
		}
		return nil
	})
	if err != nil {
		return c, pathError("search tree", path, err)
	}
	return c, nil
}
