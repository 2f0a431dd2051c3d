package rpc

import (
	"net/http"
	"runtime"
)

// onGrownStack gives a request's goroutine the stack that a call needs, at once and while there is next to nothing on it. net/http
// serves each HTTP/2 request on a new goroutine with a stack of 2 KiB; the frames of a call would have it doubled three times, the
// last time with some sixty frames to copy, which costs more than all links together. (As CockroachDB's growstack does it.)
func onGrownStack(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growStack(false)
		next.ServeHTTP(w, r)
	})
}

// growStack has a frame that only the next size but two, 16 KiB, has room for. The stack is looked at on entry; the array is never
// used, so that nobody clears it.
//
//go:noinline
func growStack(use bool) {
	if use {
		var frame [9 << 10]byte
		runtime.KeepAlive(&frame)
	}
}
