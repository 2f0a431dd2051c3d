package tenancy

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A flood isn't held up by what holds its calls: a gateway lets them wait for two seconds.
func TestFloodSendsThoughNothingIsAnsweredForTwoSeconds(t *testing.T) {
	const held = 2 * share * times
	var arrived atomic.Int64
	answer := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := arrived.Add(1)
		if n <= connections { // before the flood
			return
		}
		if r.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("a call has the authorization %q", r.Header.Get("Authorization"))
		}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		if n%2 == 0 {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	in, end := io.Pipe()
	out, says := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := flood(t.Context(), &caller{URL: s.URL, Token: "token", CA: ca, Dial: s.Listener.Addr().String()}, in, says)
		done <- err
		_ = says.CloseWithError(err)
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "flooding" {
		t.Fatalf("it says %q: %v", lines.Text(), lines.Err())
	}
	reach := func(n int64) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); arrived.Load() < n; <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls came, want %d", arrived.Load(), n)
			}
		}
	}
	reach(connections + held)
	close(answer)
	reach(connections + held + share*times)
	_ = end.Close()
	var said flooded
	if !lines.Scan() {
		t.Fatalf("it says nothing in the end: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	// What was sent and not answered when it ended may never have come, and of the last that came it may not have heard that they were written.
	if said.Sent < held+share*times/2 || said.Served == 0 || said.Refused == 0 || int64(said.Served+said.Refused) > arrived.Load()-connections {
		t.Errorf("%d calls came, and it says %+v", arrived.Load()-connections, said)
	}
	if most := said.Took.Seconds() * share * times; float64(said.Sent) > most {
		t.Errorf("%d calls were sent in %s, want %.0f at most", said.Sent, said.Took, most)
	}
}

func TestFigureOfAFloodThatIsNoneIsRefused(t *testing.T) {
	for sent, fails := range map[int]bool{0: true, 149 * 10: true, 1799 * 10: true, 1800 * 10: false, 2000 * 10: false} {
		var all flooded
		for range 2 {
			all.add(flooded{Sent: sent / 2, Refused: sent / 2, Took: 5 * time.Second})
		}
		if err := all.enough(); (err != nil) != fails {
			t.Errorf("of %d in %s it is said: %v", sent, all.Took, err)
		} else if err != nil && !strings.Contains(err.Error(), "for 2000") {
			t.Error(err)
		}
	}
	if (&flooded{}).enough() == nil {
		t.Error("a flood that never was is one")
	}
}
