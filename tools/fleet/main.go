// Command fleet brings planes and tenants up, changes them and takes them down.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"a3os.app/libs/garbage"
	"a3os.app/tools/fleet/internal/command"
)

func main() {
	garbage.Seldom()
	ctx, stop := asked(context.Background())
	code := command.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// asked is a context that ends once somebody asks this process to: by ctrl-C, or by closing the terminal or the connection that it was started from, by which it would
// otherwise be killed in the midst of what it has to put right first. Whoever started it to outlive its terminal, as nohup does, has said that this is no such request.
func asked(ctx context.Context) (context.Context, context.CancelFunc) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signal.NotifyContext(ctx, signals...)
}
