//go:build !linux

package drain

import "net"

// queued takes nothing where the kernel's queue can't be read without waiting.
func queued(*net.TCPListener) []net.Conn { return nil }

// noMoreSYN does nothing where the kernel takes no filter.
func noMoreSYN(*net.TCPListener) {}
