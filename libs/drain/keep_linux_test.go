package drain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// kept is a socket that is kept at a path, for a user, until the answered function is called.
func kept(t *testing.T, user uint32) (l net.Listener, path string, end func()) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kept-") // a socket's path has a hundred letters at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "socket")
	if l, err = Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	doors, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Keep(ctx, l.(*net.TCPListener), doors, user) }()
	return l, path, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("keeping ended with %v", err)
		}
	}
}

func me() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a user's id

// Two servers one after the other on a socket that is handed to each: who comes while nobody serves is answered by the second.
func TestSocketThatIsKeptTurnsNobodyAwayBetweenTwoServers(t *testing.T) {
	l, path, end := kept(t, me())
	defer end()
	serve := func(answer int) (stop func()) {
		mine, err := Take(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answer) })}
		go func() {
			done <- Serve(ctx, srv, mine, Config{Ask: func() {}, LeaveWithin: time.Millisecond, DrainWithin: 10 * time.Second})
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serving ended with %v", err)
			}
		}
	}
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
	stop := serve(http.StatusOK)
	if got, err := get(); err != nil || got != http.StatusOK {
		t.Errorf("the first one answers %d, %v", got, err)
	}
	stop()
	type answer struct {
		status int
		err    error
	}
	waits := make(chan answer, 1)
	go func() {
		status, err := get()
		waits <- answer{status, err}
	}()
	stop = serve(http.StatusAccepted)
	defer stop()
	if got := <-waits; got.err != nil || got.status != http.StatusAccepted {
		t.Errorf("who came between the two is answered %+v", got)
	}
}

func TestSocketIsHandedToNobodyElse(t *testing.T) {
	_, path, end := kept(t, me()+1)
	defer end()
	if _, err := Take(t.Context(), path); err == nil {
		t.Error("another user was given the socket")
	}
}

// Where who keeps the socket is gone, nobody arrives on it any more: who serves on it is told.
func TestSocketEndsWithItsKeeper(t *testing.T) {
	_, path, end := kept(t, me())
	mine, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := mine.Accept()
		ended <- err
	}()
	end()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ends with %v", err)
	}
	if _, err := Take(t.Context(), path); err == nil {
		t.Error("a socket that nobody keeps was handed over")
	}
}
