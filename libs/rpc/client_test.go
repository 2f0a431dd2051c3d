package rpc_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

func TestConnectionThatBreaksIsNotTakenForACallerWhoGaveUp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		// Reset, as the connections of a process are that is killed.
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}))
	defer server.Close()
	c := rpc.ToTenant(server.Client(), server.URL, func(context.Context) (string, error) { return "", nil }, iamv1connect.NewIdentityServiceClient)
	_, err := c.GetSelf(t.Context(), connect.NewRequest(&iamv1.GetSelfRequest{}))
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the connection broke: %v", err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := c.GetSelf(ctx, connect.NewRequest(&iamv1.GetSelfRequest{})); fault.KindOf(err) != fault.Canceled {
		t.Errorf("the caller gave up: %v", err)
	}
}
