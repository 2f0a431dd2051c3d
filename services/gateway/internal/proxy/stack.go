package proxy

import "runtime"

// growStack gives a request's goroutine, which net/http begins with the smallest stack that there is, one of 8 KiB at once and while there is next to
// nothing on it: it would be doubled twice, the second time with all of the proxy's frames to copy (libs/rpc does the same for a call's).
//
//go:noinline
func growStack(use bool) {
	if use {
		var frame [4 << 10]byte // never used, so that nobody clears it: a stack is looked at on entry
		runtime.KeepAlive(&frame)
	}
}
