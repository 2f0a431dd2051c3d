package egress_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"a3os.app/services/discoveryworker/internal/egress"
)

// nameServer answers questions for addresses over UDP, each time with the next of its answers; the last one stays.
type nameServer struct {
	conn net.PacketConn

	mu      sync.Mutex
	answers [][4]byte
	asked   int
}

func startNameServer(t *testing.T, answers ...[4]byte) (*nameServer, *net.Resolver) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, answers: answers}
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(t) })
	t.Cleanup(func() { _ = conn.Close(); serving.Wait() })
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve(t *testing.T) {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		answer, err := s.answer(buf[:n])
		if err != nil {
			t.Errorf("the name server can't answer: %v", err)
			return
		}
		_, _ = s.conn.WriteTo(answer, from)
	}
}

func (s *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		s.mu.Lock()
		address := s.answers[min(s.asked, len(s.answers)-1)]
		s.asked++
		s.mu.Unlock()
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 0}, Body: &dnsmessage.AResource{A: address},
		}}
	}
	return m.Pack()
}

// A name that leads somewhere harmless when it is looked at and home when it is dialled gains nothing: what counts is the address of
// the socket.
func TestNameThatIsReboundIsRefusedAtTheSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	harmless := [4]byte{203, 0, 113, 7}
	names, resolver := startNameServer(t, harmless, [4]byte{127, 0, 0, 1}, [4]byte{169, 254, 169, 254})
	before := net.DefaultResolver
	net.DefaultResolver = resolver
	t.Cleanup(func() { net.DefaultResolver = before })
	p, err := egress.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	const name = "db.rebound.example."
	first, err := resolver.LookupNetIP(t.Context(), "ip4", name)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(netip.AddrPortFrom(first[0], 5432)); err != nil {
		t.Fatalf("the first answer is harmless and is refused: %v", err)
	}
	for _, home := range []string{"127.0.0.1", "169.254.169.254"} {
		var refused *egress.RefusedError
		conn, err := p.Dial(t.Context(), "tcp", net.JoinHostPort(name, port))
		if err == nil {
			_ = conn.Close()
		}
		if !errors.As(err, &refused) || refused.Address.Addr() != netip.MustParseAddr(home) {
			t.Errorf("the name leads to %s now: want a refusal of that, got %v", home, err)
		}
	}
	names.mu.Lock()
	defer names.mu.Unlock()
	if names.asked != 3 {
		t.Errorf("the name server was asked %d times, want 3: this test proves nothing", names.asked)
	}
}
