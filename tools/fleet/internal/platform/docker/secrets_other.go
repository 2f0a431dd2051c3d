//go:build !linux

package docker

import "errors"

var errLinux = errors.New("platform docker needs Linux")

func (p *Platform) mountSecrets() error { return errLinux }

func mountOwn(string, uint32, uint32, uint32) error { return errLinux }

func mounted(string) bool { return false }

func unmount(string) error { return errLinux }
