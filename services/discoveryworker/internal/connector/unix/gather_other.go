//go:build !linux

package unix

import (
	"context"
	"errors"
)

// Gathered is what Gather opened.
type Gathered struct{}

// Gather needs openat2(2), which other systems don't have.
func Gather(context.Context, string) (*Gathered, error) {
	return nil, errors.New("a machine reader runs on Linux alone")
}

// Read has nothing to read.
func (*Gathered) Read() (*Snapshot, error) {
	return nil, errors.New("a machine reader runs on Linux alone")
}
