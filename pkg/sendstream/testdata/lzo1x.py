#!/usr/bin/env python3
"""Writes lzo1x.vectors, blocks that liblzo2 compressed, to standard output:
lzo1x.py > lzo1x.vectors. Needs liblzo2.so.2 (Debian: liblzo2-2).

Each vector is three 32-bit little-endian lengths, the plain bytes, the block of
the fast compressor and that of the best one, which uses every instruction."""
import ctypes
import random
import struct
import sys

lzo = ctypes.CDLL("liblzo2.so.2")
rng = random.Random(1)


def compress(function, memory, plain):
    out = ctypes.create_string_buffer(len(plain) + len(plain) // 16 + 100)
    size = ctypes.c_ulong(len(out))
    work = ctypes.create_string_buffer(memory)
    if function(plain, ctypes.c_ulong(len(plain)), out, ctypes.byref(size), work) != 0:
        sys.exit("liblzo2 failed")
    return out.raw[: size.value]


def noise(n):
    return bytes(rng.getrandbits(8) for _ in range(n))


def repeats(n):
    """Bytes made of matches at all distances and lengths, and few literals."""
    d = bytearray(noise(3))
    while len(d) < n:
        back = rng.randrange(1, min(len(d), rng.choice([4, 1024, 2100, 16384, 50000])) + 1)
        for _ in range(rng.randrange(2, rng.choice([4, 9, 40, 700]))):
            d.append(d[-back])
        d += noise(rng.randrange(0, 6))
    return bytes(d[:n])


plains = [b"", b"a", b"ab", b"abc", b"abcd", bytes(300), noise(20), noise(300), b"the quick brown fox " * 40]
plains += [repeats(n) for n in (30, 100, 400, 1500, 4096, 36000)]
for plain in plains:
    fast = compress(lzo.lzo1x_1_compress, 1 << 18, plain)
    best = compress(lzo.lzo1x_999_compress, 1 << 21, plain)
    sys.stdout.buffer.write(struct.pack("<III", len(plain), len(fast), len(best)) + plain + fast + best)
