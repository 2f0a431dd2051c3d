package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
)

// doors are the sockets that the supervisor keeps open for units. Whoever connects while a process ends and the next one starts waits in
// the socket's queue, where a socket of the process's own would be closed, and its clients turned away.
type doors struct {
	mu   sync.Mutex
	open map[string]door
}

type door struct {
	address string
	file    *os.File
}

// of is the unit's socket, made where it isn't open yet.
func (d *doors) of(ctx context.Context, u Unit) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if is := d.open[u.Name]; is.address == u.Listens {
		return is.file, nil
	}
	d.shutLocked(u.Name)
	var lc net.ListenConfig
	// Who serves on it knows plain TCP (libs/drain).
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", u.Listens)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for it: %w", u.Listens, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no TCP socket", u.Listens), l.Close())
	}
	// The file is another name of the socket, and alone keeps it open from here on.
	file, err := tcp.File()
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, fmt.Errorf("keep the socket at %s: %w", u.Listens, err)
	}
	d.open[u.Name] = door{address: u.Listens, file: file}
	return file, nil
}

// at is where a unit's socket is open; empty where none is.
func (d *doors) at(unit string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[unit].address
}

// shut closes a unit's socket, if it has one.
func (d *doors) shut(unit string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shutLocked(unit)
}

func (d *doors) shutLocked(unit string) {
	is, ok := d.open[unit]
	if !ok {
		return
	}
	delete(d.open, unit)
	if err := is.file.Close(); err != nil {
		slog.Warn("the socket of a unit did not close cleanly", "unit", unit, "error", err)
	}
}
