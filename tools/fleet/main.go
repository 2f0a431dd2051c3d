// Command fleet brings planes and tenants up, changes them and takes them down.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"a3os.app/tools/fleet/internal/command"
)

// seldom is how much garbage a command makes beside what it holds, in percent, before it is collected: most end before the first time.
const seldom = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(seldom)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
