package sendstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// A Decoder decodes the data of EncodedWrite commands, for callers that have
// them from elsewhere than a [Reader], which has one of its own. The zero
// value is ready for use. A Decoder is not safe for concurrent use.
//
// It allocates what UnencodedLen says, never more than MaxUnencoded, and does
// no more work than that however the data is made. Data that decodes to more
// than UnencodedLen is refused.
type Decoder struct {
	// MaxUnencoded is the largest UnencodedLen that is accepted; 0 means
	// DefaultMaxUnencoded.
	MaxUnencoded int

	out   []byte
	src   bytes.Reader
	zlib  io.ReadCloser // also a zlib.Resetter
	zstd  *zstd.Decoder
	extra [1]byte
}

// Decode returns what c writes at its Offset, UnencodedFileLen bytes, valid
// until the next call.
func (d *Decoder) Decode(c *EncodedWrite) ([]byte, error) {
	limit := uint64(d.MaxUnencoded)
	if d.MaxUnencoded <= 0 {
		limit = DefaultMaxUnencoded
	}
	switch {
	case c.Encryption != 0:
		return nil, fmt.Errorf("%w: encryption %d", ErrUnsupported, c.Encryption)
	case c.Compression > CompressionLZO64K:
		return nil, fmt.Errorf("%w: %v", ErrUnsupported, c.Compression)
	case c.UnencodedLen > limit:
		return nil, fmt.Errorf("%w: decodes to %d bytes, the limit is %d", ErrTooLarge, c.UnencodedLen, limit)
	case c.UnencodedOffset > c.UnencodedLen || c.UnencodedFileLen > c.UnencodedLen-c.UnencodedOffset:
		return nil, fmt.Errorf("%w: %d bytes at %d of %d unencoded bytes", ErrAttribute, c.UnencodedFileLen, c.UnencodedOffset, c.UnencodedLen)
	}
	size := int(c.UnencodedLen)
	if cap(d.out) < size {
		d.out = make([]byte, size)
	}
	out := d.out[:size:size]
	var n int
	var err error
	switch c.Compression {
	case CompressionNone:
		if n = copy(out, c.Data); n < len(c.Data) {
			err = errLong
		}
	case CompressionZlib:
		n, err = d.inflate(out, c.Data)
	case CompressionZstd:
		n, err = d.unzstd(out, c.Data)
	default:
		n, err = lzoExtent(out, c.Data, 4096<<(c.Compression-CompressionLZO4K))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrEncoding, c.Compression, err)
	}
	// The rest of an extent that decodes short is zeros.
	clear(out[n:])
	return out[c.UnencodedOffset:][:c.UnencodedFileLen], nil
}

var errLong = errors.New("more data than the extent is long")

// inflate fills out from a zlib stream and returns how much of it that was.
// What follows the stream in data is padding.
func (d *Decoder) inflate(out, data []byte) (int, error) {
	d.src.Reset(data)
	if d.zlib == nil {
		z, err := zlib.NewReader(&d.src)
		if err != nil {
			return 0, err
		}
		d.zlib = z
	} else if err := d.zlib.(zlib.Resetter).Reset(&d.src, nil); err != nil {
		return 0, err
	}
	for n := 0; ; {
		dst := out[n:]
		if len(dst) == 0 {
			dst = d.extra[:] // the checksum is compared at the end
		}
		m, err := d.zlib.Read(dst)
		if m > len(out)-n {
			return n, errLong
		}
		n += m
		if err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// unzstd fills out from the first frame in data.
func (d *Decoder) unzstd(out, data []byte) (int, error) {
	frame, err := zstdFrame(data)
	if err != nil {
		return 0, err
	}
	if d.zstd == nil {
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(zstdMaxWindow))
		if err != nil {
			return 0, err
		}
	}
	b, err := d.zstd.DecodeAll(frame, out[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return 0, errLong
	}
	return copy(out, b), err // the same memory, but for a change in the library
}

// zstdMaxWindow is above the window of btrfs, 2^17 (ZSTD_BTRFS_MAX_WINDOWLOG).
const zstdMaxWindow = 8 << 20

// zstdFrame returns the part of data that is its first zstd frame (RFC 8878,
// section 3.1.1). The extent ends at a sector boundary, behind the frame, and
// a decoder that is given all of it looks for another frame in the padding.
func zstdFrame(data []byte) ([]byte, error) {
	const frameMagic = 0xfd2fb528
	if len(data) < 5 || binary.LittleEndian.Uint32(data) != frameMagic {
		return nil, errors.New("no zstd frame")
	}
	descriptor := data[4]
	pos := 5
	singleSegment := descriptor&0x20 != 0
	if !singleSegment {
		pos++ // window descriptor
	}
	pos += [4]int{0, 1, 2, 4}[descriptor&3] // dictionary id
	contentSize := [4]int{0, 2, 4, 8}[descriptor>>6]
	if contentSize == 0 && singleSegment {
		contentSize = 1
	}
	pos += contentSize
	for last := false; !last; {
		if len(data)-pos < 3 {
			return nil, io.ErrUnexpectedEOF
		}
		header := uint32(data[pos]) | uint32(data[pos+1])<<8 | uint32(data[pos+2])<<16
		last = header&1 != 0
		size := int(header >> 3)
		if header>>1&3 == 1 { // a byte and how often it stands
			size = 1
		}
		pos += 3
		if len(data)-pos < size {
			return nil, io.ErrUnexpectedEOF
		}
		pos += size
	}
	if descriptor&4 != 0 { // checksum
		pos += 4
	}
	if pos > len(data) {
		return nil, io.ErrUnexpectedEOF
	}
	return data[:pos], nil
}
