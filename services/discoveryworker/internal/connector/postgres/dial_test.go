package postgres

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// Every connection, the one that cancels a query included, is made by the worker's own dialler, which decides where integrations may
// reach; one that is refused there reaches nobody.
func TestEveryConnectionIsMadeByTheSourcesDialler(t *testing.T) {
	o := newOracle(t, 15)
	var mu sync.Mutex
	dialled := map[string]int{}
	source := testSource(o.settings(), readerPassword)
	source.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		dialled[network+" "+address]++
		mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	s, err := newServer(source)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.connect(t.Context(), o.settings().GetPostgres().GetDatabase())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_sleep(60)"); err == nil {
		t.Fatal("a query outlived its context")
	}
	<-conn.PgConn().CleanupDone()
	mu.Lock()
	defer mu.Unlock()
	total := 0
	for _, n := range dialled {
		total += n
	}
	// One for the session and one to cancel; what else was dialled stands here.
	if len(dialled) != 1 || total != 2 {
		t.Errorf("the dialler was asked for %v, want one address twice", dialled)
	}
}

func TestRefusedAddressIsNotReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reached := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			_ = c.Close()
		}
	}()
	port := uint32(l.Addr().(*net.TCPAddr).Port) //nolint:forcetypeassert,gosec // a TCP listener's port
	for _, host := range []string{"127.0.0.1", "localhost", "127.0.0.1,127.0.0.1", "::1"} {
		source := testSource((&oracle{}).settings(), "x")
		source.Settings.GetPostgres().Host, source.Settings.GetPostgres().Port = host, port
		source.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("refused by this test")
		}
		if _, err := New().Read(t.Context(), source, nil, &collected{}); err == nil {
			t.Errorf("%s: Read was not refused", host)
		}
		if result, err := New().Test(t.Context(), source); err != nil || result.OK {
			t.Errorf("%s: Test answers %+v, %v", host, result, err)
		}
	}
	// A host name is one host; a list in it, or options behind it, are no more hosts.
	if s, err := newServer(testSource(&integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{
		Postgres: &integrationsv1.PostgresSettings{Host: "/tmp", Port: port}}}, "x")); err == nil {
		t.Errorf("a socket's directory is taken for a host: %s", s)
	}
	if len(reached) > 0 {
		t.Errorf("%d connections were made past the dialler", len(reached))
	}
}
