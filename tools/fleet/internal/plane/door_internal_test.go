package plane

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A process that hangs has connections taken by its kernel, so that only a handshake tells whether anybody is there.
func TestDoorThatNobodyAnswersAtIsSeen(t *testing.T) {
	t.Parallel()
	open := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(open.Close)
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hangs.Close() })
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = shut.Close()
	for address, answers := range map[string]bool{open.Listener.Addr().String(): true, hangs.Addr().String(): false, shut.Addr().String(): false} {
		if err := doorAnswers(t.Context(), address); answers != (err == nil) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
