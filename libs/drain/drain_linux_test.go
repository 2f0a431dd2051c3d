package drain

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// inheriting serves on a socket as a process that was given it.
func inheriting(t *testing.T, socket *os.File, answer int) (end func()) {
	t.Helper()
	fd, err := syscall.Dup(int(socket.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Inherit(fd)
	if err != nil {
		t.Fatal(err)
	}
	var leaving atomic.Bool
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(answer)
	})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, srv, l, Config{Ask: func() { leaving.Store(true) }, LeaveWithin: 100 * time.Millisecond, DrainWithin: 10 * time.Second})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	}
}

// Two servers one after the other on one socket that somebody keeps open: who asks all the while is always answered, each request on a
// connection of its own, and also who comes while nobody serves.
func TestInheritedSocketTurnsNobodyAwayBetweenTwoServers(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), http.NoBody)
		if err != nil {
			return 0, err
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	const first, second = http.StatusOK, http.StatusAccepted
	end := inheriting(t, socket, first)
	var over atomic.Bool
	asked := make(chan [2]int, 1)
	go func() {
		var by [2]int
		for !over.Load() {
			switch status, err := get(); {
			case err != nil:
				t.Errorf("after %v: %v", by, err)
			case status == first:
				by[0]++
			case status == second:
				by[1]++
			}
		}
		asked <- by
	}()
	wait := func() {
		t.Helper()
		const some = 20
		for range some {
			if _, err := get(); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait()
	end()
	late, err := net.Dial("tcp", l.Addr().String()) // nobody serves now
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	end = inheriting(t, socket, second)
	wait()
	over.Store(true)
	if by := <-asked; by[0] == 0 || by[1] == 0 {
		t.Errorf("the first answered %d and the second %d", by[0], by[1])
	}
	end()
}

// A client whose handshake takes its time, as on a machine that is busy, is answered by who lets nobody new in any more; one that was made in advance,
// and brings nothing, keeps nobody from ending.
func TestWhoIsSlowToAskIsAnsweredAndWhoNeverAsksIsNotWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		made, asks time.Duration
		least      time.Duration
	}{
		"made just now, asks after two seconds": {0, 2 * time.Second, 2 * time.Second},
		"made long ago, never asks":             {freshFor, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- Serve(ctx, srv, l, Config{Ask: func() {}, LeaveWithin: 100 * time.Millisecond, DrainWithin: 10 * time.Second})
			}()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			<-time.After(c.made)
			cancel()
			began := time.Now()
			if c.asks > 0 {
				<-time.After(c.asks)
				if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatalf("it is not answered: %v", err)
				}
				_ = res.Body.Close()
			}
			if err := <-done; err != nil {
				t.Errorf("serving ended with %v", err)
			}
			if took := time.Since(began); took < c.least || took > c.least+3*time.Second {
				t.Errorf("it ended after %s", took)
			}
		})
	}
}

func TestDescriptorThatIsNoSocketIsRefused(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Inherit(fd); err == nil {
		t.Errorf("it is %v", l.Addr())
	}
}

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
