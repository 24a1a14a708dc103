package sendstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// lzoVectors returns plain bytes with their two LZO1X blocks, made by
// testdata/lzo1x.py.
func lzoVectors(t testing.TB) (plain, blocks [][]byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/lzo1x.vectors")
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		var part [3][]byte
		sizes := b[:12]
		b = b[12:]
		for i := range part {
			n := binary.LittleEndian.Uint32(sizes[4*i:])
			part[i], b = b[:n], b[n:]
		}
		plain = append(plain, part[0], part[0])
		blocks = append(blocks, part[1], part[2])
	}
	return plain, blocks
}

func TestLZOBlocksOfLiblzo2(t *testing.T) {
	plain, blocks := lzoVectors(t)
	for i, block := range blocks {
		want := plain[i]
		for _, room := range []int{0, 1, 500} {
			out := make([]byte, len(want)+room)
			n, err := lzo1x(out, block)
			if err != nil || !bytes.Equal(out[:n], want) {
				t.Fatalf("vector %d with %d to spare: %d bytes, %v", i, room, n, err)
			}
		}
		if len(want) > 0 {
			if _, err := lzo1x(make([]byte, len(want)-1), block); err != errLZOOutput {
				t.Errorf("vector %d, one byte short of room: %v", i, err)
			}
		}
		if _, err := lzo1x(make([]byte, len(want)), append(bytes.Clone(block), 0)); err != errLZOTail {
			t.Errorf("vector %d with a byte behind: %v", i, err)
		}
		for cut := range block {
			if _, err := lzo1x(make([]byte, len(want)), block[:cut]); err == nil {
				t.Errorf("vector %d cut to %d of %d bytes: no error", i, cut, len(block))
			}
		}
	}
}

