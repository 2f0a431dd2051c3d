package idle

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackOnceAQuietWhileAndNeverUnderLoad(t *testing.T) {
	const mib = 1 << 20
	var w watch
	for i, step := range []struct {
		total uint64
		due   bool
	}{
		{total: 30 * mib, due: false},             // starting
		{total: 30*mib + 1000, due: true},         // quiet after it
		{total: 30*mib + 2000, due: false},        // nothing new to give
		{total: 90 * mib, due: false},             // load
		{total: 150 * mib, due: false},            // and more of it
		{total: 150*mib + 500<<10, due: true},     // over
		{total: 150*mib + 900<<10, due: false},    // heartbeats
		{total: 150*mib + 1800<<10, due: false},   // pile up
		{total: 154*mib + 900<<10, due: false},    // too much at once
		{total: 154*mib + 900<<10 + 1, due: true}, // until there is something again
	} {
		due := w.due(step.total)
		if due != step.due {
			t.Fatalf("look %d, %d bytes allocated: due is %t", i, step.total, due)
		}
		if due {
			w.given = step.total
		}
	}
}

func TestWhatStartingTookIsGivenBack(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("that memory is given back is not tested: resident memory is read from /proc, and there is none")
	}
	const much = 256 << 20
	waste := make([]byte, much)
	for i := range waste {
		waste[i] = 1
	}
	before := resident(t)
	waste = nil
	_ = waste
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			GiveBack(ctx)
			close(done)
		}()
		<-time.After(3 * look) // of synctest's clock: the second look finds it quiet
		synctest.Wait()
		stop()
		<-done
	})
	if after := resident(t); before-after < much/2 {
		t.Errorf("%d MiB were resident before and %d after", before>>20, after>>20)
	}
}

func resident(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
