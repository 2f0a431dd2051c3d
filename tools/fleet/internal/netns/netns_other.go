//go:build !linux

package netns

import "errors"

// In fails: only Linux has network namespaces.
func In(int, func() error) error { return errors.New("this system has no network namespaces") }
