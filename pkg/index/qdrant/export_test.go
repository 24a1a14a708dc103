package qdrant

import (
	"context"
	"time"
)

// Hurry makes a client wait a short while only, and not at all between tries.
func (c *Client) Hurry(call time.Duration) {
	c.callTime = call
	c.sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
}
