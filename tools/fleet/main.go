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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
