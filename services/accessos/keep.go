package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"a3os.app/libs/drain"
)

// keepSocket keeps a socket open at an address, and hands it over at a path to whoever runs as a user, until it is told to end.
func keepSocket(ctx context.Context, args []string) int {
	if err := keep(ctx, args[0], args[1], args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitFailed
	}
	return 0
}

func keep(ctx context.Context, address, path, uid string) error {
	const decimal, bits = 10, 32
	user, err := strconv.ParseUint(uid, decimal, bits)
	if err != nil {
		return fmt.Errorf("%q is not the id of a user", uid)
	}
	l, err := drain.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("keep a socket: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return errors.Join(fmt.Errorf("%s is no TCP socket", address), l.Close())
	}
	// One that was killed left it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	doors, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("hand the socket over: %w", err)
	}
	// Everybody may ask; who is asked looks who it is.
	const everybody = 0o666
	if err := os.Chmod(path, everybody); err != nil {
		return errors.Join(err, doors.Close())
	}
	return drain.Keep(ctx, tcp, doors, uint32(user))
}
