// Command a3 is for those who use a tenant: its admins, its members and their programs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"a3os.app/tools/a3/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, command.World{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}
