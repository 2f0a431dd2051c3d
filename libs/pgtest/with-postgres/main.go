// Command with-postgres runs a command with a throwaway PostgreSQL that its tests share: it starts one, sets A3_TEST_PG,
// passes signals on, stops the server when the command has ended, and exits with the command's exit code. Where A3_TEST_PG
// is set already it starts none.
//
//	go run a3os.app/libs/pgtest/with-postgres -- go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"a3os.app/libs/pgtest"
)

// Exit codes of our own, as env(1) and shells have them.
const (
	exitUsage    = 2
	exitNoServer = 125
	exitNoStart  = 127
	exitSignal   = 128 // plus the signal's number
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: with-postgres -- command [argument …]")
		os.Exit(exitUsage)
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "with-postgres:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	// Signals are for the command; caught here from the start, so that none ends us and leaves the command behind.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if os.Getenv(pgtest.EnvServer) == "" {
		stop, err := serve()
		if err != nil {
			return exitNoServer, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return exitNoStart, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // fails only when the command has just ended, which the other case tells
		case err := <-ended:
			return exitCode(err)
		}
	}
}

// serve starts the server and names it to what this process starts.
func serve() (stop func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it may have to be fetched first
	defer cancel()
	server, err := pgtest.Shared(ctx)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	stop = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return server.Remove(ctx)
	}
	url, err := server.URL("postgres")
	if err == nil {
		err = os.Setenv(pgtest.EnvServer, url)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func exitCode(err error) (int, error) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
