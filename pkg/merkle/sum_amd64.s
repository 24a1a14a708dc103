//go:build !purego

#include "textflag.h"

// The round constants of FIPS 180-4, section 4.2.2.
#define K4(off, a, b, c, d) \
	DATA roundConstants<>+off+0(SB)/4, $a; \
	DATA roundConstants<>+off+4(SB)/4, $b; \
	DATA roundConstants<>+off+8(SB)/4, $c; \
	DATA roundConstants<>+off+12(SB)/4, $d

K4(0x00, 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5)
K4(0x10, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5)
K4(0x20, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3)
K4(0x30, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174)
K4(0x40, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc)
K4(0x50, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da)
K4(0x60, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7)
K4(0x70, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967)
K4(0x80, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13)
K4(0x90, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85)
K4(0xa0, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3)
K4(0xb0, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070)
K4(0xc0, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5)
K4(0xd0, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3)
K4(0xe0, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208)
K4(0xf0, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2)
GLOBL roundConstants<>(SB), (NOPTR+RODATA), $256

DATA bigEndian<>+0(SB)/8, $0x0405060700010203
DATA bigEndian<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL bigEndian<>(SB), (NOPTR+RODATA), $16

// Four rounds with the message words of MSG. S0 is ABEF, S1 is CDGH.
#define FIRST(P, off, MSG, S0, S1) \
	MOVOU off(P), MSG; \
	PSHUFB X15, MSG; \
	MOVO MSG, X0; \
	PADDD off(AX), X0; \
	SHA256RNDS2 X0, S0, S1; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, S1, S0

// The same, and the message words four rounds on, of which NEXT has a part.
#define ROUNDS(off, CUR, PREV, NEXT, TMP, S0, S1) \
	MOVO CUR, X0; \
	PADDD off(AX), X0; \
	SHA256RNDS2 X0, S0, S1; \
	MOVO CUR, TMP; \
	PALIGNR $4, PREV, TMP; \
	PADDD TMP, NEXT; \
	SHA256MSG2 CUR, NEXT; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, S1, S0

#define LAST(off, CUR, S0, S1) \
	MOVO CUR, X0; \
	PADDD off(AX), X0; \
	SHA256RNDS2 X0, S0, S1; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, S1, S0

// Four times four rounds of both lanes.
#define SIXTEEN(off) \
	ROUNDS(off+0x00, X3, X6, X4, X7, X1, X2); \
	SHA256MSG1 X3, X6; \
	ROUNDS(off+0x00, X10, X13, X11, X14, X8, X9); \
	SHA256MSG1 X10, X13; \
	ROUNDS(off+0x10, X4, X3, X5, X7, X1, X2); \
	SHA256MSG1 X4, X3; \
	ROUNDS(off+0x10, X11, X10, X12, X14, X8, X9); \
	SHA256MSG1 X11, X10; \
	ROUNDS(off+0x20, X5, X4, X6, X7, X1, X2); \
	SHA256MSG1 X5, X4; \
	ROUNDS(off+0x20, X12, X11, X13, X14, X8, X9); \
	SHA256MSG1 X12, X11; \
	ROUNDS(off+0x30, X6, X5, X3, X7, X1, X2); \
	SHA256MSG1 X6, X5; \
	ROUNDS(off+0x30, X13, X12, X10, X14, X8, X9); \
	SHA256MSG1 X13, X12

// From the words a to h in memory to ABEF and CDGH, and back.
#define LOAD(off, S0, S1, TMP) \
	MOVOU off+0(DI), S0; \
	MOVOU off+16(DI), S1; \
	PSHUFD $0xb1, S0, S0; \
	PSHUFD $0x1b, S1, S1; \
	MOVO S0, TMP; \
	PALIGNR $8, S1, S0; \
	PBLENDW $0xf0, TMP, S1

#define STORE(off, S0, S1, TMP) \
	PSHUFD $0x1b, S0, S0; \
	PSHUFD $0xb1, S1, S1; \
	MOVO S0, TMP; \
	PBLENDW $0xf0, S1, S0; \
	PALIGNR $8, TMP, S1; \
	MOVOU S0, off+0(DI); \
	MOVOU S1, off+16(DI)

// func blocks2(state *[2][8]uint32, p, q *byte, n int)
// Requires: SHA, SSE4.1, SSSE3
TEXT ·blocks2(SB), NOSPLIT, $64-32
	MOVQ state+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ q+16(FP), BX
	MOVQ n+24(FP), CX
	LEAQ roundConstants<>(SB), AX
	MOVOU bigEndian<>(SB), X15
	LOAD(0, X1, X2, X7)
	LOAD(32, X8, X9, X14)

loop:
	CMPQ CX, $0
	JLE done
	MOVOU X1, saved-64(SP)
	MOVOU X2, saved-48(SP)
	MOVOU X8, saved-32(SP)
	MOVOU X9, saved-16(SP)

	FIRST(SI, 0x00, X3, X1, X2)
	FIRST(BX, 0x00, X10, X8, X9)
	FIRST(SI, 0x10, X4, X1, X2)
	SHA256MSG1 X4, X3
	FIRST(BX, 0x10, X11, X8, X9)
	SHA256MSG1 X11, X10
	FIRST(SI, 0x20, X5, X1, X2)
	SHA256MSG1 X5, X4
	FIRST(BX, 0x20, X12, X8, X9)
	SHA256MSG1 X12, X11
	MOVOU 0x30(SI), X6
	PSHUFB X15, X6
	MOVOU 0x30(BX), X13
	PSHUFB X15, X13
	ROUNDS(0x30, X6, X5, X3, X7, X1, X2)
	SHA256MSG1 X6, X5
	ROUNDS(0x30, X13, X12, X10, X14, X8, X9)
	SHA256MSG1 X13, X12

	SIXTEEN(0x40)
	SIXTEEN(0x80)

	ROUNDS(0xc0, X3, X6, X4, X7, X1, X2)
	SHA256MSG1 X3, X6
	ROUNDS(0xc0, X10, X13, X11, X14, X8, X9)
	SHA256MSG1 X10, X13
	ROUNDS(0xd0, X4, X3, X5, X7, X1, X2)
	ROUNDS(0xd0, X11, X10, X12, X14, X8, X9)
	ROUNDS(0xe0, X5, X4, X6, X7, X1, X2)
	ROUNDS(0xe0, X12, X11, X13, X14, X8, X9)
	LAST(0xf0, X6, X1, X2)
	LAST(0xf0, X13, X8, X9)

	MOVOU saved-64(SP), X7
	PADDD X7, X1
	MOVOU saved-48(SP), X7
	PADDD X7, X2
	MOVOU saved-32(SP), X14
	PADDD X14, X8
	MOVOU saved-16(SP), X14
	PADDD X14, X9
	ADDQ $64, SI
	ADDQ $64, BX
	DECQ CX
	JMP loop

done:
	STORE(0, X1, X2, X7)
	STORE(32, X8, X9, X14)
	RET

// func hasSHA() bool
TEXT ·hasSHA(SB), NOSPLIT, $0-1
	MOVB $0, ret+0(FP)
	XORL AX, AX
	CPUID
	CMPL AX, $7
	JLT no
	MOVL $1, AX
	XORL CX, CX
	CPUID
	ANDL $0x00080200, CX // SSE4.1 and SSSE3
	CMPL CX, $0x00080200
	JNE no
	MOVL $7, AX
	XORL CX, CX
	CPUID
	BTL $29, BX
	JCC no
	MOVB $1, ret+0(FP)

no:
	RET
