package rpcclient_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc/rpcclient"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

func TestConnectionThatBreaksIsNotTakenForACallerWhoGaveUp(t *testing.T) {
	resets := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		// As the connections of a process end that is killed.
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	aborts := func(w http.ResponseWriter, _ *http.Request) {
		// As the gateway ends an answer whose service was killed.
		w.Header().Set("Content-Type", "application/proto")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	plain, http2 := httptest.NewServer(http.HandlerFunc(resets)), httptest.NewUnstartedServer(http.HandlerFunc(aborts))
	http2.EnableHTTP2 = true
	http2.StartTLS()
	defer plain.Close()
	defer http2.Close()
	for name, server := range map[string]*httptest.Server{"connection": plain, "stream of HTTP/2": http2} {
		c := rpcclient.ToTenant(server.Client(), server.URL, func(context.Context) (string, error) { return "", nil }, iamv1connect.NewIdentityServiceClient)
		if _, err := c.GetSelf(t.Context(), connect.NewRequest(&iamv1.GetSelfRequest{})); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("the %s was reset: %v", name, err)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		giveUp()
		if _, err := c.GetSelf(ctx, connect.NewRequest(&iamv1.GetSelfRequest{})); fault.KindOf(err) != fault.Canceled {
			t.Errorf("the caller gave up: %v", err)
		}
	}
}
