package sendstream

import (
	"encoding/binary"
	"errors"
	"io"
)

// lzoExtent decodes the data of an LZO-compressed extent into out and returns
// the number of bytes, at most len(out).
//
// The data begins with its total length, this field included, as a 32-bit
// little-endian number. Segments follow: a 32-bit length and that many bytes
// of LZO1X, each decoding to one sector at most. The length of a segment never
// crosses a sector boundary: zeros fill a sector that has less than 4 bytes
// left. Behind the total length comes padding.
func lzoExtent(out, data []byte, sector int) (int, error) {
	if len(data) < 4 {
		return 0, io.ErrUnexpectedEOF
	}
	total := binary.LittleEndian.Uint32(data)
	if uint64(total) > uint64(len(data)) || total < 4 {
		return 0, errors.New("bad total length")
	}
	data = data[:total]
	n := 0
	for pos := 4; pos < len(data) && n < len(out); {
		if left := -pos & (sector - 1); left < 4 {
			if pos += left; pos >= len(data) {
				break
			}
		}
		if len(data)-pos < 4 {
			return n, io.ErrUnexpectedEOF
		}
		length := binary.LittleEndian.Uint32(data[pos:])
		pos += 4
		if uint64(length) > uint64(len(data)-pos) {
			return n, errors.New("bad segment length")
		}
		m, err := lzo1x(out[n:min(n+sector, len(out))], data[pos:pos+int(length)])
		if err != nil {
			return n, err
		}
		pos += int(length)
		n += m
	}
	return n, nil
}

var (
	errLZOInput  = errors.New("lzo data is cut off")
	errLZOOutput = errors.New("lzo data is longer than its sector")
	errLZOMatch  = errors.New("lzo data refers to before its beginning")
	errLZOTail   = errors.New("lzo data goes on after its end")
)

// lzo1x decodes one LZO1X block into out and returns the number of bytes. It
// follows the description of the format in the kernel's
// Documentation/staging/lzo.rst.
//
// A block is a sequence of instructions. Each copies a match, which is a
// length and a distance back in the output, or a run of literals, which stand
// in the input. A match instruction also says in its two lowest bits how many
// literals (0 to 3) follow it. What the instructions 0 to 15 mean depends on
// how many literals the instruction before copied.
func lzo1x(out, in []byte) (int, error) {
	ip, op := 0, 0
	literals := 0 // copied by the last instruction; 4 stands for more than 3

	// A first byte above 17 is a run of literals. (17 would announce LZO-RLE,
	// which btrfs doesn't use, or be the end marker's.)
	if len(in) > 0 && in[0] > 17 {
		n := int(in[0]) - 17
		ip = 1
		if n > len(in)-ip {
			return op, errLZOInput
		}
		if n > len(out) {
			return op, errLZOOutput
		}
		copy(out, in[ip:ip+n])
		ip, op, literals = ip+n, n, min(n, 4)
	}

	// longer reads the rest of a length that did not fit its instruction: each
	// zero byte adds 255, the first other one ends it.
	longer := func(base int) (int, bool) {
		for start := ip; ip < len(in); ip++ {
			if in[ip] != 0 {
				n := base + (ip-start)*255 + int(in[ip])
				ip++
				return n, true
			}
		}
		return 0, false
	}

	for {
		if ip >= len(in) {
			return op, errLZOInput
		}
		inst := int(in[ip])
		ip++
		var length, distance, trailing int
		switch {
		case inst < 16 && literals == 0: // 0000LLLL: a run of literals
			n, ok := inst+3, true
			if inst == 0 {
				n, ok = longer(18)
			}
			if !ok || n > len(in)-ip {
				return op, errLZOInput
			}
			if n > len(out)-op {
				return op, errLZOOutput
			}
			copy(out[op:], in[ip:ip+n])
			ip, op, literals = ip+n, op+n, 4
			continue
		case inst < 16: // 0000DDSS HHHHHHHH
			if ip >= len(in) {
				return op, errLZOInput
			}
			length, distance = 2, int(in[ip])<<2+inst>>2+1
			if literals == 4 {
				length, distance = 3, distance+2048
			}
			ip++
			trailing = inst & 3
		case inst < 64: // 0001HLLL or 001LLLLL, then DDDDDDDD DDDDDDSS as a 16-bit number
			mask := 31
			if inst < 32 {
				mask = 7
			}
			ok := true
			if length = inst&mask + 2; length == 2 {
				length, ok = longer(mask + 2)
			}
			if !ok || len(in)-ip < 2 {
				return op, errLZOInput
			}
			low := int(binary.LittleEndian.Uint16(in[ip:]))
			ip += 2
			distance, trailing = low>>2+1, low&3
			if inst < 32 {
				distance += 1<<14 - 1 + inst&8<<11
				if distance == 1<<14 { // the end marker
					if ip != len(in) {
						return op, errLZOTail
					}
					return op, nil
				}
			}
		default: // 01LDDDSS or 1LLDDDSS, then HHHHHHHH
			if ip >= len(in) {
				return op, errLZOInput
			}
			if length = inst>>5 + 1; inst < 128 {
				length = inst>>5&1 + 3
			}
			distance, trailing = int(in[ip])<<3+inst>>2&7+1, inst&3
			ip++
		}

		if distance > op {
			return op, errLZOMatch
		}
		if length > len(out)-op {
			return op, errLZOOutput
		}
		if distance >= length {
			copy(out[op:op+length], out[op-distance:])
		} else { // the match overlaps what it makes: it repeats
			for i := range length {
				out[op+i] = out[op-distance+i]
			}
		}
		op += length

		if trailing > len(in)-ip {
			return op, errLZOInput
		}
		if trailing > len(out)-op {
			return op, errLZOOutput
		}
		copy(out[op:], in[ip:ip+trailing])
		ip, op, literals = ip+trailing, op+trailing, trailing
	}
}
