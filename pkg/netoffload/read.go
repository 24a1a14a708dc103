package netoffload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// safchain/ethtool fetches the names of all features, into a buffer of a
// megabyte, before each look at an interface. The names are the kernel's and
// the same for every interface, so that here they are fetched once a process,
// and a look takes one ioctl.

// ifreq is struct ifreq as SIOCETHTOOL has it.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // of the union's other members
}

// query runs one command of ethtool(4); command begins with its number.
func query(fd int, nic string, command []byte) error {
	r := ifreq{data: unsafe.Pointer(unsafe.SliceData(command))}
	if len(nic) >= len(r.name) {
		return unix.ENODEV
	}
	copy(r.name[:], nic)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	runtime.KeepAlive(command)
	if errno != 0 {
		return errno
	}
	return nil
}

// Of linux/ethtool.h.
const (
	setOfFeatures = 4  // ETH_SS_FEATURES
	stringLen     = 32 // ETH_GSTRING_LEN
)

// maxFeatures bounds what the kernel may tell of; it has some 60.
const maxFeatures = 4096

var native = binary.NativeEndian

// known are the names of features by their bit, once they were read.
var known atomic.Pointer[[]string]

// featureNames returns the kernel's names by bit. nic is any interface.
func featureNames(fd int, nic string) ([]string, error) {
	if names := known.Load(); names != nil {
		return *names, nil
	}
	// struct ethtool_sset_info: cmd, reserved, a mask of 64 bits, and a count
	// for the one bit that is set in it.
	info := make([]byte, 20)
	native.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	native.PutUint64(info[8:], 1<<setOfFeatures)
	if err := query(fd, nic, info); err != nil {
		return nil, err
	}
	n := native.Uint32(info[16:])
	if native.Uint64(info[8:]) != 1<<setOfFeatures || n == 0 || n > maxFeatures {
		return nil, fmt.Errorf("the kernel tells of %d features", n)
	}
	// struct ethtool_gstrings: cmd, string_set, len, and the strings.
	data := make([]byte, 12+n*stringLen)
	native.PutUint32(data, unix.ETHTOOL_GSTRINGS)
	native.PutUint32(data[4:], setOfFeatures)
	native.PutUint32(data[8:], n)
	if err := query(fd, nic, data); err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range names {
		name, _, _ := bytes.Cut(data[12+i*stringLen:12+(i+1)*stringLen], []byte{0})
		names[i] = string(name)
	}
	known.Store(&names)
	return names, nil
}

// Read returns the features of an interface in this network namespace. It
// needs no privilege.
func Read(nic string) (map[string]Feature, error) {
	// The ioctl takes a socket of any family.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("offload of %s: %w", nic, err)
	}
	defer unix.Close(fd)
	out, err := read(fd, nic)
	if err != nil {
		return nil, fmt.Errorf("offload of %s: %w", nic, err)
	}
	return out, nil
}

func read(fd int, nic string) (map[string]Feature, error) {
	names, err := featureNames(fd, nic)
	if err != nil {
		return nil, err
	}
	// struct ethtool_gfeatures: cmd, size, and for each 32 features four words:
	// available, requested, active, never_changed.
	blocks := (len(names) + 31) / 32
	data := make([]byte, 8+16*blocks)
	native.PutUint32(data, unix.ETHTOOL_GFEATURES)
	native.PutUint32(data[4:], uint32(blocks))
	if err := query(fd, nic, data); err != nil {
		return nil, err
	}
	out := make(map[string]Feature, len(names))
	for i, name := range names {
		if name == "" { // a bit without a feature
			continue
		}
		has := func(word int) bool {
			return native.Uint32(data[8+16*(i/32)+4*word:])&(1<<(i%32)) != 0
		}
		out[name] = Feature{Wanted: has(1), Active: has(2), Fixed: !has(0) || has(3)}
	}
	return out, nil
}
