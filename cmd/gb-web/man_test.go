package main

import (
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/mantest"
)

func TestManPage(t *testing.T) { mantest.Check(t, app()) }
