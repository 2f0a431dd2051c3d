package pg_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"a3os.app/libs/pg"
)

// Who listens at a server's port in its place is told no password, and is believed nothing: whether it asks for one in clear, by MD5, or lets
// everybody in.
func TestNobodyInAServersPlaceIsToldAPassword(t *testing.T) {
	const password = "told-to-nobody"
	for what, asks := range map[string]pgproto3.BackendMessage{
		"in clear": &pgproto3.AuthenticationCleartextPassword{}, "by MD5": &pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}},
		"for nothing": &pgproto3.AuthenticationOk{},
	} {
		t.Run(what, func(t *testing.T) {
			at, told := imposter(t, asks)
			// Who takes it for the server waits for its answers.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			url := fmt.Sprintf("postgres://role:%s@%s/database?sslmode=disable", password, at)
			conn, err := pg.Connect(ctx, url)
			if err == nil {
				_ = conn.Close(ctx)
				t.Error("it is taken for the server")
			}
			if err := pg.Migrate(ctx, url, nil, pg.Base()); err == nil || strings.Contains(err.Error(), password) {
				t.Errorf("migrations are run there: %v", err)
			}
			pool, err := pg.OwnerPool(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if err := pool.Ping(ctx); err == nil {
				t.Error("the owner's pool takes it for the server")
			}
			for range 3 {
				var heard []byte
				select {
				case heard = <-told:
				case <-ctx.Done():
					t.Fatal("not every try has come to it")
				}
				if bytes.Contains(heard, []byte(password)) || bytes.Contains(heard, []byte("md5")) {
					t.Errorf("it was told the password: %q", heard)
				}
			}
		})
	}
}

// imposter listens as a server would and asks for a password in its way, or for none. It answers where, and of each connection what it was told.
func imposter(t *testing.T, asks pgproto3.BackendMessage) (at string, told <-chan []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback answers at once
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	heard := make(chan []byte, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var all bytes.Buffer
				defer func() { heard <- all.Bytes() }()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				server := pgproto3.NewBackend(c, c)
				if _, err := server.ReceiveStartupMessage(); err != nil {
					return
				}
				server.Send(asks)
				if _, lets := asks.(*pgproto3.AuthenticationOk); lets {
					server.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				}
				if server.Flush() == nil {
					_, _ = io.Copy(&all, c)
				}
			}()
		}
	}()
	return l.Addr().String(), heard
}
