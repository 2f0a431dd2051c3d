package main

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// hangUp sends this process what a terminal that is closed sends, and says whether fleet is asked to end by it.
func hangUp(t *testing.T, within time.Duration) bool {
	t.Helper()
	ctx, stop := asked(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
		return true
	case <-time.After(within):
		return false
	}
}

// A terminal or a connection that is closed asks fleet to end, as ctrl-C does, so that it puts right first what it has to; one that was started to outlive
// its terminal goes on.
func TestAClosedTerminalAsksToEnd(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP) // else it would end the test where fleet doesn't hear it
	defer signal.Reset(syscall.SIGHUP)
	if !hangUp(t, 10*time.Second) {
		t.Error("started from a terminal it is not asked to end")
	}
	signal.Ignore(syscall.SIGHUP)
	if hangUp(t, 300*time.Millisecond) {
		t.Error("started by nohup it is asked to end")
	}
}
