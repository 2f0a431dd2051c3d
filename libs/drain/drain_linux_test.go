package drain

import (
	"net"
	"testing"
	"time"
)

func TestNobodyNewIsLetInAndWhoIsInStays(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	in, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	noMoreSYN(l.(*net.TCPListener))
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 200*time.Millisecond); err == nil {
		_ = c.Close()
		t.Error("a new connection was made")
	}
	// What waits in the queue is taken, and what it sent is there.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if n, err := served.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d octets, %v", n, err)
	}
}