func TestLZOBadBlocks(t *testing.T) {
	for name, test := range map[string]struct {
		block []byte
		want  error
	}{
		"match before the beginning": {[]byte{18, 'a', 64, 1, 17, 0, 0}, errLZOMatch},
		"match after no literal":     {[]byte{16, 1, 4, 0, 17, 0, 0}, errLZOMatch},
		"endless length":             {append([]byte{18, 'a'}, make([]byte, 1000)...), errLZOInput},
		"length of zeros":            {append([]byte{18, 'a', 32}, make([]byte, 1000)...), errLZOInput},
		"literals beyond the input":  {[]byte{255, 'a'}, errLZOInput},
		"output beyond the sector":   {[]byte{18, 'a', 32, 0, 0, 255, 0, 0, 17, 0, 0}, errLZOOutput},
	} {
		if _, err := lzo1x(make([]byte, 100), test.block); err != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// lzoSegments makes the data of an extent from blocks, as btrfs lays them out.
func lzoSegments(sector int, blocks ...[]byte) []byte {
	b := make([]byte, 4)
	for _, block := range blocks {
		if left := -len(b) & (sector - 1); left < 4 {
			b = append(b, make([]byte, left)...)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(block)))
		b = append(b, block...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// literal is an LZO1X block that has its bytes as they are.
func literal(b []byte) []byte {
	out := []byte{0}
	n := len(b) - 18
	for ; n > 255; n -= 255 {
		out = append(out, 0)
	}
	return append(append(append(out, byte(n)), b...), 17, 0, 0)
}

func zstdData(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

func zlibData(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func TestDecode(t *testing.T) {
	text := []byte(strings.Repeat("a line of a log, and then another\n", 300)) // 10,200 bytes
	noise := make([]byte, 12000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	pad := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 4096-len(b)%4096)...) }
	// Sectors of noise, so that a length meets the end of one in each way.
	var odd [][]byte
	var oddPlain []byte
	for n := 4060; n < 4096; n++ {
		odd = append(odd, literal(noise[:n]))
		oddPlain = append(oddPlain, noise[:n]...)
	}
	for _, test := range []struct {
		name string
		c    Compression
		data []byte
		want []byte
	}{
		{"none", CompressionNone, text, text},
		{"none, short", CompressionNone, text[:5000], text[:5000]},
		{"zlib", CompressionZlib, zlibData(text), text},
		{"zlib, padded", CompressionZlib, pad(zlibData(text)), text},
		{"zlib, noise", CompressionZlib, zlibData(noise), noise},
		{"zlib, short", CompressionZlib, zlibData(text[:5000]), text[:5000]},
		{"zlib, empty", CompressionZlib, zlibData(nil), nil},
		{"zstd", CompressionZstd, zstdData(t, text), text},
		{"zstd, padded", CompressionZstd, pad(zstdData(t, text)), text},
		{"zstd, noise", CompressionZstd, pad(zstdData(t, noise)), noise},
		{"zstd, no checksum", CompressionZstd, pad(zstdData(t, text, zstd.WithEncoderCRC(false))), text},
		{"zstd, small", CompressionZstd, pad(zstdData(t, text[:10], zstd.WithSingleSegment(true))), text[:10]},
		{"zstd, short", CompressionZstd, pad(zstdData(t, text[:5000])), text[:5000]},
		{"zstd, empty", CompressionZstd, zstdData(t, nil, zstd.WithZeroFrames(true)), nil},
		{"lzo", CompressionLZO4K, lzoSegments(4096, literal(noise[:4096]), literal(noise[4096:8192]), literal(noise[8192:])), noise},
		{"lzo, padded", CompressionLZO4K, pad(lzoSegments(4096, literal(noise[:4096]), literal(noise[4096:8192]))), noise[:8192]},
		{"lzo, odd segments", CompressionLZO4K, lzoSegments(4096, odd...), oddPlain},
		{"lzo, 64K sectors", CompressionLZO64K, lzoSegments(65536, literal(noise)), noise},
		{"lzo, nothing", CompressionLZO4K, lzoSegments(4096), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &Decoder{MaxUnencoded: 1 << 20}
			whole := append(bytes.Clone(test.want), make([]byte, 300)...) // the extent ends in zeros
			for range 2 {                                                 // with fresh and with used state
				for _, r := range [][2]int{{0, len(whole)}, {0, 0}, {len(whole), 0}, {len(whole) / 3, len(whole) / 2}} {
					got, err := d.Decode(&EncodedWrite{UnencodedFileLen: uint64(r[1]), UnencodedLen: uint64(len(whole)),
						UnencodedOffset: uint64(r[0]), Compression: test.c, Data: test.data})
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, whole[r[0]:r[0]+r[1]]) {
						t.Fatalf("%d bytes at %d differ", r[1], r[0])
					}
				}
			}
			if len(test.want) == 0 {
				return
			}
			// More than the extent should have is an error, and not memory.
			_, err := d.Decode(&EncodedWrite{UnencodedLen: uint64(len(test.want) - 1), Compression: test.c, Data: test.data})
			if !errors.Is(err, ErrEncoding) {
				t.Errorf("an extent one byte too short: %v", err)
			}
			if test.c == CompressionNone {
				return
			}
			for cut := 0; cut < min(len(bytes.TrimRight(test.data, "\x00")), 300); cut++ {
				_, err := d.Decode(&EncodedWrite{UnencodedLen: uint64(len(whole)), Compression: test.c, Data: test.data[:cut]})
				if !errors.Is(err, ErrEncoding) {
					t.Fatalf("cut to %d bytes: %v", cut, err)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		c    EncodedWrite
		want error
	}{
		"encryption":           {EncodedWrite{Encryption: 1}, ErrUnsupported},
		"compression":          {EncodedWrite{Compression: 8}, ErrUnsupported},
		"above the limit":      {EncodedWrite{UnencodedLen: DefaultMaxUnencoded + 1}, ErrTooLarge},
		"far above the limit":  {EncodedWrite{UnencodedLen: 1<<64 - 1, UnencodedFileLen: 1 << 60, Compression: CompressionZstd}, ErrTooLarge},
		"range beyond the end": {EncodedWrite{UnencodedLen: 10, UnencodedOffset: 5, UnencodedFileLen: 6}, ErrAttribute},
		"offset beyond":        {EncodedWrite{UnencodedLen: 10, UnencodedOffset: 11}, ErrAttribute},
		"range that wraps":     {EncodedWrite{UnencodedLen: 10, UnencodedOffset: 5, UnencodedFileLen: 1<<64 - 1}, ErrAttribute},
		"no zlib":              {EncodedWrite{Compression: CompressionZlib, Data: []byte("no zlib")}, ErrEncoding},
		"no zstd":              {EncodedWrite{Compression: CompressionZstd, Data: []byte("no zstd")}, ErrEncoding},
		"no lzo":               {EncodedWrite{Compression: CompressionLZO4K, Data: []byte("no lzo")}, ErrEncoding},
		"lzo segment too long": {EncodedWrite{UnencodedLen: 9, Compression: CompressionLZO4K, Data: []byte{9, 0, 0, 0, 2, 0, 0, 0, 17}}, ErrEncoding},
	} {
		var d Decoder
		if _, err := d.Decode(&test.c); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
