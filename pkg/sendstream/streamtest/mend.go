package streamtest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// Mend returns streams with the checksums that their commands should have, so
// that what a test has changed is not found by them.
func Mend(stream []byte) []byte {
	const magic, headerSize, commandHeader = "btrfs-stream\x00", 17, 10
	out := bytes.Clone(stream)
	for rest := out; ; {
		if len(rest) >= headerSize && string(rest[:len(magic)]) == magic {
			rest = rest[headerSize:]
		}
		if len(rest) < commandHeader {
			return out
		}
		size := commandHeader + int64(binary.LittleEndian.Uint32(rest))
		if size > int64(len(rest)) {
			return out
		}
		binary.LittleEndian.PutUint32(rest[6:], 0)
		binary.LittleEndian.PutUint32(rest[6:], ^crc32.Update(^uint32(0), castagnoli, rest[:size]))
		rest = rest[size:]
	}
}
