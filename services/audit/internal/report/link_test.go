package report_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"a3os.app/services/audit/internal/report"
)

func TestSetsComeBackOneAfterTheOther(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const sets, every = 100, 2 * time.Second
	dial := func(link *report.Link) time.Duration {
		began := time.Now()
		conn, err := link.Dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Error(err)
			return 0
		}
		_ = conn.Close()
		return time.Since(began)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var late int
	for range sets {
		all.Go(func() {
			link := &report.Link{}
			link.Paced(every)
			dial(link) // the first waits for nobody
			if dial(link) > every/8 {
				mu.Lock()
				defer mu.Unlock()
				late++
			}
		})
	}
	all.Wait()
	// Three quarters are to be later than a quarter of the time that they have.
	if late < sets/2 {
		t.Errorf("of %d sets that came back, %d waited", sets, late)
	}
}
