package opdbus

import (
	"sync"
	"time"
)

// limits counts what each principal asks for: a bucket of tokens each, which
// fills up within a minute.
type limits struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

const maxBuckets = 4096

// take takes a token from the bucket of key, which holds perMinute, and says
// whether there was one, and else when there will be.
func (l *limits) take(key string, perMinute int, now time.Time) (ok bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rate := float64(perMinute) / 60
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.forget(now)
		}
		if l.buckets == nil {
			l.buckets = map[string]*bucket{}
		}
		b = &bucket{float64(perMinute), now}
		l.buckets[key] = b
	}
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.tokens = min(float64(perMinute), b.tokens+d*rate)
	}
	b.at = now
	if b.tokens < 1 {
		return false, time.Duration((1 - b.tokens) / rate * float64(time.Second))
	}
	b.tokens--
	return true, 0
}

// forget drops buckets that are full again, or else all: a bucket of more
// than a minute ago says nothing.
func (l *limits) forget(now time.Time) {
	for k, b := range l.buckets {
		if now.Sub(b.at) > time.Minute {
			delete(l.buckets, k)
		}
	}
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
}
