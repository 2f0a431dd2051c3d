//go:build !linux

package docker

import "errors"

var errLinux = errors.New("platform docker needs Linux")

func (p *Platform) mountSecrets() error { return errLinux }

func unmount(string) error { return errLinux }
