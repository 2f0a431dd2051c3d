package workload

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stuck is a connection whose client says hello and then nothing.
type stuck struct {
	net.Conn
	said atomic.Bool
}

func (s *stuck) Write(p []byte) (int, error) {
	if s.said.Swap(true) {
		return len(p), nil // it is never sent
	}
	return s.Conn.Write(p)
}

// turnstile is a server that lets a number of handshakes go on at once, and knows how many did.
func turnstile(t *testing.T, atOnce int64) (addr string, roots func() *tls.Config, done *atomic.Int64) {
	t.Helper()
	root, err := NewRoot(TrustDomain{Plane: "dev"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	who := Identity{Plane: "dev", Service: "registry"}
	pair, err := issuing.IssueKeypair(who, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/keys"
	if err := pair.Save(dir); err != nil {
		t.Fatal(err)
	}
	source, err := OpenSource(dir, who)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: source.GetCertificate}
	takingTurns(config, atOnce)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done = &atomic.Int64{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
				defer cancel()
				if tls.Server(conn, config).HandshakeContext(ctx) == nil {
					done.Add(1)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String(), func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} //nolint:gosec // G402: who it is is tested elsewhere
	}, done
}

func TestClientsThatStallDoNotKeepOthersOut(t *testing.T) {
	addr, config, done := turnstile(t, 2)
	var stalled []net.Conn
	defer func() {
		for _, c := range stalled {
			_ = c.Close()
		}
	}()
	const stallers = 6
	for range stallers {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		s := &stuck{Conn: conn}
		stalled = append(stalled, conn)
		go func() { _ = tls.Client(s, config()).HandshakeContext(t.Context()) }()
	}
	began := time.Now()
	conn, err := (&tls.Dialer{Config: config()}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatalf("a client that does not stall is kept out: %v, after %s", err, time.Since(began))
	}
	_ = conn.Close()
	if n := done.Load(); n > 1 {
		t.Errorf("%d handshakes were done", n)
	}
}

func TestManyHandshakesAtOnceAreAllDone(t *testing.T) {
	addr, config, done := turnstile(t, 2)
	const clients = 100
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			conn, err := (&tls.Dialer{Config: config()}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		})
	}
	all.Wait()
	for done.Load() < clients {
		select {
		case <-t.Context().Done():
			t.Fatal("the test ended")
		case <-time.After(time.Millisecond):
		}
	}
}
