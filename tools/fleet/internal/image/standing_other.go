//go:build !linux

package image

import "errors"

// Standing is a digest of how the files of an image stand on this machine: see standing_linux.go.
func (s Spec) Standing() (string, error) { return "", errors.New("images are made on Linux") }
