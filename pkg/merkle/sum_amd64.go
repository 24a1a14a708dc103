//go:build !purego

package merkle

// twoLanes says whether this processor has the SHA extensions.
var twoLanes = hasSHA()

// blocks2 compresses n blocks of 64 bytes from p into state[0] and n from q
// into state[1], both at once: one stream of SHA instructions waits for itself
// half of the time.
//
//go:noescape
func blocks2(state *[2][8]uint32, p, q *byte, n int)

func hasSHA() bool
